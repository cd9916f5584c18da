"""Files of sharded embeddings, and outputs that are refused."""

from __future__ import annotations

import numpy as np
import pytest
from pyarrow import parquet

from featuretl import LinearProbeClassifier, extract_shards, load_shards, save_shards
from featuretl.exceptions import InputError, ParameterError

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
