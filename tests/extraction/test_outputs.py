"""Files of embeddings: three formats with the same content; a failed write leaves no file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet

import featuretl
from featuretl.backbones.spec import BackboneSpec
from featuretl.exceptions import InputError, ParameterError, StoreError
from featuretl.extraction import outputs
from featuretl.extraction.extraction import Extraction, extract
from featuretl.extraction.outputs import load_embeddings, save_embeddings
from featuretl.images.sources import ImageList, find_images

ENDINGS = [".npy", ".npz", ".parquet"]
SPEC = BackboneSpec.of("test", "test_resnet", weights="random")
D = 96


@pytest.fixture(scope="module")
def photos_and_extraction(photo_folder: Path) -> tuple[ImageList, Extraction]:
    images = find_images([photo_folder])
    return images, extract(images.paths, SPEC)


@pytest.fixture(scope="module")
def damaged(
    photo_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ImageList, Extraction]:
    """Four images; the second and the last cannot be decoded."""
    root = tmp_path_factory.mktemp("damaged")
    good = find_images([photo_folder]).paths
    for name in ("1.jpg", "3.jpg"):
        (root / name).write_bytes(b"no image")
    paths = [good[0], str(root / "1.jpg"), good[20], str(root / "3.jpg")]
    images = ImageList(paths, ["flower", "flower", None, "broken"])
    return images, extract(paths, SPEC, on_error="nan")


def read_back(path: Path) -> dict[str, Any]:
    """Return the content of a file in the same form for every format; None for no labels."""
    if path.suffix == ".npy":
        described = json.loads(path.with_name(f"{path.name}.json").read_text(encoding="utf-8"))
        own = {name: described.pop(name) for name in ("paths", "labels")}
        return {"embeddings": np.load(path, allow_pickle=False), **own, "metadata": described}
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        labels = arrays.get("labels")
        return {
            "embeddings": arrays["embeddings"],
            "paths": arrays["paths"].tolist(),
            "labels": None if labels is None else [label or None for label in labels.tolist()],
            "metadata": json.loads(str(arrays["metadata"])),
        }
    with path.open("rb") as file:  # pyarrow accepts no name that is not UTF-8
        table = parquet.read_table(file)
    columns = table.to_pydict()
    flat = table.column("embedding").combine_chunks().flatten().to_numpy()
    return {
        "embeddings": flat.reshape(len(table), table.schema.field("embedding").type.list_size),
        "paths": columns["path"],
        "labels": columns.get("label"),
        "metadata": json.loads(table.schema.metadata[b"featuretl"]),
    }


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_describes_itself(
    photos_and_extraction: tuple[ImageList, Extraction], tmp_path: Path, ending: str
) -> None:
    images, extraction = photos_and_extraction
    save_embeddings(tmp_path / f"out{ending}", extraction, images)
    found = read_back(tmp_path / f"out{ending}")
    assert found["embeddings"].dtype == np.float32
    assert found["embeddings"].shape == (24, D)
    np.testing.assert_array_equal(found["embeddings"], extraction.to_numpy())
    assert found["paths"] == images.paths
    assert found["labels"] == images.labels
    metadata = found["metadata"]
    assert metadata["shape"] == [24, D]
    assert metadata["class_names"] == ["flower", "temple"]
    assert metadata["backbone"] == "test_resnet"
    assert metadata["featuretl"] == featuretl.__version__
    assert metadata["versions"].keys() == {"torch", "timm", "pillow"}
    assert metadata["recipe"] == json.loads(json.dumps(extraction.recipe))
    assert metadata["recipe"]["preprocess"]["input_size"] == [3, 160, 160]
    assert len(bytes.fromhex(metadata["weights_sha256"])) == 32
    assert metadata["created"].endswith("Z")


def test_all_formats_say_the_same(
    damaged: tuple[ImageList, Extraction], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs.time, "strftime", lambda *a: "now")
    images, extraction = damaged
    for skip in (False, True):
        found = []
        for ending in ENDINGS:
            path = tmp_path / f"{skip}{ending}"
            save_embeddings(path, extraction, images, skip_failures=skip)
            found.append(read_back(path))
        for other in found[1:]:
            np.testing.assert_array_equal(other.pop("embeddings"), found[0]["embeddings"])
            assert other == {name: found[0][name] for name in other}


@pytest.mark.parametrize("ending", ENDINGS)
def test_failures_are_rows_of_nan(
    damaged: tuple[ImageList, Extraction], tmp_path: Path, ending: str
) -> None:
    images, extraction = damaged
    save_embeddings(tmp_path / f"out{ending}", extraction, images)
    found = read_back(tmp_path / f"out{ending}")
    assert np.isnan(found["embeddings"]).all(axis=1).tolist() == [False, True, False, True]
    assert not np.isnan(found["embeddings"][[0, 2]]).any()
    assert found["paths"] == images.paths
    assert found["labels"] == ["flower", "flower", None, "broken"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_failures_are_left_out(
    damaged: tuple[ImageList, Extraction], tmp_path: Path, ending: str
) -> None:
    images, extraction = damaged
    save_embeddings(tmp_path / f"out{ending}", extraction, images, skip_failures=True)
    found = read_back(tmp_path / f"out{ending}")
    np.testing.assert_array_equal(found["embeddings"], extraction.to_numpy()[[0, 2]])
    assert found["paths"] == [images.paths[0], images.paths[2]]
    assert found["labels"] == ["flower", None]
    assert found["metadata"]["class_names"] == ["broken", "flower"]
    assert found["metadata"]["shape"] == [2, D]


@pytest.mark.parametrize("ending", ENDINGS)
def test_nothing_but_failures(tmp_path: Path, ending: str) -> None:
    images = ImageList([f"{tmp_path}/missing.jpg"], ["a"])
    extraction = extract(images.paths, SPEC, on_error="nan")
    save_embeddings(tmp_path / f"out{ending}", extraction, images, skip_failures=True)
    found = read_back(tmp_path / f"out{ending}")
    assert found["embeddings"].size == 0
    assert found["paths"] == found["labels"] == []


@pytest.mark.parametrize("ending", ENDINGS)
def test_images_without_labels(
    photos_and_extraction: tuple[ImageList, Extraction], tmp_path: Path, ending: str
) -> None:
    images, extraction = photos_and_extraction
    save_embeddings(tmp_path / f"out{ending}", extraction, ImageList(images.paths))
    found = read_back(tmp_path / f"out{ending}")
    assert found["labels"] is None
    assert found["metadata"]["class_names"] is None
    assert found["paths"] == images.paths


@pytest.mark.parametrize("ending", ENDINGS)
def test_more_rows_than_are_written_at_once(
    photos_and_extraction: tuple[ImageList, Extraction],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ending: str,
) -> None:
    images, extraction = photos_and_extraction
    monkeypatch.setattr(outputs, "_ROWS", 7)
    save_embeddings(tmp_path / f"out{ending}", extraction, images)
    found = read_back(tmp_path / f"out{ending}")
    np.testing.assert_array_equal(found["embeddings"], extraction.to_numpy())
    assert (found["paths"], found["labels"]) == (images.paths, images.labels)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", ["not-utf8-\udcff", "line\nbreak\x1b", "日本 \u202e"])
def test_names_of_any_characters(
    photo_folder: Path, tmp_path: Path, ending: str, name: str
) -> None:
    data = next(photo_folder.rglob("*.jpg")).read_bytes()
    (tmp_path / name).mkdir()
    (tmp_path / name / "1.jpg").write_bytes(data)
    images = find_images([tmp_path])
    assert images.labels == [name]
    out = tmp_path / f"out {name}{ending}"
    save_embeddings(out, extract(images.paths, SPEC), images)
    found = read_back(out)
    text = name
    if ending == ".parquet":  # text in Parquet is UTF-8
        text = name.encode("utf-8", "backslashreplace").decode()
    assert found["paths"] == [f"{tmp_path}/{text}/1.jpg"]
    assert found["labels"] == [text]
    assert found["metadata"]["class_names"] == [name]


def test_an_npz_has_no_pickle_and_the_documented_arrays(
    damaged: tuple[ImageList, Extraction], tmp_path: Path
) -> None:
    images, extraction = damaged
    save_embeddings(tmp_path / "out.npz", extraction, images)
    with np.load(tmp_path / "out.npz", allow_pickle=False) as file:
        assert set(file) == {"embeddings", "paths", "labels", "class_names", "metadata"}
        assert file["labels"].tolist() == ["flower", "flower", "", "broken"]
        assert file["class_names"].tolist() == ["broken", "flower"]


def test_an_npy_can_be_mapped(
    photos_and_extraction: tuple[ImageList, Extraction], tmp_path: Path
) -> None:
    images, extraction = photos_and_extraction
    save_embeddings(tmp_path / "out.npy", extraction, images)
    mapped = np.load(tmp_path / "out.npy", mmap_mode="r", allow_pickle=False)
    np.testing.assert_array_equal(mapped, extraction.to_numpy())


@pytest.mark.parametrize("name", ["out.csv", "out", "out.NPY", "out.npy.json", ".npy"])
def test_another_ending_is_refused_before_anything_is_written(
    photos_and_extraction: tuple[ImageList, Extraction], tmp_path: Path, name: str
) -> None:
    images, extraction = photos_and_extraction
    with pytest.raises(ParameterError, match=r"must end in \.npy, \.npz, \.parquet; got"):
        save_embeddings(tmp_path / name, extraction, images)
    assert not any(tmp_path.iterdir())


def fail_to_write(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Simulate a full disk for one kind of write."""

    def full(*args: Any, **kwargs: Any) -> Any:
        raise OSError(28, "No space left on device")

    if what == "rows":
        monkeypatch.setattr(Extraction, "chunks", full)
    else:
        monkeypatch.setattr(Path, what, full)


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize(
    ("ending", "what"),
    [
        (".npy", "rows"),
        (".npz", "rows"),
        (".parquet", "rows"),
        (".npy", "write_text"),
        (".npy", "replace"),
        (".npz", "replace"),
        (".parquet", "replace"),
    ],
)
def test_a_failed_write_leaves_what_was_there(
    photos_and_extraction: tuple[ImageList, Extraction],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ending: str,
    what: str,
    existing: bool,
) -> None:
    images, extraction = photos_and_extraction
    out = tmp_path / f"out{ending}"
    if existing:
        some = ImageList(images.paths[:2], images.labels[:2])
        save_embeddings(out, extract(some.paths, SPEC), some)
    before = contents(tmp_path)
    with monkeypatch.context() as patch:
        fail_to_write(patch, what)
        with pytest.raises(StoreError, match=r"cannot be written \(No space left on device\)"):
            save_embeddings(out, extraction, images)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_interrupted_write_leaves_nothing(
    photos_and_extraction: tuple[ImageList, Extraction],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ending: str,
) -> None:
    images, extraction = photos_and_extraction

    def interrupted(self: Extraction, *args: Any) -> Any:
        yield self.to_numpy()[:3]
        raise KeyboardInterrupt

    monkeypatch.setattr(Extraction, "chunks", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_embeddings(tmp_path / f"out{ending}", extraction, images)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_folder_in_the_place_of_the_output_is_an_error(
    photos_and_extraction: tuple[ImageList, Extraction], tmp_path: Path, ending: str
) -> None:
    images, extraction = photos_and_extraction
    (tmp_path / f"out{ending}").mkdir()
    with pytest.raises((StoreError, ParameterError), match=f"out{ending}"):
        save_embeddings(tmp_path / f"out{ending}", extraction, images)
    assert [path.name for path in tmp_path.iterdir()] == [f"out{ending}"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_older_file_is_replaced(
    photos_and_extraction: tuple[ImageList, Extraction], tmp_path: Path, ending: str
) -> None:
    images, extraction = photos_and_extraction
    out = tmp_path / f"out{ending}"
    some = ImageList(images.paths[:2])
    save_embeddings(out, extract(some.paths, SPEC), some)
    save_embeddings(out, extraction, images)
    assert read_back(out)["paths"] == images.paths
    assert len(read_back(out)["embeddings"]) == 24


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_special_files_in_the_place_of_embeddings_are_refused_without_waiting(tmp_path):
    (tmp_path / "a.npy").touch()
    os.mkfifo(tmp_path / "a.npy.json")
    os.mkfifo(tmp_path / "b.npy")
    (tmp_path / "b.npy.json").write_text("{}")
    for name in ("a.npy", "b.npy"):
        with pytest.raises(InputError, match="not a regular file"):
            load_embeddings(tmp_path / name)
