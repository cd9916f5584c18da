"""The engine: order, threads, memory and progress, and runs that are interrupted, killed or overlap."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from featuretl import extract
from featuretl.backbones.eager import TorchRuntime
from featuretl.backbones.spec import BackboneSpec
from featuretl.extraction.statistics import Statistics
from featuretl.store import space as space_module

TINY = BackboneSpec.of("test", "test_resnet", weights="random")

both = pytest.mark.usefixtures("strategy")


def tiny_images(folder: Path, n: int) -> list[str]:
    """Write n different small images; return their paths."""
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    paths = []
    for i, noise in enumerate(rng.integers(0, 256, (n, 6, 7, 3), np.uint8)):
        paths.append(str(folder / f"{i:05d}.png"))
        Image.fromarray(noise).save(paths[-1])
    return paths


@pytest.mark.parametrize("batch_size", [1, 7, 24, 100])
@pytest.mark.parametrize("n_jobs", [1, 4])
@both
def test_rows_follow_the_input_whatever_its_order(photos, store, batch_size, n_jobs):
    expected = extract(photos, TINY).to_numpy()
    order = np.random.default_rng(batch_size).permutation(24)
    shuffled = [photos[i] for i in order]
    extraction = extract(shuffled, TINY, store=store, batch_size=batch_size, n_jobs=n_jobs)
    np.testing.assert_allclose(extraction.to_numpy(), expected[order], rtol=1e-3, atol=1e-5)


@both
def test_a_partly_cached_run_embeds_only_the_rest(photos, store, forwards, counts):
    extract(photos[:10], TINY, store=store)
    assert counts(extract(photos, TINY, store=store)) == (14, 10, 0)
    assert len(forwards) == 24


def test_files_too_new_to_trust_are_hashed_again_but_not_embedded(
    photos, store, tmp_path, monkeypatch, counts
):
    path = tmp_path / "new.jpg"
    shutil.copy(photos[0], path)
    extract([path], TINY, store=store)
    monkeypatch.setattr(
        "featuretl.backbones.backbone.load_spec", lambda *args: pytest.fail("loaded")
    )
    assert counts(extract([path], TINY, store=store)) == (0, 1, 0)


def test_an_edited_file_is_embedded_again_even_with_its_old_times(
    store, tmp_path, monkeypatch, counts
):
    (path,) = tiny_images(tmp_path / "images", 1)
    later = time.time_ns() + 10**10
    monkeypatch.setattr("time.time_ns", lambda: later)
    first = extract([path], TINY, store=store).to_numpy()
    state = Path(path).stat()
    data = bytearray(Path(path).read_bytes())
    Image.fromarray(np.asarray(Image.open(path))[::-1].copy()).save(path)
    edited = Path(path).read_bytes()
    Path(path).write_bytes(edited + b"\0" * (len(data) - len(edited)))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    extraction = extract([path], TINY, store=store)
    assert counts(extraction) == (1, 0, 0)
    assert not np.allclose(extraction.to_numpy(), first)


def test_a_mended_image_is_embedded(store, photos, tmp_path, counts):
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"")
    assert counts(extract([path], TINY, store=store, on_error="nan")) == (0, 0, 1)
    shutil.copy(photos[0], path)
    assert counts(extract([path], TINY, store=store)) == (1, 0, 0)


@both
def test_progress_is_told_and_ends_complete(photos, store):
    seen: list[Statistics] = []
    extract(
        photos,
        TINY,
        store=store,
        batch_size=4,
        progress=lambda s: seen.append(dataclasses.replace(s)),
    )
    assert seen[-1].done == seen[-1].images == 24
    assert all(a.done <= b.done for a, b in pairwise(seen))


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@both
def test_interrupted_and_resumed_equals_uninterrupted(photos, store, monkeypatch, error, counts):
    expected = extract(photos, TINY, batch_size=4).to_numpy()
    forward, calls = TorchRuntime._run, []

    def interrupt(self, batch):
        calls.append(len(batch))
        if len(calls) == 6:  # after the blank image, the golden image and three batches
            raise error
        return forward(self, batch)

    monkeypatch.setattr(TorchRuntime, "_run", interrupt)
    told: list[int] = []
    with pytest.raises(error):
        extract(
            photos,
            TINY,
            store=store,
            batch_size=4,
            n_jobs=1,
            progress=lambda s: told.append(s.embedded),
        )
    kept = told[-1]
    assert 12 <= kept < 24  # the thread may finish one more batch
    assert sum(space.rows for space in store.info()) == kept
    monkeypatch.setattr(TorchRuntime, "_run", forward)
    resumed = extract(photos, TINY, store=store, batch_size=4)
    assert counts(resumed) == (24 - kept, kept, 0)
    np.testing.assert_allclose(resumed.to_numpy(), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX timers")
@both
def test_an_interrupt_at_any_moment_tells_what_is_kept(photos, store, monkeypatch):
    monkeypatch.setattr(space_module, "SEGMENT_ROWS", 5)  # so that commits are interrupted, too
    seconds, kept = 0.002, 0
    while kept < len(photos):
        seen: list[Statistics] = []
        previous = signal.signal(signal.SIGALRM, signal.default_int_handler)
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            extract(photos, TINY, store=store, batch_size=1, progress=seen.append)
        except KeyboardInterrupt:
            pass
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
        before, kept = kept, sum(space.rows for space in store.info())
        if seen:
            assert seen[-1].embedded == kept - before
        seconds *= 1.1


CHILD = """
    import sys, time
    from featuretl import EmbeddingStore, extract
    from featuretl.backbones.spec import BackboneSpec
    from featuretl.extraction.image_encoder import ImageEncoder
    from featuretl.store import space
    space.SEGMENT_ROWS = int(sys.argv[1])
    if sys.argv[2] == "pipeline":
        ImageEncoder.pipelined = property(lambda self: self._workers)
    paths = sys.argv[3:]
    spec = BackboneSpec.of("test", "test_resnet", weights="random")
    def told(statistics):
        print(statistics.embedded, flush=True)
    print("start", flush=True)
    extraction = extract(paths, spec, store=EmbeddingStore(), batch_size=2, progress=told)
    print("end", extraction.statistics.embedded, extraction.statistics.cached, flush=True)
"""


def child(segment_rows: int, paths: list[str], strategy: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CHILD), str(segment_rows), strategy, *paths],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_killed_and_resumed_equals_uninterrupted(tmp_path, store, counts, strategy):
    paths = tiny_images(tmp_path / "images", 150)
    process = child(16, paths, strategy)
    for line in process.stdout:
        if line.strip().isdigit() and int(line) >= 50:
            process.send_signal(signal.SIGKILL)
            break
    process.communicate()
    (info,) = store.info()
    assert 0 < info.rows < 150
    assert info.rows % 16 == 0
    resumed = extract(paths, TINY, store=store)
    assert counts(resumed) == (150 - info.rows, info.rows, 0)
    np.testing.assert_allclose(
        resumed.to_numpy(), extract(paths, TINY).to_numpy(), rtol=1e-3, atol=1e-5
    )


def test_processes_that_overlap_embed_every_image_once(tmp_path, store, counts):
    paths = tiny_images(tmp_path / "images", 200)
    children = [child(32, paths[:150]), child(32, paths[:49:-1])]
    ends = [process.communicate()[0].splitlines()[-1].split() for process in children]
    assert [end[0] for end in ends] == ["end", "end"]
    embedded = [int(end[1]) for end in ends]
    assert sum(embedded) == 200
    (info,) = store.info()
    assert info.rows == 200
    assert counts(extract(paths, TINY, store=store)) == (0, 200, 0)


MEMORY = """
    import resource, sys
    import numpy as np
    from featuretl import EmbeddingStore, extract
    from featuretl.backbones.backbone import Backbone
    from featuretl.backbones.spec import BackboneSpec

    class Pictures:
        '''n different 4 x 4 images, created on access.'''
        def __init__(self, n): self.n = n
        def __len__(self): return self.n
        def __getitem__(self, i):
            if i >= self.n: raise IndexError
            return np.frombuffer(int(i).to_bytes(48, "little"), np.uint8).reshape(4, 4, 3)

    from collections.abc import Sequence
    Sequence.register(Pictures)
    # The mean of the input replaces the network: this measures everything else.
    Backbone.n_features = 1280
    Backbone.batch = lambda self, x: list(x)
    Backbone.forward = lambda self, x: np.repeat(np.array([[float(i.mean())] for i in x], np.float32), 1280, 1)
    Backbone.prepare = lambda self, pixels: __import__("torch").from_numpy(pixels.astype(np.float32))
    spec = BackboneSpec.of("test", "tf_efficientnet_lite0")
    extract(Pictures(100), spec, store=EmbeddingStore())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    extraction = extract(Pictures(60_000), spec, store=EmbeddingStore(), runtime="torch")
    print(extraction.statistics.embedded, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow_reliability
def test_memory_is_bounded_by_a_segment_and_a_few_batches(store):
    output = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MEMORY)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout.split()
    assert int(output[0]) == 60_000 - 100
    segment = space_module.SEGMENT_ROWS * 1280 * 4
    # A segment, its copy while rows are joined, and the keys; 60,000 rows would take 307 MB.
    assert int(output[1]) * 1024 < 2.5 * segment


@both
def test_threads_of_an_extraction_leave_pytorchs_own_as_they_were(photos, monkeypatch):
    before, seen = torch.get_num_threads(), []
    forward = TorchRuntime._run

    def watched(self, batch):
        seen.append((threading.current_thread().name, torch.get_num_threads()))
        return forward(self, batch)

    monkeypatch.setattr(TorchRuntime, "_run", watched)
    extract(photos, TINY, batch_size=2, n_jobs=3)
    ours = {threads for name, threads in seen if name.startswith("featuretl")}
    assert ours == {1}
    assert torch.get_num_threads() == before
    others = ThreadPoolExecutor(1).submit(torch.get_num_threads).result()
    assert others == before
