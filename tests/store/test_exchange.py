"""Each image is copied between local and shared stores once, and recipes never mix."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from featuretl_cli.main import cli
from known_rows import put

from featuretl import EmbeddingStore, extract, extract_shards
from featuretl.backbones.spec import BackboneSpec
from featuretl.exceptions import FeatureTLError, FeatureTLWarning, ParameterError, StoreError
from featuretl.extraction.outputs import export_space
from featuretl.store import exchange
from featuretl.store.exchange import export_shared, import_shared
from featuretl.store.shared import SharedStore
from featuretl.store.verify import verify

TINY = BackboneSpec.of("test", "test_resnet", weights="random")
OPTIONS = {"runtime": "torch", "batch_size": 8}


@pytest.fixture
def shared(tmp_path) -> SharedStore:
    return SharedStore(tmp_path / "shared")


def test_what_workers_embedded_is_found_by_extract(photos, store, shared, forwards):
    found = extract_shards([*photos, photos[0]], TINY, store=shared, images_per_shard=5, **OPTIONS)
    assert import_shared(store, shared) == 24
    done = len(forwards)
    extraction = extract(photos, TINY, store=store, **OPTIONS)
    assert len(forwards) == done
    expected = np.concatenate([rows for rows, _, _ in found.shards()])[:24]
    np.testing.assert_array_equal(extraction.to_numpy(), expected)
    assert import_shared(store, shared) == 0
    assert EmbeddingStore(store.path).info()[0].rows == 24


def test_there_and_back_again(photos, store, shared, tmp_path, monkeypatch, forwards):
    monkeypatch.setattr(exchange, "SEGMENT_ROWS", 7)
    expected = extract(photos, TINY, store=store, **OPTIONS).to_numpy()
    assert export_shared(store, shared) == 24
    assert export_shared(store, shared) == 0
    elsewhere = EmbeddingStore(tmp_path / "elsewhere")
    assert import_shared(elsewhere, shared) == 24
    done = len(forwards)
    np.testing.assert_array_equal(extract(photos, TINY, store=elsewhere).to_numpy(), expected)
    assert len(forwards) == done


def test_embeddings_of_another_golden_image_are_kept_apart(photos, store, shared, monkeypatch):
    extract_shards(photos[:3], TINY, store=shared, **OPTIONS)
    (space,) = shared.spaces()
    store.open_space(space.recipe, np.arange(space.d, dtype=np.float32), {})
    with pytest.warns(FeatureTLWarning, match="golden image"):
        assert import_shared(store, shared) == 3
    assert [info.rows for info in store.info()] == [3, 0]


def test_stores_that_hold_nothing_are_named(store, shared, photos):
    with pytest.raises(ParameterError, match="holds no embeddings;"):
        import_shared(store, shared)
    extract(photos[:2], TINY, store=store, **OPTIONS)
    with pytest.raises(ParameterError, match="whose id starts with 'zz'"):
        export_shared(store, shared, "zz")


def test_the_commands(photos, store, shared, tmp_path):
    extract(photos[:5], TINY, store=store, **OPTIONS)
    run = CliRunner().invoke
    result = run(cli, ["cache", "export", shared.url, "--cache", str(store.path)])
    assert (result.exit_code, result.output) == (0, f"Wrote 5 embeddings to {shared.url}\n")
    other = str(tmp_path / "other")
    result = run(cli, ["cache", "import", shared.url, "--cache", other, "--json"])
    assert json.loads(result.output) == {"cache": other, "shared": shared.url, "rows": 5}
    result = run(cli, ["cache", "import", str(tmp_path / "nothing"), "--cache", other])
    assert result.exit_code == 1
    assert result.output.startswith("Error: The store ")


@pytest.mark.usefixtures("known")
@pytest.mark.filterwarnings("ignore:A damaged segment:featuretl.exceptions.FeatureTLWarning")
@pytest.mark.parametrize("suffix", [".npy", ".keys"])
def test_what_cannot_be_read_whole_is_not_exported(store, tmp_path, suffix):
    for number in range(3):
        put(store, [number])
    next(store.path.glob(f"spaces/*/*{suffix}")).write_bytes(b"torn")
    target, shared = tmp_path / "out.npz", SharedStore(tmp_path / "shared")
    for work in (lambda: export_space(target, store), lambda: export_shared(store, shared)):
        with pytest.raises(StoreError, match="verify --repair"):
            work()
    assert not target.exists()
    verify(store, repair=True)
    assert export_space(target, store) == export_shared(store, shared) == 2


@pytest.mark.usefixtures("known")
def test_a_damaged_entry_is_not_passed_over_by_an_import(store, tmp_path):
    put(store, [1, 2, 3])
    shared = SharedStore(tmp_path / "shared")
    export_shared(store, shared)
    entry = next((tmp_path / "shared").glob("spaces/*/shards/*.json"))
    entry.write_bytes(entry.read_bytes()[:-1])
    with pytest.raises(FeatureTLError, match=entry.name):
        import_shared(EmbeddingStore(tmp_path / "other"), shared)
