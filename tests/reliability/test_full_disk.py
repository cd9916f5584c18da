"""A full or read-only disk gives a one-line error, and no missing row is reported as saved.

RLIMIT_FSIZE stands for the disk: a file may grow to a number of bytes and no further (EFBIG).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from typing import Any

import numpy as np
import pytest
from known_rows import present, put
from PIL import Image

from featuretl import EmbeddingStore, ImageEmbedder, extract
from featuretl.backbones.spec import BackboneSpec
from featuretl.exceptions import FeatureTLWarning

pytest.importorskip("resource")

TINY = BackboneSpec.of("test", "test_resnet", weights="random")

LIMITED = """
    import json, resource, signal, sys
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    from featuretl.exceptions import StoreError
"""
WRITER = """
    from known_rows import append, open_space, take
    from featuretl import EmbeddingStore
    acknowledged, errors = [], []
    store = EmbeddingStore()
    with open_space(store) as space:
        for start in range(0, 1000, size := int(sys.argv[2])):
            numbers = take(space, range(start, start + size))
            append(space, numbers)
            limit(int(sys.argv[1]))
            try:
                space.commit()
                acknowledged += numbers
            except StoreError as error:
                errors.append(str(error))
                limit(resource.RLIM_INFINITY)
                break
    print(json.dumps([acknowledged, errors]))
"""
EXTRACTION = """
    from pathlib import Path
    from featuretl import EmbeddingStore, extract
    from featuretl.backbones.spec import BackboneSpec
    from featuretl.store import space
    space.SEGMENT_ROWS = 8
    paths = sorted(map(str, Path(sys.argv[2]).rglob("*.jpg")))
    spec = BackboneSpec.of("test", "test_resnet", weights="random")
    extract(paths[:8], spec, store=EmbeddingStore(), batch_size=4)  # while there is disk space
    limit(int(sys.argv[1]))
    try:
        extract(paths, spec, store=EmbeddingStore(), batch_size=4)
    except StoreError as error:
        print(json.dumps(str(error)))
"""

OPTIONAL = """
    import warnings
    from pathlib import Path
    import numpy as np
    from featuretl import EmbeddingStore, extract
    from featuretl.backbones.spec import BackboneSpec
    from featuretl.store import space
    from featuretl.store.store import resolve_store
    paths = sorted(map(str, Path(sys.argv[2]).rglob("*.jpg")))
    spec = BackboneSpec.of("test", "test_resnet", weights="random")
    expected = extract(paths, spec, batch_size=4)
    if kept := int(sys.argv[3]):  # while there is disk space
        extract(paths[:kept], spec, store=EmbeddingStore(), batch_size=4)
    if lost := sys.argv[4]:
        (EmbeddingStore().path / lost).unlink(missing_ok=True)
    space.SEGMENT_ROWS = 8
    limit(int(sys.argv[1]))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        store = resolve_store("auto", "test")
        found = extract(paths, spec, store=store, batch_size=4)
    limit(resource.RLIM_INFINITY)
    print(json.dumps([
        [str(warning.message) for warning in caught if "cache" in str(warning.message)],
        found.statistics.embedded, found.statistics.cached,
        bool(np.allclose(found.to_numpy(), expected.to_numpy(), rtol=1e-5)), store.keeps,
    ]))
"""


def run_limited(code: str, *arguments: object) -> Any:
    """Run `code` in a child process; return the JSON that it printed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LIMITED + code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("limit", [0, 1, 128, 500, 4096])
def test_a_disk_that_is_full_at_any_point_keeps_what_was_acknowledged(cache, limit):
    put(EmbeddingStore(cache), range(2000, 2010))
    acknowledged, errors = run_limited(WRITER, limit, 100)
    assert len(errors) == 1
    assert "File too large" in errors[0]
    assert "free disk space or choose another folder" in errors[0]
    assert "\n" not in errors[0]
    # At its exit, with disk space again, the child committed the rows that had failed.
    there = present(EmbeddingStore(cache), range(2010))
    assert {*acknowledged, *range(2000, 2010)} <= there
    assert set(put(EmbeddingStore(cache), range(1000))) == set(range(1000)) - there


def test_an_index_that_cannot_grow_acknowledges_nothing(cache):
    put(EmbeddingStore(cache), [2000])
    size = (cache / "index.sqlite").stat().st_size
    acknowledged, errors = run_limited(WRITER, size, 4)
    assert len(errors) == 1
    assert "\n" not in errors[0]
    assert {*acknowledged, 2000} <= present(EmbeddingStore(cache), range(2001))


def test_an_extraction_on_a_full_disk_is_one_sentence_and_goes_on_later(cache, photo_folder):
    sentence = run_limited(EXTRACTION, 2000, photo_folder)
    assert "\n" not in sentence
    assert str(cache) in sentence
    assert "free disk space" in sentence
    (info,) = EmbeddingStore(cache).info()
    assert info.rows == 8
    later = extract(sorted(photo_folder.rglob("*.jpg")), TINY, store=EmbeddingStore(cache))
    assert (later.statistics.embedded, later.statistics.cached) == (16, 8)


@pytest.mark.parametrize(
    ("limit", "kept", "lost"), [(0, 0, ""), (2000, 8, ""), (0, 8, "index.sqlite")]
)
def test_on_a_full_disk_the_default_cache_is_done_without(cache, photo_folder, limit, kept, lost):
    said, embedded, cached, agrees, keeps = run_limited(OPTIONAL, limit, photo_folder, kept, lost)
    (sentence,) = said
    assert "\n" not in sentence
    assert str(cache) in sentence
    assert "without caching" in sentence
    assert agrees
    assert not keeps
    # No image is embedded twice, and saved rows are found if the index can be rebuilt.
    assert (embedded, cached) == ((24, 0) if lost else (24 - kept, kept))
    assert sum(info.rows for info in EmbeddingStore(cache).info()) == kept
    later = extract(sorted(photo_folder.rglob("*.jpg")), TINY, store=EmbeddingStore(cache))
    assert (later.statistics.embedded, later.statistics.cached) == (24 - kept, kept)


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, pixels, monkeypatch):
    (tmp_path / "file").write_text("a file instead of a folder")
    monkeypatch.setenv("FEATURETL_CACHE", str(tmp_path / "file" / "cache"))
    embedder = ImageEmbedder("test_resnet", weights="random")
    with pytest.warns(FeatureTLWarning, match="cannot be written .* without caching"):
        rows = embedder.fit_transform([Image.fromarray(pixels)])
    assert np.isfinite(rows).all()
    assert (tmp_path / "file").is_file()
