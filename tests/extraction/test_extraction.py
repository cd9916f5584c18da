"""extract embeds each image once, in order, also after errors and interrupts."""

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

from featuretl import EmbeddingStore, extract, load_backbone
from featuretl.backbones.eager import TorchRuntime
from featuretl.backbones.spec import BackboneSpec
from featuretl.exceptions import FeatureTLWarning, ImageError, ParameterError
from featuretl.extraction.engine import Statistics
from featuretl.store import space as space_module

TINY = BackboneSpec.of("test", "test_resnet", weights="random")


def tiny_images(folder: Path, n: int) -> list[str]:
    """Write n different small images; return their paths."""
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    paths = []
    for i, noise in enumerate(rng.integers(0, 256, (n, 6, 7, 3), np.uint8)):
        paths.append(str(folder / f"{i:05d}.png"))
        Image.fromarray(noise).save(paths[-1])
    return paths


def counts(extraction):
    statistics = extraction.statistics
    return statistics.embedded, statistics.cached, statistics.failed


def test_cached_equals_fresh_equals_one_by_one(photos, store):
    fresh = extract(photos, TINY, store=store)
    assert counts(fresh) == (24, 0, 0)
    cached = extract(photos, TINY, store=store)
    assert counts(cached) == (0, 24, 0)
    np.testing.assert_array_equal(cached.to_numpy(), fresh.to_numpy())
    alone = np.concatenate([extract([p], TINY, batch_size=1).to_numpy() for p in photos])
    np.testing.assert_allclose(alone, fresh.to_numpy(), rtol=1e-3, atol=1e-5)
    assert fresh.to_numpy().dtype == np.float32
    assert fresh.shape == (24, load_backbone("test_resnet", weights="random").n_features)


@pytest.mark.parametrize("batch_size", [1, 7, 24, 100])
@pytest.mark.parametrize("n_jobs", [1, 4])
def test_rows_follow_the_input_whatever_its_order(photos, store, batch_size, n_jobs):
    expected = extract(photos, TINY).to_numpy()
    order = np.random.default_rng(batch_size).permutation(24)
    shuffled = [photos[i] for i in order]
    extraction = extract(shuffled, TINY, store=store, batch_size=batch_size, n_jobs=n_jobs)
    np.testing.assert_allclose(extraction.to_numpy(), expected[order], rtol=1e-3, atol=1e-5)


def test_the_same_image_in_any_form_is_embedded_once(photos, store, tmp_path, forwards):
    copy = shutil.copy(photos[0], tmp_path / "renamed.bin")
    data = Path(photos[0]).read_bytes()
    pixels = np.asarray(Image.open(photos[1]))
    images = [photos[0], copy, data, Path(photos[0]), pixels, Image.fromarray(pixels), photos[0]]
    rows = extract(images, TINY, store=store).to_numpy()
    assert len(forwards) == 2  # one for the file's bytes, one for the pixels
    assert (rows[[1, 2, 3, 6]] == rows[0]).all()
    assert (rows[4] == rows[5]).all()
    Path(copy).rename(tmp_path / "moved.jpg")
    assert counts(extract([tmp_path / "moved.jpg"], TINY, store=store)) == (0, 1, 0)


def test_a_partly_cached_run_embeds_only_the_rest(photos, store, forwards):
    extract(photos[:10], TINY, store=store)
    assert counts(extract(photos, TINY, store=store)) == (14, 10, 0)
    assert len(forwards) == 24


def test_a_warm_run_reads_no_image_and_loads_no_network(photos, store, monkeypatch):
    later = time.time_ns() + 10**10
    monkeypatch.setattr(
        "time.time_ns", lambda: later
    )  # the files are old enough to be recognised by their state
    expected = extract(photos, TINY, store=store).to_numpy()

    def refuse(*args):
        raise AssertionError("touched")

    monkeypatch.setattr("featuretl.extraction.image_encoder.ImageEncoder.read", refuse)
    monkeypatch.setattr("featuretl.backbones.backbone.load_spec", refuse)
    np.testing.assert_array_equal(extract(photos, TINY, store=store).to_numpy(), expected)


def test_files_too_new_to_trust_are_hashed_again_but_not_embedded(
    photos, store, tmp_path, monkeypatch
):
    path = tmp_path / "new.jpg"
    shutil.copy(photos[0], path)
    extract([path], TINY, store=store)
    monkeypatch.setattr(
        "featuretl.backbones.backbone.load_spec", lambda *args: pytest.fail("loaded")
    )
    assert counts(extract([path], TINY, store=store)) == (0, 1, 0)


def test_an_edited_file_is_embedded_again_even_with_its_old_times(store, tmp_path, monkeypatch):
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


@pytest.fixture
def with_bad(photos, tmp_path):
    """Good and bad images; the bad ones are at 1, 3, 4, 5, 7, 8 and 9."""
    data = Path(photos[0]).read_bytes()
    bad = {
        "empty.jpg": b"",
        "truncated.jpg": data[: len(data) // 2],
        "same truncated.jpg": data[: len(data) // 2],
        "text.jpg": b"<svg>not a photograph</svg>",
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    missing = str(tmp_path / "missing\x1b[31m.jpg")
    names = [str(tmp_path / name) for name in bad]
    return [photos[0], names[0], photos[1], *names[1:], photos[2], missing, None, np.zeros(3)]


BAD = [1, 3, 4, 5, 7, 8, 9]


@pytest.mark.parametrize("stored", [True, False])
def test_bad_images_are_named_rows_of_nan_and_shift_nothing(with_bad, photos, store, stored):
    store = store if stored else None
    for _ in range(2):
        extraction = extract(with_bad, TINY, store=store, on_error="nan", batch_size=2)
        assert [failure.index for failure in extraction.failures] == BAD
        assert extraction.statistics.failed == len(BAD)
        assert extraction.statistics.done == len(with_bad)
        rows = extraction.to_numpy()
        assert np.isnan(rows[BAD]).all()
        good = np.setdiff1d(np.arange(len(with_bad)), BAD)
        np.testing.assert_array_equal(extraction.ok.nonzero()[0], good)
        np.testing.assert_allclose(
            rows[good], extract(photos[:3], TINY).to_numpy(), rtol=1e-3, atol=1e-5
        )
        messages = {failure.name: failure.message for failure in extraction.failures}
        assert messages[with_bad[1]] == "empty: 0 bytes"
        assert "truncated" in messages[with_bad[3]]
        assert messages[with_bad[4]] == messages[with_bad[3]]
        assert "not an image" in messages[with_bad[5]]
        assert messages["image 8 (NoneType)"].startswith("a NoneType; expected a path")
        assert any("missing\\x1b[31m.jpg" in name for name in messages)


def test_raising_comes_after_the_good_ones_are_kept(with_bad, store, forwards):
    with pytest.raises(
        ImageError, match=r"7 of 10 images have no embedding .*empty: 0 bytes"
    ) as caught:
        extract(with_bad, TINY, store=store)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert counts(extract(with_bad, TINY, store=store, on_error="nan")) == (0, 3, 7)


def test_a_mended_image_is_embedded(store, photos, tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"")
    assert counts(extract([path], TINY, store=store, on_error="nan")) == (0, 0, 1)
    shutil.copy(photos[0], path)
    assert counts(extract([path], TINY, store=store)) == (1, 0, 0)


def test_an_image_too_long_and_thin_to_be_resized_is_a_failure():
    strip = np.zeros((1, 30_000, 3), np.uint8)  # would be resized to 256 x 7.7 million pixels
    extraction = extract([strip, strip[:, :500]], on_error="nan")
    assert [failure.index for failure in extraction.failures] == [0]
    assert "too long and thin" in extraction.failures[0].message


def test_no_images(store):
    assert extract([], TINY, store=store).to_numpy().shape[0] == 0


def test_the_memory_map_is_the_matrix(photos, store):
    extraction = extract(photos, TINY, store=store)
    mapped = extraction.memmap()
    assert isinstance(mapped, np.memmap)
    np.testing.assert_array_equal(mapped, extraction.to_numpy())
    reverse = extract(photos[::-1], TINY, store=store).memmap()
    np.testing.assert_array_equal(reverse, mapped[::-1])
    assert len(list((store.path / "views").iterdir())) == 2
    np.testing.assert_array_equal(extract(photos, TINY).memmap(), mapped)


def test_recipes_do_not_mix(photos, store):
    tiny_max = dataclasses.replace(TINY, pooling="max")
    a, b = (extract(photos, spec, store=store) for spec in (TINY, tiny_max))
    assert counts(b) == (24, 0, 0)
    assert not np.allclose(a.to_numpy(), b.to_numpy())
    assert [info.rows for info in store.info()] == [24, 24]


def test_drifted_embeddings_are_made_anew_not_mixed(photos, store, monkeypatch):
    extract(photos[:4], TINY, store=store)
    forward = TorchRuntime.__call__
    monkeypatch.setattr(TorchRuntime, "__call__", lambda self, x: forward(self, x) + 1)
    with pytest.warns(FeatureTLWarning, match="golden image"):
        extraction = extract(photos[:6], TINY, store=store)
    assert counts(extraction) == (6, 0, 0)
    assert counts(extract(photos[:6], TINY, store=store)) == (0, 6, 0)


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
def test_interrupted_and_resumed_equals_uninterrupted(photos, store, monkeypatch, error):
    expected = extract(photos, TINY, batch_size=4).to_numpy()
    forward, calls = TorchRuntime.__call__, []

    def interrupt(self, batch):
        calls.append(len(batch))
        if len(calls) == 6:  # after the blank image, the golden image and three batches
            raise error
        return forward(self, batch)

    monkeypatch.setattr(TorchRuntime, "__call__", interrupt)
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
    monkeypatch.setattr(TorchRuntime, "__call__", forward)
    resumed = extract(photos, TINY, store=store, batch_size=4)
    assert counts(resumed) == (24 - kept, kept, 0)
    np.testing.assert_allclose(resumed.to_numpy(), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX timers")
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
    from featuretl.backbones.backbone import Backbone
    from featuretl.backbones.spec import BackboneSpec
    from featuretl.store import space
    space.SEGMENT_ROWS = int(sys.argv[1])
    paths = sys.argv[2:]
    spec = BackboneSpec.of("test", "test_resnet", weights="random")
    def told(statistics):
        print(statistics.embedded, flush=True)
    print("start", flush=True)
    extraction = extract(paths, spec, store=EmbeddingStore(), batch_size=2, progress=told)
    print("end", extraction.statistics.embedded, extraction.statistics.cached, flush=True)
"""


def child(segment_rows: int, paths: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CHILD), str(segment_rows), *paths],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_killed_and_resumed_equals_uninterrupted(tmp_path, store):
    paths = tiny_images(tmp_path / "images", 150)
    process = child(16, paths)
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


def test_processes_that_overlap_embed_every_image_once(tmp_path, store):
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


def test_without_a_store_nothing_is_kept(photos, cache):
    assert counts(extract(photos, TINY)) == (24, 0, 0)
    assert counts(extract(photos, TINY)) == (24, 0, 0)
    assert not cache.exists()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"batch_size": 0}, "'batch_size' parameter of extract must be an int >= 1; got 0."),
        ({"on_error": "skip"}, "'on_error' parameter of extract must be one of 'raise', 'nan'"),
    ],
)
def test_parameters_are_refused_in_one_sentence(photos, parameters, message):
    with pytest.raises(ParameterError, match=message):
        extract(photos, TINY, **parameters)


def test_a_read_only_store_serves_what_it_has(photos, store, tmp_path):
    extract(photos[:3], TINY, store=store)
    if os.getuid() == 0:
        pytest.skip("root may write anywhere")
    store.path.chmod(0o500)
    try:
        assert counts(extract(photos[:3], TINY, store=EmbeddingStore(store.path))) == (0, 3, 0)
    finally:
        store.path.chmod(0o700)


def test_threads_of_an_extraction_leave_pytorchs_own_as_they_were(photos, monkeypatch):
    before, seen = torch.get_num_threads(), []
    forward = TorchRuntime.__call__

    def watched(self, batch):
        seen.append((threading.current_thread().name, torch.get_num_threads()))
        return forward(self, batch)

    monkeypatch.setattr(TorchRuntime, "__call__", watched)
    extract(photos, TINY, batch_size=2, n_jobs=3)
    ours = {threads for name, threads in seen if name.startswith("featuretl")}
    assert ours == {1}
    assert torch.get_num_threads() == before
    others = ThreadPoolExecutor(1).submit(torch.get_num_threads).result()
    assert others == before
