"""Files of sharded embeddings, and outputs that are refused."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from pyarrow import parquet

from featuretl import LinearProbeClassifier, extract_shards, load_shards, save_shards
from featuretl.exceptions import InputError, ParameterError
from featuretl.store.shared import metadata_table

OPTIONS = {"runtime": "torch", "batch_size": 10}


@pytest.fixture(scope="module")
def extraction(photo_folder, tiny, tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    return extract_shards(photo_folder, tiny, store=store, images_per_shard=2, **OPTIONS)


def test_a_folder_is_laid_out_as_clip_retrieval_does(extraction, photos, embedded, tmp_path):
    assert save_shards(tmp_path / "out", extraction, dtype="float16") == 24
    matrices = sorted((tmp_path / "out" / "img_emb").iterdir())
    tables = sorted((tmp_path / "out" / "metadata").iterdir())
    assert [path.name for path in matrices] == [f"img_emb_{i:02d}.npy" for i in range(12)]
    assert [path.name for path in tables] == [f"metadata_{i:02d}.parquet" for i in range(12)]
    found = np.concatenate([np.load(path) for path in matrices])
    np.testing.assert_array_equal(found, embedded.astype(np.float16))
    paths = [
        p for path in tables for p in parquet.read_table(path).column("image_path").to_pylist()
    ]
    assert paths == photos
    with pytest.raises(ParameterError, match="is not empty"):
        save_shards(tmp_path / "out", extraction)
    loaded = load_shards(tmp_path / "out")
    np.testing.assert_array_equal(loaded.data, found)
    assert loaded.target_names == ["flower", "temple"]
    assert loaded.target.tolist() == ["flower"] * 12 + ["temple"] * 12
    head = LinearProbeClassifier().fit(loaded.data, loaded.target)
    assert head.score(loaded.data, loaded.target) == 1
    tables[0].unlink()
    with pytest.raises(InputError, match="24 embeddings and metadata of 22 images"):
        load_shards(tmp_path / "out")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_one_parquet_file_holds_lists_of_fixed_size(extraction, photos, embedded, tmp_path, dtype):
    assert save_shards(tmp_path / "out.parquet", extraction, dtype=dtype) == 24
    table = parquet.read_table(tmp_path / "out.parquet")
    assert table.column_names == ["path", "label", "sha256", "embedding"]
    assert table.column("path").to_pylist() == photos
    values = np.stack(table.column("embedding").to_numpy())
    np.testing.assert_array_equal(values, embedded.astype(dtype))
    assert b'"backbone": "test_resnet"' in table.schema.metadata[b"featuretl"]


def test_outputs_that_cannot_be_are_refused(extraction, tmp_path):
    for name in ("out.npy", "memory://out.parquet"):
        with pytest.raises(ParameterError, match=r"local \.parquet file or to a folder"):
            save_shards(name, extraction)
    with pytest.raises(ParameterError, match="does not exist"):
        save_shards(tmp_path / "no" / "out.parquet", extraction)
    with pytest.raises(ParameterError, match="dtype"):
        save_shards(tmp_path / "out", extraction, dtype="int8")


def fake(*shards):
    """An extraction with given embeddings of shards, (n, 2), without labels."""
    parts = []
    for number, rows in enumerate(shards):
        n = len(rows)
        names = [f"{number}-{i}.jpg" for i in range(n)]
        table = metadata_table(names, [None] * n, [bytes([number]) * 32] * n, range(n))
        rows = np.array(rows, np.float32).reshape(n, 2)
        parts.append((rows, table, SimpleNamespace(source=f"shard {number}", rows=n)))
    return SimpleNamespace(
        shards=lambda: iter(parts),
        entries=lambda: iter(entry for _, _, entry in parts),
        keys=np.zeros(len(parts), "S32"),
        n_features=2,
        recipe={"backbone": {"name": "a", "tensors": "0"}},
    )


def test_shards_without_rows_have_no_files(tmp_path):
    assert save_shards(tmp_path / "out", fake([[1, 2]], [], [[3, 4], [5, 6]])) == 3
    names = sorted(path.name for path in tmp_path.rglob("*.npy"))
    assert names == ["img_emb_0.npy", "img_emb_1.npy"]
    loaded = load_shards(tmp_path / "out")
    np.testing.assert_array_equal(loaded.data, [[1, 2], [3, 4], [5, 6]])
    assert loaded.target is None and loaded.target_names == []


@pytest.mark.parametrize("name", ["out", "out.parquet"])
def test_what_is_too_large_for_float16_is_named_and_nothing_is_finished(name, tmp_path):
    found = fake([[1, 2]], [[3, 1e6]])
    with pytest.raises(InputError, match="shard 1 are too large for float16"):
        save_shards(tmp_path / name, found, dtype="float16")
    if name == "out":
        with pytest.raises(InputError, match="not a finished folder"):
            load_shards(tmp_path / name)
    else:
        assert not (tmp_path / name).exists()
    assert save_shards(tmp_path / "again", found) == 2


def test_a_parquet_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "out.parquet"
    save_shards(path, fake([[1, 2]]))
    before = path.read_bytes()
    with pytest.raises(InputError):
        save_shards(path, fake([[1, 2]], [[3, 1e6]]), dtype="float16")
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["out.parquet"]


def test_a_folder_that_is_none_of_ours_is_refused(tmp_path):
    with pytest.raises(InputError, match="not a finished folder"):
        load_shards(tmp_path)
