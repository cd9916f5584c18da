"""The folder of a store: parameters, contents, views, and the default cache."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from featuretl_cli.main import cli
from known_rows import RECIPE, put
from sklearn.base import clone

from featuretl import EmbeddingStore, ImageEmbedder
from featuretl.exceptions import FeatureTLWarning, ParameterError, UnusableStoreError
from featuretl.store import store as store_module
from featuretl.store.collect import collect
from featuretl.store.shared import SharedStore
from featuretl.store.store import resolve_store


def test_info_counts_what_is_committed(store, segment_files):
    assert store.info() == []
    put(store, [1, 2])
    put(store, [3])
    (info,) = store.info()
    assert (info.rows, info.segments, info.recipe) == (3, 2, RECIPE)
    files = [*segment_files(), *segment_files(".keys")]
    assert info.bytes == sum(path.stat().st_size for path in files)


def test_looking_at_a_store_that_is_not_there_creates_nothing(store, cache):
    assert store.info() == []
    assert store.find_space(RECIPE) is None
    assert not cache.exists()


def test_a_space_that_is_freed_while_it_is_looked_for_is_not_there(store, cache, monkeypatch):
    put(store, [1])
    read = store_module.read_record

    def too_late(path):
        monkeypatch.setattr(store_module, "read_record", read)
        collect(EmbeddingStore(cache), max_size=0)
        return read(path)

    monkeypatch.setattr(store_module, "read_record", too_late)
    assert EmbeddingStore(cache).find_space(RECIPE) is None


def test_a_view_is_written_once_and_mapped(store):
    put(store, [1])
    chunks = [np.full((1, 3), number, np.float32) for number in (1, 2)]
    view = store.view("f" * 64, (2, 3), iter(chunks))
    np.testing.assert_array_equal(view, np.concatenate(chunks))
    assert isinstance(view, np.memmap)
    assert not view.flags.writeable
    again = store.view("f" * 64, (2, 3), iter(()))
    np.testing.assert_array_equal(again, view)


@pytest.mark.parametrize("damage", ["truncate", "longer", "header", "empty", "shape"])
def test_a_damaged_view_is_written_anew(store, cache, damage):
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    view = store.view("f" * 64, (2, 3), iter([rows]))
    path = cache / "views" / f"{'f' * 64}.npy"
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(
        {
            "truncate": data[:-1],
            "longer": data + b"\0",
            "header": data.replace(b"(2, 3)", b"(2, 3 "),
            "empty": b"",
            "shape": data.replace(b"(2, 3)", b"(3, 2)"),
        }[damage]
    )
    again = EmbeddingStore(cache).view("f" * 64, (2, 3), iter([rows]))
    np.testing.assert_array_equal(again, view)
    assert path.read_bytes() == data


def test_where_a_cache_parameter_points(cache, tmp_path, monkeypatch):
    assert resolve_store("auto", "t").path == cache
    assert resolve_store(tmp_path / "other", "t").path == tmp_path / "other"
    assert resolve_store(None, "t") is None
    store = EmbeddingStore()
    assert resolve_store(store, "t") is store
    with pytest.raises(ParameterError, match="'cache' parameter of t"):
        resolve_store(7, "t")
    monkeypatch.delenv("FEATURETL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert resolve_store("auto", "t").path.is_relative_to(tmp_path)


def test_the_default_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FEATURETL_CACHE", str(tmp_path / "file"))
    with pytest.warns(FeatureTLWarning, match="without caching"):
        assert resolve_store("auto", "t") is None


def test_the_default_cache_stays_optional_in_clones_and_other_processes(tmp_path, pixels):
    store = EmbeddingStore(tmp_path / "file")
    (tmp_path / "file").write_text("")
    store.optional = True
    embedder = ImageEmbedder(cache=store)
    copies = [
        embedder,
        clone(embedder),
        pickle.loads(pickle.dumps(embedder)),
        clone(ImageEmbedder()).set_params(cache=clone(embedder).get_params()["cache"]),
    ]
    for other in copies:
        with pytest.warns(FeatureTLWarning, match="without caching"):
            assert other.transform(pixels[None]).shape == (1, 1280)
    with pytest.raises(UnusableStoreError):
        clone(ImageEmbedder(cache=EmbeddingStore(tmp_path / "file"))).transform(pixels[None])


BAD_PATHS = ["", "a\0b", "a/\ud800", "~no-such-user-here/a"]


@pytest.mark.parametrize("path", BAD_PATHS)
def test_what_cannot_be_a_path_is_a_parameter_error(path, pixels, monkeypatch):
    for work in (
        lambda: EmbeddingStore(path),
        lambda: SharedStore(path),
        lambda: ImageEmbedder(cache=path).transform(pixels[None]),
    ):
        with pytest.raises(ParameterError):
            work()
    done = CliRunner().invoke(cli, ["cache", "info", "--cache", path])
    assert done.exit_code == 2 and "--cache" in done.output
    if path.startswith("~"):
        monkeypatch.setenv("FEATURETL_CACHE", path)
        with pytest.raises(ParameterError, match="FEATURETL_CACHE"):
            ImageEmbedder().transform(pixels[None])


@pytest.mark.parametrize("size", ["20", "GB", "-1GB", "20XB", "unlimited"])
def test_a_limit_that_is_no_size_is_one_sentence(monkeypatch, size):
    monkeypatch.setenv("FEATURETL_CACHE_MAX_SIZE", size)
    with pytest.raises(ParameterError, match=f"FEATURETL_CACHE_MAX_SIZE: '{size}' is not a number"):
        EmbeddingStore()
    code = "from featuretl_cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "cache", "info"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: The environment variable FEATURETL_CACHE_MAX_SIZE: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("value", [-1, 1.5, "20GB", True])
def test_a_parameter_that_is_no_number_of_bytes_is_refused(value):
    with pytest.raises(ParameterError, match="'max_size' parameter of EmbeddingStore"):
        EmbeddingStore(max_size=value)


def test_a_store_travels_with_its_limit(cache, monkeypatch):
    for store in (EmbeddingStore(cache), EmbeddingStore(cache, max_size=0)):
        for other in (pickle.loads(pickle.dumps(store)), copy.deepcopy(store), eval(repr(store))):
            assert (other.path, other.max_size) == (store.path, store.max_size)
        assert clone(ImageEmbedder(cache=store)).cache.max_size == store.max_size
    assert repr(EmbeddingStore(cache)) == f"EmbeddingStore({str(cache)!r})"
    monkeypatch.setenv("FEATURETL_CACHE_MAX_SIZE", "1kB")
    data = pickle.dumps(EmbeddingStore(cache))
    monkeypatch.delenv("FEATURETL_CACHE_MAX_SIZE")
    assert pickle.loads(data).max_size == 1000


def test_the_command_line_says_that_memory_does_not_suffice(monkeypatch):
    def fail(self):
        raise MemoryError("Unable to allocate 9 TiB")

    monkeypatch.setattr(EmbeddingStore, "info", fail)
    done = CliRunner().invoke(cli, ["cache", "info"])
    assert done.exit_code == 1 and "9 TiB" in done.output and "bug" not in done.output
