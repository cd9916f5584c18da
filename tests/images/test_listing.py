"""Folders, patterns and lists: which files they name, in which order; hidden files are skipped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from featuretl import load_image_folder
from featuretl.exceptions import InputError
from featuretl.images.sources import find_images

HOSTILE_NAMES = ["line\nbreak", "esc\x1b[31mred", "bidi\u202egpj", "not-utf8-\udcff"]


def test_hidden_and_other_files_are_passed_over(tmp_path: Path, make: Any, relative: Any) -> None:
    make(tmp_path, "a/1.jpg", "a/.2.jpg", ".git/3.jpg", "a/.thumbs/4.jpg", "a/notes.txt", "a/jpg")
    make(tmp_path, "a/5.jpg/inner.png", ".DS_Store", "b/Thumbs.db", "a/6.svg")
    assert relative(find_images([tmp_path]), tmp_path) == ["a/1.jpg", "a/5.jpg/inner.png"]


def test_the_folder_itself_may_be_hidden(tmp_path: Path, make: Any) -> None:
    make(tmp_path, ".photos/1.jpg")
    assert len(find_images([tmp_path / ".photos"])) == 1


@pytest.mark.parametrize("suffix", ["JPG", "Jpeg", "PNG", "TIF", "WebP", "pgm", "avif", "bmp"])
def test_suffixes_in_any_case(tmp_path: Path, suffix: str, make: Any, relative: Any) -> None:
    make(tmp_path, f"photo.{suffix}")
    assert relative(find_images([tmp_path]), tmp_path) == [f"photo.{suffix}"]


def test_loops_of_links_are_walked_once(tmp_path: Path, make: Any, relative: Any) -> None:
    make(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "b" / "self").symlink_to(".")
    assert relative(find_images([tmp_path]), tmp_path) == ["a/1.jpg", "b/2.jpg"]


def test_linked_folders_are_followed(tmp_path: Path, make: Any, relative: Any) -> None:
    make(tmp_path, "elsewhere/1.jpg", "photos/b/2.jpg")
    (tmp_path / "photos" / "a").symlink_to("../elsewhere")
    images = find_images([tmp_path / "photos"])
    assert relative(images, tmp_path / "photos") == ["a/1.jpg", "b/2.jpg"]
    assert images.labels == ["a", "b"]


def test_the_order_does_not_depend_on_the_order_of_creation(
    tmp_path: Path, make: Any, relative: Any
) -> None:
    names = [f"{folder}/{number}.jpg" for folder in "bca" for number in (10, 9, 1)]
    first, second = make(tmp_path / "x", *names), make(tmp_path / "y", *reversed(names))
    found = relative(find_images([first]), first)
    assert found == relative(find_images([second]), second) == sorted(names)


@pytest.mark.parametrize("name", [f"{name}.jpg" for name in HOSTILE_NAMES])
def test_hostile_names_are_found_as_they_are(tmp_path: Path, name: str, make: Any) -> None:
    make(tmp_path, name)
    assert find_images([tmp_path]).paths == [f"{tmp_path}/{name}"]


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
def test_globs(tmp_path: Path, pattern: str, expected: list[str], make: Any, relative: Any) -> None:
    make(tmp_path, "10.jpg", "1.jpg", "2.png", "a/3.jpg", "a/b/4.jpg", ".hidden.jpg")
    assert relative(find_images([f"{tmp_path}/{pattern}"]), tmp_path) == expected


def test_a_file_whose_name_looks_like_a_pattern(tmp_path: Path, make: Any, relative: Any) -> None:
    make(tmp_path, "a[1].jpg", "a1.jpg")
    assert relative(find_images([tmp_path / "a[1].jpg"]), tmp_path) == ["a[1].jpg"]


def test_a_glob_through_a_loop_of_links_finds_an_image_once(
    tmp_path: Path, make: Any, relative: Any
) -> None:
    make(tmp_path, "a/1.jpg")
    (tmp_path / "a" / "up").symlink_to("..")
    assert relative(find_images([f"{tmp_path}/**/*.jpg"]), tmp_path) == ["a/1.jpg"]


def test_a_pattern_may_match_manifests_and_lists(photos, tmp_path):
    (tmp_path / "a.csv").write_text(f"path,label\n{photos[0]},x\n")
    (tmp_path / "b.csv").write_text(f"path,label\n{photos[1]},y\n")
    (tmp_path / "c.txt").write_text(f"{photos[2]}\n")
    found = find_images([tmp_path / "*.csv", tmp_path / "*.txt"])
    assert (found.paths, found.labels) == (photos[:3], ["x", "y", None])
    with pytest.raises(InputError, match="neither a file"):
        find_images([tmp_path / "*.parquet"])


def test_every_lister_leaves_hidden_files_out(photos, data, tmp_path, write_tar, samples_of):
    folder = tmp_path / "h"
    (folder / ".d").mkdir(parents=True)
    for name in ("a.jpg", ".b.jpg", "._c.jpg", ".d/e.jpg"):
        (folder / name).write_bytes(data[0])
    write_tar(tmp_path / "a.tar", [("a.jpg", data[0]), ("._a.jpg", b"?"), (".d/e.jpg", data[0])])
    shown = [str(folder / "a.jpg")]
    for source in (folder, f"{folder}/*", f"{folder}/**/*.jpg", f"{folder}/**"):
        assert find_images([source]).paths == shown
    for source in (str(folder), f"{folder}/*.jpg", folder.as_uri(), f"{folder.as_uri()}/*.jpg"):
        assert [one.name for one in samples_of([source])] == shown, source
    found = samples_of([str(tmp_path / "a.tar")])
    assert sorted(isinstance(one.image, bytes) for one in found) == [False, False, True]
    assert find_images([f"{folder}/.d/*.jpg"]).paths == [str(folder / ".d" / "e.jpg")]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_list_has_a_path_a_line_relative_to_itself(
    tmp_path: Path, end: str, relative: Any
) -> None:
    lines = ["b.jpg", "", "sub/a.jpg", "/abs/c.jpg", "with space.jpg", "b.jpg"]
    (tmp_path / "list.TXT").write_bytes(end.join(lines).encode())
    images = find_images([tmp_path / "list.TXT"])
    expected = ["b.jpg", "sub/a.jpg", "with space.jpg", "b.jpg"]
    assert images.paths[2] == "/abs/c.jpg"
    del images.paths[2]
    assert relative(images, tmp_path) == expected


@pytest.mark.parametrize("name", ["a\u2028b.jpg", "a\x85b.jpg", "a\x0cb.jpg", "a\udcffb.jpg"])
def test_a_list_is_split_at_line_ends_only(tmp_path: Path, name: str, relative: Any) -> None:
    (tmp_path / "list.txt").write_bytes(os.fsencode(f"{name}\nlast.jpg\n"))
    assert relative(find_images([tmp_path / "list.txt"]), tmp_path) == [name, "last.jpg"]


@pytest.mark.parametrize("name", ["list.txt", "list.csv"])
def test_a_byte_order_mark_is_no_part_of_a_path(tmp_path: Path, name: str, relative: Any) -> None:
    header = "path\n" * name.endswith(".csv")
    (tmp_path / name).write_text(f"{header}1.jpg\n", encoding="utf-8-sig")
    assert relative(find_images([tmp_path / name]), tmp_path) == ["1.jpg"]


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
def test_sources_that_name_nothing(
    tmp_path: Path, source: str, match: str, make: Any, assert_one_printable_sentence: Any
) -> None:
    make(tmp_path, "empty/notes.md", "empty.txt")
    (tmp_path / "blank.txt").write_text("\n  \n\n")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError, match=match) as caught:
        find_images([f"{tmp_path}/{source}"])
    assert_one_printable_sentence(caught.value)


def test_what_the_system_refuses_to_list_is_one_sentence(data, tmp_path, samples_of):
    (tmp_path / "a.jpg").write_bytes(data[0])
    (tmp_path / "b.jpg").symlink_to("b.jpg")  # a link to itself is a bad image, not the end
    assert len(find_images([tmp_path]).paths) == len(samples_of(str(tmp_path))) == 2
    for use in (samples_of, lambda source: find_images([source])):
        with pytest.raises(InputError, match="File name too long"):
            use("x" * 300)


@pytest.mark.parametrize("name", HOSTILE_NAMES)
@pytest.mark.parametrize("ending", ["", ".txt", ".csv", ".parquet", "/*.jpg"])
def test_errors_escape_hostile_names(
    tmp_path: Path, name: str, ending: str, assert_one_printable_sentence: Any
) -> None:
    path = tmp_path / f"{name}{ending}"
    if ending.startswith("."):
        path.touch()
    with pytest.raises(InputError) as caught:
        find_images([path])
    assert_one_printable_sentence(caught.value)
    assert name[:3] in str(caught.value)


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_errors_escape_hostile_names_inside_folders_and_manifests(
    tmp_path: Path, name: str, make: Any, assert_one_printable_sentence: Any
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
