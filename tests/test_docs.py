"""The API reference is built without a warning, and has every public name."""

import sys
from pathlib import Path

import featuretl

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "docs"))
import api


def test_every_public_name_has_its_place(tmp_path):
    api.main(str(tmp_path))
    packages = api.public_packages()
    for package in packages:
        page = (tmp_path / f"{package.__name__.replace('.', '/')}.html").read_text()
        for name in package.__all__:
            assert name == "__version__" or f'id="{name}"' in page, name
    assert featuretl in packages
    assert len(list(tmp_path.rglob("*.html"))) == len(packages) + 1
