"""Folders, globs, lists and manifests: what is found, in which order, under which label."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from featuretl import load_image_folder
from featuretl.exceptions import InputError
from featuretl.images.sources import ImageList, find_images
from featuretl.images.tables import LABEL_COLUMNS, PATH_COLUMNS

HOSTILE_NAMES = ["line\nbreak", "esc\x1b[31mred", "bidi\u202egpj", "not-utf8-\udcff"]


def make(root: Path, *names: str) -> Path:
    """Create empty files; nothing here is opened."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def relative(images: ImageList, root: Path) -> list[str]:
    return [os.path.relpath(path, root) for path in images.paths]


def assert_one_printable_sentence(error: BaseException) -> None:
    message = str(error)
    assert message.isprintable()  # no newline, ESC, bidi or surrogate character
    assert message.endswith(".") or ": " in message


# folders


def test_class_folders_give_labels_however_deep_the_image_lies(tmp_path: Path) -> None:
    make(tmp_path, "dog/2.jpg", "cat/b/c/3.png", "cat/1.jpg", "dog/a/0.gif")
    images = find_images([tmp_path])
    assert relative(images, tmp_path) == ["cat/1.jpg", "cat/b/c/3.png", "dog/2.jpg", "dog/a/0.gif"]
    assert images.labels == ["cat", "cat", "dog", "dog"]
    assert images.class_names == ["cat", "dog"]


def test_load_image_folder_agrees_with_find_images(photo_folder: Path, photos: list[str]) -> None:
    bunch, images = load_image_folder(str(photo_folder)), find_images([photo_folder])
    assert bunch.data.dtype == object
    assert bunch.data.tolist() == images.paths == photos
    assert bunch.target.tolist() == images.labels == ["flower"] * 12 + ["temple"] * 12
    assert bunch.target_names == images.class_names == ["flower", "temple"]


def test_load_image_folder_agrees_with_scikit_learn_and_torchvision(photo_folder: Path) -> None:
    load_files = pytest.importorskip("sklearn.datasets").load_files
    theirs = load_files(photo_folder, load_content=False, shuffle=False)
    ours = load_image_folder(photo_folder)
    assert dict(zip(ours.data, ours.target, strict=True)) == dict(
        zip(theirs.filenames, np.array(theirs.target_names)[theirs.target], strict=True)
    )
    folder = pytest.importorskip("torchvision.datasets").ImageFolder(photo_folder)
    numbers = map(folder.class_to_idx.get, ours.target)
    assert list(zip(ours.data, numbers, strict=True)) == folder.samples
    assert ours.target_names == folder.classes


def test_a_bare_folder_has_no_labels(tmp_path: Path) -> None:
    make(tmp_path, "2.jpg", "10.jpg", "1.jpg")
    images = find_images([tmp_path])
    assert relative(images, tmp_path) == ["1.jpg", "10.jpg", "2.jpg"]
    assert images.labels is images.class_names is None
    bunch = load_image_folder(tmp_path)
    assert bunch.target is None
    assert bunch.target_names == []


def test_images_beside_class_folders(tmp_path: Path) -> None:
    make(tmp_path, "cat/1.jpg", "stray.jpg")
    with pytest.raises(InputError, match=r"stray\.jpg.* class") as caught:
        load_image_folder(tmp_path)
    assert_one_printable_sentence(caught.value)
    images = find_images([tmp_path])  # the command line has images without a label
    assert images.labels == ["cat", None]


def test_a_class_means_the_same_in_a_folder_that_lacks_another_one(tmp_path: Path) -> None:
    make(tmp_path, "train/ant/1.jpg", "train/bee/2.jpg", "train/cow/3.jpg")
    make(tmp_path, "val/bee/4.jpg", "val/cow/5.jpg")
    train, val = (load_image_folder(tmp_path / part) for part in ("train", "val"))
    assert train.target.tolist() == ["ant", "bee", "cow"]
    assert val.target.tolist() == val.target_names == ["bee", "cow"]
    assert val.target.dtype.kind == "U"


def test_hidden_and_other_files_are_passed_over(tmp_path: Path) -> None:
    make(tmp_path, "a/1.jpg", "a/.2.jpg", ".git/3.jpg", "a/.thumbs/4.jpg", "a/notes.txt", "a/jpg")
    make(tmp_path, "a/5.jpg/inner.png", ".DS_Store", "b/Thumbs.db", "a/6.svg")
    assert relative(find_images([tmp_path]), tmp_path) == ["a/1.jpg", "a/5.jpg/inner.png"]


def test_the_folder_itself_may_be_hidden(tmp_path: Path) -> None:
    make(tmp_path, ".photos/1.jpg")
    assert len(find_images([tmp_path / ".photos"])) == 1


@pytest.mark.parametrize("suffix", ["JPG", "Jpeg", "PNG", "TIF", "WebP", "pgm", "avif", "bmp"])
def test_suffixes_in_any_case(tmp_path: Path, suffix: str) -> None:
    make(tmp_path, f"photo.{suffix}")
    assert relative(find_images([tmp_path]), tmp_path) == [f"photo.{suffix}"]


def test_loops_of_links_are_walked_once(tmp_path: Path) -> None:
    make(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "b" / "self").symlink_to(".")
    assert relative(find_images([tmp_path]), tmp_path) == ["a/1.jpg", "b/2.jpg"]


def test_linked_folders_are_followed(tmp_path: Path) -> None:
    make(tmp_path, "elsewhere/1.jpg", "photos/b/2.jpg")
    (tmp_path / "photos" / "a").symlink_to("../elsewhere")
    images = find_images([tmp_path / "photos"])
    assert relative(images, tmp_path / "photos") == ["a/1.jpg", "b/2.jpg"]
    assert images.labels == ["a", "b"]


def test_the_order_does_not_depend_on_the_order_of_creation(tmp_path: Path) -> None:
    names = [f"{folder}/{number}.jpg" for folder in "bca" for number in (10, 9, 1)]
    first, second = make(tmp_path / "x", *names), make(tmp_path / "y", *reversed(names))
    found = relative(find_images([first]), first)
    assert found == relative(find_images([second]), second) == sorted(names)


@pytest.mark.parametrize("name", [f"{name}.jpg" for name in HOSTILE_NAMES])
def test_hostile_names_are_found_as_they_are(tmp_path: Path, name: str) -> None:
    make(tmp_path, name)
    assert find_images([tmp_path]).paths == [f"{tmp_path}/{name}"]


# files and globs


def test_files_in_the_order_given(tmp_path: Path) -> None:
    make(tmp_path, "b.jpg", "a.jpg", "no-suffix")
    sources = [tmp_path / "b.jpg", tmp_path / "no-suffix", tmp_path / "a.jpg", tmp_path / "b.jpg"]
    images = find_images(sources)
    assert images.paths == list(map(str, sources))
    assert images.labels is None


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["1.jpg", "10.jpg"]),
        ("?.*", ["1.jpg", "2.png"]),
        ("[12].png", ["2.png"]),
        ("*/*.jpg", ["a/3.jpg"]),
        ("**/*.jpg", ["1.jpg", "10.jpg", "a/3.jpg", "a/b/4.jpg"]),
        ("a/**", ["a/3.jpg", "a/b/4.jpg"]),
    ],
)
def test_globs(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    make(tmp_path, "10.jpg", "1.jpg", "2.png", "a/3.jpg", "a/b/4.jpg", ".hidden.jpg")
    assert relative(find_images([f"{tmp_path}/{pattern}"]), tmp_path) == expected


def test_a_file_whose_name_looks_like_a_pattern(tmp_path: Path) -> None:
    make(tmp_path, "a[1].jpg", "a1.jpg")
    assert relative(find_images([tmp_path / "a[1].jpg"]), tmp_path) == ["a[1].jpg"]


def test_a_glob_through_a_loop_of_links_finds_an_image_once(tmp_path: Path) -> None:
    make(tmp_path, "a/1.jpg")
    (tmp_path / "a" / "up").symlink_to("..")
    assert relative(find_images([f"{tmp_path}/**/*.jpg"]), tmp_path) == ["a/1.jpg"]


def test_several_sources_in_a_row(tmp_path: Path) -> None:
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


# lists


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_list_has_a_path_a_line_relative_to_itself(tmp_path: Path, end: str) -> None:
    lines = ["b.jpg", "", "sub/a.jpg", "/abs/c.jpg", "with space.jpg", "b.jpg"]
    (tmp_path / "list.TXT").write_bytes(end.join(lines).encode())
    images = find_images([tmp_path / "list.TXT"])
    expected = ["b.jpg", "sub/a.jpg", "with space.jpg", "b.jpg"]
    assert images.paths[2] == "/abs/c.jpg"
    del images.paths[2]
    assert relative(images, tmp_path) == expected


@pytest.mark.parametrize("name", ["a\u2028b.jpg", "a\x85b.jpg", "a\x0cb.jpg", "a\udcffb.jpg"])
def test_a_list_is_split_at_line_ends_only(tmp_path: Path, name: str) -> None:
    (tmp_path / "list.txt").write_bytes(os.fsencode(f"{name}\nlast.jpg\n"))
    assert relative(find_images([tmp_path / "list.txt"]), tmp_path) == [name, "last.jpg"]


@pytest.mark.parametrize("name", ["list.txt", "list.csv"])
def test_a_byte_order_mark_is_no_part_of_a_path(tmp_path: Path, name: str) -> None:
    header = "path\n" * name.endswith(".csv")
    (tmp_path / name).write_text(f"{header}1.jpg\n", encoding="utf-8-sig")
    assert relative(find_images([tmp_path / name]), tmp_path) == ["1.jpg"]


# manifests

Write = Callable[[dict[str, list[Any]]], Path]


@pytest.fixture(params=["csv", "parquet"])
def write(request: pytest.FixtureRequest, tmp_path: Path) -> Write:
    def manifest(columns: dict[str, list[Any]]) -> Path:
        path = tmp_path / f"manifest.{request.param}"
        frame = pd.DataFrame(columns)
        if request.param == "csv":
            frame.to_csv(path, index=False)
        else:
            frame.to_parquet(path)
        return path

    return manifest


def test_a_manifest_has_paths_relative_to_itself_and_labels(write: Write, tmp_path: Path) -> None:
    manifest = write({"id": [1, 2, 3], "label": ["b", "a", "b"], "path": ["2", "sub/1", "/abs"]})
    images = find_images([manifest])
    assert images.paths == [f"{tmp_path}/2", f"{tmp_path}/sub/1", "/abs"]
    assert images.labels == ["b", "a", "b"]


@pytest.mark.parametrize("path_column", PATH_COLUMNS)
@pytest.mark.parametrize("label_column", LABEL_COLUMNS)
def test_the_usual_columns_are_found(write: Write, path_column: str, label_column: str) -> None:
    images = find_images([write({label_column: ["x"], path_column: ["1.jpg"]})])
    assert [Path(path).name for path in images.paths] == ["1.jpg"]
    assert images.labels == ["x"]


def test_columns_may_be_named(write: Write, tmp_path: Path) -> None:
    manifest = write({"path": ["a"], "label": ["x"], "photo": ["b"], "kind of": ["y"]})
    images = find_images([manifest], path_column="photo", label_column="kind of")
    assert relative(images, tmp_path) == ["b"]
    assert images.labels == ["y"]


def test_a_manifest_needs_no_labels(write: Write) -> None:
    assert find_images([write({"path": ["a", "b"], "size": [1, 2]})]).labels is None


@pytest.mark.parametrize(
    "labels",
    [["007", "7"], ["1e3", "1000"], ["True", "true"], ["2020-01-01", "1.0"], ["ä", "日本"]],
)
def test_labels_stay_text(write: Write, labels: list[str]) -> None:
    assert find_images([write({"path": ["a", "b"], "label": labels})]).labels == labels


@pytest.mark.parametrize("label", ["NA", "N/A", "null", "NULL", "NaN", "nan", "#N/A"])
def test_a_label_that_is_the_name_of_nothing_stays_text(write: Write, label: str) -> None:
    # NA is Namibia.
    assert find_images([write({"path": ["a"], "label": [label]})]).labels == [label]


def test_numbers_as_labels_become_text(write: Write) -> None:
    images = find_images([write({"path": ["a", "b"], "label": [10, 9]})])
    assert images.labels == ["10", "9"]
    assert images.class_names == ["10", "9"]  # sorted as text


@pytest.mark.parametrize("missing", [None, ""])
def test_a_missing_label_is_none(write: Write, missing: str | None) -> None:
    images = find_images([write({"path": ["a", "b"], "label": ["x", missing]})])
    assert images.labels == ["x", None]


def test_quoted_fields_may_hold_commas_and_newlines(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text('path,label\n"a,1.jpg","two\nlines"\n"b\n2.jpg","say ""x"""\n')
    images = find_images([path])
    assert relative(images, tmp_path) == ["a,1.jpg", "b\n2.jpg"]
    assert images.labels == ["two\nlines", 'say "x"']


def test_a_newline_inside_quotes_late_in_a_long_manifest(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    rows = [f'"{number:06d}\n.jpg",{number % 10}' for number in range(100_000)]  # 1.7 MB
    path.write_text("path,label\n" + "\n".join(rows))
    images = find_images([path])
    assert len(images) == 100_000
    assert images.paths[-1] == f"{tmp_path}/099999\n.jpg"


def test_a_categorical_column_of_parquet(tmp_path: Path) -> None:
    frame = pd.DataFrame({"path": ["1", "2"], "label": pd.Categorical(["b", "a"])})
    frame.to_parquet(tmp_path / "m.parquet")
    assert find_images([tmp_path / "m.parquet"]).labels == ["b", "a"]


def test_csv_and_crlf(tmp_path: Path) -> None:
    (tmp_path / "m.CSV").write_bytes(b"path,label\r\n1.jpg,a\r\n2.jpg,b\r\n")
    images = find_images([tmp_path / "m.CSV"])
    assert relative(images, tmp_path) == ["1.jpg", "2.jpg"]
    assert images.labels == ["a", "b"]


BAD_CSV = {
    "empty file": (b"", "cannot be read"),
    "no rows": (b"path,label\n", "0 rows"),
    "no path column": (
        b"name,label\n1,2\n",
        "has no column of images or paths.*it has name, label",
    ),
    "semicolons": (b"path;label\n1.jpg;a\n", "it has path;label"),
    "an empty path": (b"path,label\n1.jpg,a\n,b\n", "2 rows, 1 of them empty"),
    "ragged": (b"path,label\n1.jpg\n2.jpg,b\n", "cannot be read"),
    "not UTF-8": (b"path,label\n\xe9.jpg,a\n", "cannot be read"),
    "the path column twice": (b"path,path\n1.jpg,2.jpg\n", "path"),
    "binary": (bytes(range(256)) * 20, "m.csv"),
}


@pytest.mark.parametrize(("data", "match"), BAD_CSV.values(), ids=BAD_CSV)
def test_a_bad_csv_is_refused_in_one_sentence(tmp_path: Path, data: bytes, match: str) -> None:
    (tmp_path / "m.csv").write_bytes(data)
    with pytest.raises(InputError, match=match) as caught:
        find_images([tmp_path / "m.csv"])
    assert_one_printable_sentence(caught.value)


@pytest.mark.parametrize(
    "columns",
    [
        {"path": ["1.jpg"], "label": [["several", "labels"]]},
        {"path": [["1.jpg"]]},
        {"path": [b"\xff.jpg"]},
    ],
    ids=["list of labels", "list of paths", "bytes that are no text"],
)
def test_a_parquet_column_that_is_no_text_is_refused(
    tmp_path: Path, columns: dict[str, list[Any]]
) -> None:
    pd.DataFrame(columns).to_parquet(tmp_path / "m.parquet")
    with pytest.raises(InputError, match=r"m\.parquet") as caught:
        find_images([tmp_path / "m.parquet"])
    assert_one_printable_sentence(caught.value)


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(InputError, match=r"m\.parquet.*cannot be read"):
        find_images([tmp_path / "m.parquet"])


@pytest.mark.parametrize("which", ["path_column", "label_column"])
def test_a_missing_column_is_named(write: Write, which: str) -> None:
    manifest = write({"path": ["1"], "label": ["a"]})
    with pytest.raises(InputError, match="no column 'pth'; it has path, label"):
        find_images([manifest], **{which: "pth"})


# what is not there


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ("missing", "neither a file"),
        ("missing/*.jpg", "neither a file"),
        ("nul\0.jpg", "neither a file"),
        ("nul\0/*.jpg", "neither a file"),
        pytest.param("x" * 300, "File name too long", id="a long name"),
        ("loop", "neither a file"),
        ("empty", "suffix"),
        ("empty.txt", "names no image"),
        ("blank.txt", "names no image"),
    ],
)
def test_sources_that_name_nothing(tmp_path: Path, source: str, match: str) -> None:
    make(tmp_path, "empty/notes.md", "empty.txt")
    (tmp_path / "blank.txt").write_text("\n  \n\n")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError, match=match) as caught:
        find_images([f"{tmp_path}/{source}"])
    assert_one_printable_sentence(caught.value)


def test_no_source_at_all() -> None:
    with pytest.raises(InputError, match="No images were named"):
        find_images([])


@pytest.mark.parametrize("name", ["missing", "file.jpg", "nul\0"])
def test_load_image_folder_needs_a_folder(tmp_path: Path, name: str) -> None:
    make(tmp_path, "file.jpg")
    with pytest.raises(InputError, match="is not a folder"):
        load_image_folder(f"{tmp_path}/{name}")


@pytest.mark.parametrize("name", HOSTILE_NAMES)
@pytest.mark.parametrize("ending", ["", ".txt", ".csv", ".parquet", "/*.jpg"])
def test_errors_escape_hostile_names(tmp_path: Path, name: str, ending: str) -> None:
    path = tmp_path / f"{name}{ending}"
    if ending.startswith("."):
        path.touch()
    with pytest.raises(InputError) as caught:
        find_images([path])
    assert_one_printable_sentence(caught.value)
    assert name[:3] in str(caught.value)


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_errors_escape_hostile_names_inside_folders_and_manifests(
    tmp_path: Path, name: str
) -> None:
    make(tmp_path / "folder", f"{name}.jpg", "cat/1.jpg")
    with pytest.raises(InputError) as caught:
        load_image_folder(tmp_path / "folder")
    assert_one_printable_sentence(caught.value)
    (tmp_path / "m.csv").write_bytes(f'"{name}",x\n1,2\n'.encode("utf-8", "backslashreplace"))
    for options in ({}, {"path_column": f"no {name}"}):
        with pytest.raises(InputError) as caught:
            find_images([tmp_path / "m.csv"], **options)
        assert_one_printable_sentence(caught.value)


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


def test_a_folder_prints_in_five_lines_and_splits_into_data_and_target(photo_folder):
    photos = load_image_folder(photo_folder)
    assert repr(photos).splitlines()[1:2] == ["  data: 24 images"]
    assert "flower: 12, temple: 12" in repr(photos)
    assert len(repr(photos).splitlines()) == 5
    X, y = load_image_folder(photo_folder, return_X_y=True)
    np.testing.assert_array_equal(X, photos.data)
    np.testing.assert_array_equal(y, photos.target)
