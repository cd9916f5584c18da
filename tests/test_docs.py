"""The API reference is built without a warning, and has every public name."""

import runpy
from pathlib import Path

import featuretl

SCRIPT = Path(__file__).resolve().parents[1] / "docs" / "api.py"


def test_every_public_name_has_its_place(tmp_path):
    runpy.run_path(str(SCRIPT))["main"](str(tmp_path))
    page = (tmp_path / "featuretl.html").read_text()
    for name in featuretl.__all__:
        assert f'id="{name}"' in page, name
    assert sorted(path.name for path in tmp_path.glob("*.html")) == ["featuretl.html", "index.html"]
