"""A system error is one sentence and never counts as damage; the default cache is optional."""

from __future__ import annotations

import errno
import gc
import os
import pickle
import resource
import shutil
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from featuretl_cli.main import cli
from known_rows import RECIPE, append, found_in, open_space, present, put, take
from sklearn.base import clone

from featuretl import EmbeddingStore, ImageEmbedder
from featuretl.exceptions import (
    FeatureTLError,
    FeatureTLWarning,
    ParameterError,
    StoreError,
    UnusableStoreError,
)
from featuretl.extraction import engine as _engine
from featuretl.extraction.extraction import extract
from featuretl.extraction.outputs import export_space
from featuretl.store import SharedStore
from featuretl.store.collect import collect
from featuretl.store.exchange import export_shared, import_shared
from featuretl.store.format import DamagedFileError, reading
from featuretl.store.store import resolve_store
from featuretl.store.verify import rebuild, verify

FIRST, N = [1, 2, 3], 6


@pytest.fixture
def known(monkeypatch):
    """Complete the recipe of the known rows for exports."""
    monkeypatch.setitem(RECIPE["backbone"], "tensors", "0")


def in_process(code: str, *arguments: object) -> str:
    """Return the output of a Python process that can import the known rows."""
    head = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1] / 'reliability')!r})\n"
    command = [sys.executable, "-c", head + textwrap.dedent(code), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


MANY_SEGMENTS = """
    import os, resource, warnings
    from known_rows import *
    from featuretl.store import SharedStore
    from featuretl.extraction.outputs import export_space
    from featuretl.store.exchange import export_shared
    from featuretl.store.verify import verify

    warnings.simplefilter("error")
    path, n = sys.argv[1], 200
    RECIPE["backbone"]["tensors"] = "0"
    store = EmbeddingStore(path)
    for number in range(n):
        put(store, [number])
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    before = len(os.listdir("/proc/self/fd"))
    store = EmbeddingStore(path)
    space = store.find_space(RECIPE)
    assert found_in(space, list(range(n))) == set(range(n))
    assert len(os.listdir("/proc/self/fd")) <= before + 2, "maps keep descriptors"
    assert verify(store) == [] and put(store, range(n)) == []
    assert export_space(path + ".npz", store) == n
    assert export_shared(store, SharedStore(path + ".shared")) == n
    print(len(np.load(path + ".npz")["embeddings"]))
"""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_a_process_of_64_descriptors_uses_a_store_of_200_segments(tmp_path):
    assert in_process(MANY_SEGMENTS, tmp_path / "many").strip() == "200"


WORK = {
    "present": lambda store: present(store, range(N)),
    "put": lambda store: put(store, range(N + 2)),
    "verify": verify,
    "repair": lambda store: verify(store, repair=True),
    "rebuild": rebuild,
    "collect": collect,
    "info": lambda store: store.info(),
    "export": lambda store: export_space(store.path / "out.npz", store),
    "share": lambda store: export_shared(store, SharedStore(store.path / "shared")),
    "view": lambda store: store.view("f" * 64, (2, 3), iter([np.ones((2, 3), np.float32)])),
}


@pytest.fixture(scope="module")
def frozen():
    """Exclude the objects of earlier tests and imports from garbage collection."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@contextmanager
def only_free(n: int) -> Iterator[None]:
    """Let this process open n more files."""
    gc.collect()  # closes the files of earlier tests now
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    last = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (last + 64, hard))
    taken = []
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        for _ in range(n):
            os.close(taken.pop())
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("known", "frozen")
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
@pytest.mark.parametrize("work", WORK)
def test_too_many_open_files_is_one_sentence_and_costs_no_row(tmp_path, work):
    filled = EmbeddingStore(tmp_path / "filled")
    for number in range(N):
        put(filled, [number])
    shutil.copytree(filled.path, tmp_path / "other")
    WORK[work](EmbeddingStore(tmp_path / "other"))  # imports modules before the limit
    outcomes = set()
    for more in (*range(12), 40):
        store = EmbeddingStore(filled.path)
        with only_free(more), warnings.catch_warnings():
            warnings.simplefilter("error", FeatureTLWarning)  # warns of damage
            try:
                WORK[work](store)
                said = ""
            except (UnusableStoreError, FeatureTLWarning) as error:
                said = str(error)
        assert not said or ("Too many open files" in said and "\n" not in said)
        assert "damage" not in said
        outcomes.add("refused" if said else "done")
        assert present(EmbeddingStore(filled.path), range(N)) == {*range(N)}
    assert outcomes == {"done", "refused"}


@pytest.mark.parametrize(
    "number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES, errno.EPERM, errno.ESTALE]
)
def test_an_error_of_the_system_is_not_damage(tmp_path, number):
    with pytest.raises(UnusableStoreError, match=os.strerror(number)), reading(tmp_path):
        raise OSError(number, "as a library says it")
    with pytest.raises(UnusableStoreError, match=os.strerror(errno.ENOMEM)), reading(tmp_path):
        raise MemoryError


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EIO, errno.EISDIR])
def test_a_file_that_is_gone_or_on_a_broken_disk_is_damage(tmp_path, number):
    with pytest.raises(DamagedFileError, match=os.strerror(number)), reading(tmp_path):
        raise OSError(number, "as a library says it")


NO_MEMORY = """
    import re, resource
    import pyarrow
    from known_rows import *
    from featuretl.exceptions import UnusableStoreError

    recipe = {**RECIPE, "output": {"n_features": 2**24}}
    row = np.ones((1, 2**24), np.float32)  # 64 MiB
    with EmbeddingStore(sys.argv[1]).open_space(recipe, row[0], {}) as space:
        space.append([key(1)], row)
    del row, space
    used = int(re.search(r"VmSize:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
    space = EmbeddingStore(sys.argv[1]).find_space(recipe)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**24, -1))
    try:
        space.find(keys_array([key(1)]))
    except UnusableStoreError as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
    assert space.find(keys_array([key(1)])).tolist() == [0]
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_that_does_not_suffice_is_one_sentence_and_later_it_is_found(tmp_path):
    said = in_process(NO_MEMORY, tmp_path / "large")
    assert os.strerror(errno.ENOMEM) in said and said.count("\n") == 1


def test_the_command_line_says_that_memory_does_not_suffice(monkeypatch):
    def fail(self):
        raise MemoryError("Unable to allocate 9 TiB")

    monkeypatch.setattr(EmbeddingStore, "info", fail)
    done = CliRunner().invoke(cli, ["cache", "info"])
    assert done.exit_code == 1 and "9 TiB" in done.output and "bug" not in done.output


@pytest.fixture
def images(pixels) -> list[np.ndarray]:
    return [pixels[i : i + 64, i : i + 64].copy() for i in range(0, 96, 4)]


@pytest.mark.parametrize("gone", ["deleted", "a file instead", "its space"])
@pytest.mark.parametrize("wanted", ["default", "explicit"])
def test_a_cache_deleted_while_it_is_used(cache, images, monkeypatch, wanted, gone):
    monkeypatch.setattr(_engine, "_REPORT_SECONDS", 0)
    expected = extract(images, n_jobs=1).to_numpy()
    store = resolve_store("auto" if wanted == "default" else cache, "t")
    extract(images[:4], store=store)

    def delete(statistics):
        if statistics.embedded and not (cache.parent / "gone").exists():
            at = next(cache.glob("spaces/*")) if gone == "its space" else cache
            at.rename(cache.parent / "gone")
            if gone == "a file instead":
                cache.write_text("")

    def run():
        return extract(images, store=store, batch_size=4, n_jobs=2, progress=delete)

    if wanted == "default":
        with pytest.warns(FeatureTLWarning, match="without caching"):
            found = run()
        np.testing.assert_allclose(found.to_numpy(), expected, atol=1e-5)
        np.testing.assert_allclose(found.memmap(), expected, atol=1e-5)
    else:
        with pytest.raises(UnusableStoreError, match="not cached") as error:
            run()
        assert "\n" not in str(error.value) and str(cache) in str(error.value)


@pytest.mark.filterwarnings("ignore:The index:featuretl.exceptions.FeatureTLWarning")
@pytest.mark.parametrize("length", [0, 1, 100, 4096, 5000, 8192, "unlinked", "replaced"])
def test_an_index_truncated_or_unlinked_while_it_is_used_costs_nothing(store, cache, length):
    put(store, FIRST)
    index = cache / "index.sqlite"
    with open_space(store) as space:
        append(space, take(space, [4]))
        if isinstance(length, int):
            os.truncate(index, length)
        else:
            index.unlink()
            if length == "replaced":
                EmbeddingStore(cache).index.rebuild()
        space.commit()
        append(space, take(space, [5, 1]))
        space.commit()
        assert found_in(space, [*FIRST, 4, 5]) == {*FIRST, 4, 5}
    assert present(EmbeddingStore(cache), range(7)) == {*FIRST, 4, 5}
    assert verify(EmbeddingStore(cache)) == []


@pytest.mark.parametrize("lost", ["unlinked", "emptied"])
def test_a_lost_record_names_the_repair_which_helps(cache, images, monkeypatch, lost):
    store = resolve_store(cache, "t")
    extract(images[:4], store=store)
    record = next(cache.glob("spaces/*/space.json"))
    record.unlink()
    if lost == "emptied":
        record.write_text("")
    for work in (lambda: extract(images[:4], store=store), store.info):
        with pytest.raises(StoreError, match="featuretl cache verify --repair"):
            work()
    with pytest.warns(
        FeatureTLWarning, match="cache verify --repair"
    ):  # the default cache is optional
        assert extract(images[:4], store=resolve_store("auto", "t")).ok.all()
    assert len(verify(store, repair=True)) == 1
    assert extract(images[:4], store=EmbeddingStore(cache)).statistics.embedded == 4


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
    for copy in copies:
        with pytest.warns(FeatureTLWarning, match="without caching"):
            assert copy.transform(pixels[None]).shape == (1, 1280)
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


@pytest.mark.parametrize("kind", ["long", "file", "below a file"])
def test_a_folder_that_cannot_be_there_is_a_store_error(tmp_path, kind):
    (tmp_path / "file").write_text("")
    names = {"long": "x" * 300, "file": "file", "below a file": "file/below"}
    store = EmbeddingStore(tmp_path / names[kind])
    works = [collect, verify, rebuild, EmbeddingStore.info, lambda store: put(store, [1])]
    for work in works:
        with pytest.raises(UnusableStoreError) as error:
            work(store)
        assert "\n" not in str(error.value)


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
    put(store, FIRST)
    shared = SharedStore(tmp_path / "shared")
    export_shared(store, shared)
    entry = next((tmp_path / "shared").glob("spaces/*/shards/*.json"))
    entry.write_bytes(entry.read_bytes()[:-1])
    with pytest.raises(FeatureTLError, match=entry.name):
        import_shared(EmbeddingStore(tmp_path / "other"), shared)
