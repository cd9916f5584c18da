"""README's first block of Python, as it stands there, on a folder of photographs."""

import re
import shutil
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
PYTHON = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.mark.filterwarnings("ignore:TransferClassifier")
def test_the_workflow(photo_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("temple", "flower"):
        for number, file in enumerate(sorted((photo_folder / name).iterdir())):
            to = Path("photos", "val" if number % 3 == 0 else "train", name)
            to.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, to)
    first = PYTHON.search(README.read_text(encoding="utf-8"))
    exec(compile(first[1], str(README), "exec"), {})
    for written in ("model.featuretl", "predictions.parquet", "report.html", "model.onnx"):
        assert Path(written).stat().st_size > 1000
