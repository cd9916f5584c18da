"""Columns of CSV and Parquet files: values as text, and files that are damaged or expand too much."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from featuretl.exceptions import InputError
from featuretl.extraction.outputs import load_embeddings
from featuretl.images.sources import find_images
from featuretl.images.tables import open_parquet


@pytest.mark.parametrize(
    "labels",
    [["007", "7"], ["1e3", "1000"], ["True", "true"], ["2020-01-01", "1.0"], ["ä", "日本"]],
)
def test_labels_stay_text(write: Any, labels: list[str]) -> None:
    assert find_images([write({"path": ["a", "b"], "label": labels})]).labels == labels


@pytest.mark.parametrize("label", ["NA", "N/A", "null", "NULL", "NaN", "nan", "#N/A"])
def test_a_label_that_is_the_name_of_nothing_stays_text(write: Any, label: str) -> None:
    # NA is Namibia.
    assert find_images([write({"path": ["a"], "label": [label]})]).labels == [label]


def test_numbers_as_labels_become_text(write: Any) -> None:
    images = find_images([write({"path": ["a", "b"], "label": [10, 9]})])
    assert images.labels == ["10", "9"]
    assert images.class_names == ["10", "9"]  # sorted as text


@pytest.mark.parametrize("missing", [None, ""])
def test_a_missing_label_is_none(write: Any, missing: str | None) -> None:
    images = find_images([write({"path": ["a", "b"], "label": ["x", missing]})])
    assert images.labels == ["x", None]


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([1.0, 2.5, None], ["1.0", "2.5", None]),
        ([1, 2, 3], ["1", "2", "3"]),
        ([True, False, True], ["True", "False", "True"]),
        (["007", " a", ""], ["007", " a", None]),
    ],
)
def test_a_label_is_the_same_class_from_every_file(
    values, names, photos, data, tmp_path, write_tar, samples_of
):
    datasets = pytest.importorskip("datasets")
    frame = pd.DataFrame({"path": photos[:3], "label": values})
    frame.to_csv(tmp_path / "m.csv", index=False)
    frame.to_parquet(tmp_path / "m.parquet")
    table = pa.table({"image": data[:3], "label": pa.array(values)})
    parquet.write_table(table, tmp_path / "images.parquet")
    coded = table.set_column(1, "label", pa.array(values).dictionary_encode())
    parquet.write_table(coded, tmp_path / "coded.parquet")
    members = []
    for i, value in enumerate(values):
        members += [(f"{i}.jpg", data[i]), (f"{i}.json", json.dumps({"label": value}).encode())]
    write_tar(tmp_path / "a.tar", members)
    for name in ("m.csv", "m.parquet", "images.parquet", "coded.parquet", "a.tar"):
        assert [one.label for one in samples_of([str(tmp_path / name)])] == names, name
    for name in ("m.csv", "m.parquet"):
        assert find_images([tmp_path / name]).labels == names
    dataset = datasets.Dataset.from_dict({"image": data[:3], "label": values})
    assert [one.label for one in samples_of(dataset)] == names


def test_class_numbers_of_datasets_keep_their_names(photos, data, tmp_path, samples_of):
    datasets = pytest.importorskip("datasets")
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "bee"])}
    columns = {"image": photos[:3], "label": [1, 0, -1]}
    dataset = datasets.Dataset.from_dict(columns, datasets.Features(features))
    dataset.to_parquet(str(tmp_path / "images.parquet"))
    schema = parquet.read_schema(tmp_path / "images.parquet")
    table = pa.table({"path": photos[:3], "label": [1, 0, -1]})
    parquet.write_table(table.replace_schema_metadata(schema.metadata), tmp_path / "m.parquet")
    for source in (dataset, str(tmp_path / "images.parquet"), str(tmp_path / "m.parquet")):
        assert [one.label for one in samples_of(source)] == ["bee", "ant", None]
    assert find_images([tmp_path / "m.parquet"]).labels == ["bee", "ant", None]
    table = table.set_column(1, "label", pa.array([1, 0, 2]))
    parquet.write_table(table.replace_schema_metadata(schema.metadata), tmp_path / "m.parquet")
    with pytest.raises(InputError, match=r"'label' of .*m\.parquet.* 2 class names; got 2"):
        find_images([tmp_path / "m.parquet"])


def test_a_list_is_no_label_wherever_it_stands(photos, data, tmp_path, write_tar, samples_of):
    lists = pa.table({"path": photos[:1], "label": [["a", "b"]]})
    parquet.write_table(lists, tmp_path / "m.parquet")
    tagged = pa.table({"image": data[:1], "label": [["a", "b"]]})
    parquet.write_table(tagged, tmp_path / "i.parquet")
    write_tar(tmp_path / "a.tar", [("0.jpg", data[0]), ("0.json", b'{"label": ["a", "b"]}')])
    for name in ("m.parquet", "i.parquet", "a.tar"):
        with pytest.raises(InputError, match=rf"'label' of .*{name}.* one value"):
            samples_of([str(tmp_path / name)])
    with pytest.raises(InputError, match=r"'label' of .*m\.parquet.* one value"):
        find_images([tmp_path / "m.parquet"])


def test_quoted_fields_may_hold_commas_and_newlines(tmp_path: Path, relative: Any) -> None:
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


def test_csv_and_crlf(tmp_path: Path, relative: Any) -> None:
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
def test_a_bad_csv_is_refused_in_one_sentence(
    tmp_path: Path, data: bytes, match: str, assert_one_printable_sentence: Any
) -> None:
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
    tmp_path: Path, columns: dict[str, list[Any]], assert_one_printable_sentence: Any
) -> None:
    pd.DataFrame(columns).to_parquet(tmp_path / "m.parquet")
    with pytest.raises(InputError, match=r"m\.parquet") as caught:
        find_images([tmp_path / "m.parquet"])
    assert_one_printable_sentence(caught.value)


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(InputError, match=r"m\.parquet.*cannot be read"):
        find_images([tmp_path / "m.parquet"])


def test_files_that_expand_are_refused_before_they_are_read(tmp_path, samples_of):
    value = pa.array([b"\0" * 20 * 2**20] * 10).dictionary_encode()
    parquet.write_table(pa.table({"image": value}), tmp_path / "i.parquet", compression="zstd")
    text = pa.array(["x" * 2**20] * 300).dictionary_encode()
    parquet.write_table(pa.table({"path": text}), tmp_path / "m.parquet", compression="zstd")
    again = pa.DictionaryArray.from_arrays(np.zeros(20_000, np.int32), pa.array([b"image"]))
    parquet.write_table(pa.table({"image": again}), tmp_path / "again.parquet")
    label = pa.DictionaryArray.from_arrays(np.zeros(100, np.int32), pa.array(["x" * 250_000]))
    table = pa.table({"image": [b"image"] * 100, "label": label})
    parquet.write_table(table, tmp_path / "l.parquet")
    np.savez_compressed(tmp_path / "x.npz", X=np.zeros((2**10, 2**14), np.float32))
    for use in (
        lambda: samples_of([str(tmp_path / "i.parquet")]),
        lambda: find_images([tmp_path / "m.parquet"]),
        lambda: samples_of([str(tmp_path / "l.parquet")]),
        lambda: load_embeddings(tmp_path / "x.npz"),
    ):
        with pytest.raises(InputError, match="cannot be read"):
            use()
    with pytest.raises(InputError, match="claims 20,000 images in one row group"):
        samples_of([str(tmp_path / "again.parquet")])


def test_a_large_value_that_comes_again_is_read_a_few_rows_at_a_time(tmp_path, samples_of):
    value = pa.array([b"\0" * 15_000_000] * 20).dictionary_encode().cast(pa.binary())
    parquet.write_table(pa.table({"image": value}), tmp_path / "i.parquet", compression="zstd")
    with (tmp_path / "i.parquet").open("rb") as file:
        _, rows = open_parquet(file, ["image"])
    assert rows * 15_000_000 <= 2**25
    assert sum(1 for _ in samples_of([str(tmp_path / "i.parquet")])) == 20
