"""find_images: paths, labels and tags of folders, files and manifests, in the order given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from featuretl.exceptions import InputError
from featuretl.images.sources import find_images
from featuretl.images.tables import LABEL_COLUMNS, PATH_COLUMNS


def test_class_folders_give_labels_however_deep_the_image_lies(
    tmp_path: Path, make: Any, relative: Any
) -> None:
    make(tmp_path, "dog/2.jpg", "cat/b/c/3.png", "cat/1.jpg", "dog/a/0.gif")
    images = find_images([tmp_path])
    assert relative(images, tmp_path) == ["cat/1.jpg", "cat/b/c/3.png", "dog/2.jpg", "dog/a/0.gif"]
    assert images.labels == ["cat", "cat", "dog", "dog"]
    assert images.class_names == ["cat", "dog"]


def test_files_in_the_order_given(tmp_path: Path, make: Any) -> None:
    make(tmp_path, "b.jpg", "a.jpg", "no-suffix")
    sources = [tmp_path / "b.jpg", tmp_path / "no-suffix", tmp_path / "a.jpg", tmp_path / "b.jpg"]
    images = find_images(sources)
    assert images.paths == list(map(str, sources))
    assert images.labels is None


def test_several_sources_in_a_row(tmp_path: Path, make: Any, relative: Any) -> None:
    make(tmp_path, "folder/cat/1.jpg", "loose/2.jpg", "3.jpg")
    (tmp_path / "list.txt").write_text("4.jpg\n")
    (tmp_path / "m.csv").write_text("path,label\n5.jpg,dog\n")
    sources = ["folder", "loose/*", "3.jpg", "list.txt", "m.csv"]
    images = find_images([tmp_path / source for source in sources])
    assert relative(images, tmp_path) == [
        "folder/cat/1.jpg",
        "loose/2.jpg",
        "3.jpg",
        "4.jpg",
        "5.jpg",
    ]
    assert images.labels == ["cat", None, None, None, "dog"]


def test_no_source_at_all() -> None:
    with pytest.raises(InputError, match="No images were named"):
        find_images([])


def test_a_manifest_has_paths_relative_to_itself_and_labels(write: Any, tmp_path: Path) -> None:
    manifest = write({"id": [1, 2, 3], "label": ["b", "a", "b"], "path": ["2", "sub/1", "/abs"]})
    images = find_images([manifest])
    assert images.paths == [f"{tmp_path}/2", f"{tmp_path}/sub/1", "/abs"]
    assert images.labels == ["b", "a", "b"]


@pytest.mark.parametrize("path_column", PATH_COLUMNS)
@pytest.mark.parametrize("label_column", LABEL_COLUMNS)
def test_the_usual_columns_are_found(write: Any, path_column: str, label_column: str) -> None:
    images = find_images([write({label_column: ["x"], path_column: ["1.jpg"]})])
    assert [Path(path).name for path in images.paths] == ["1.jpg"]
    assert images.labels == ["x"]


def test_columns_may_be_named(write: Any, tmp_path: Path, relative: Any) -> None:
    manifest = write({"path": ["a"], "label": ["x"], "photo": ["b"], "kind of": ["y"]})
    images = find_images([manifest], path_column="photo", label_column="kind of")
    assert relative(images, tmp_path) == ["b"]
    assert images.labels == ["y"]


def test_a_manifest_needs_no_labels(write: Any) -> None:
    assert find_images([write({"path": ["a", "b"], "size": [1, 2]})]).labels is None


@pytest.mark.parametrize("which", ["path_column", "label_column"])
def test_a_missing_column_is_named(write: Any, which: str) -> None:
    manifest = write({"path": ["1"], "label": ["a"]})
    with pytest.raises(InputError, match="no column 'pth'; it has path, label"):
        find_images([manifest], **{which: "pth"})


@pytest.mark.parametrize("option", ["path_column", "label_column", "group_column"])
def test_columns_of_what_has_none_are_refused(option, photo_folder, photos, tmp_path):
    (tmp_path / "list.txt").write_text("\n".join(photos))
    for source in (photo_folder, photos[0], tmp_path / "list.txt", f"{photo_folder}/*/*.jpg"):
        with pytest.raises(InputError, match=f"{option} names 'x'"):
            find_images([source], **{option: "x"})


def test_tags_of_a_manifest(tmp_path):
    manifest = tmp_path / "m.csv"
    rows = ["1.jpg,ant; bee ;,1,1.0", "2.jpg,,0,False", "3.jpg,bee,0,true"]
    manifest.write_text("\n".join(["path,tags,ant,bee", *rows]))
    expected = [["ant", "bee"], [], ["bee"]]
    columns = find_images([manifest], label_column=["ant", "bee"])
    split = find_images([manifest], label_column="tags", label_separator=";")
    assert (columns.tags, columns.labels) == (split.tags, split.labels) == (expected, None)


@pytest.mark.parametrize(
    ("columns", "message"),
    [(["ant", "wasp"], "no column 'wasp'"), (["tags", "ant"], r"0 or 1 in every row.*got ant\\n")],
)
def test_columns_of_tags_hold_0_and_1(columns, message, tmp_path):
    manifest = tmp_path / "m.csv"
    manifest.write_text('path,tags,ant\n1.jpg,"ant\nbee",1\n')
    with pytest.raises(InputError, match=message):
        find_images([manifest], label_column=columns)
