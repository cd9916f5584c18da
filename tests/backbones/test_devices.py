"""Devices of a parameter; several devices together, as far as a CPU allows."""

import contextlib
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from featuretl import extract, load_backbone
from featuretl.backbones import devices as devices_module
from featuretl.backbones.devices import (
    copy_ahead,
    devices_of,
    from_channels_last,
    own_stream,
    room_on,
    staging_memory,
    to_device,
    to_host,
    usable_device,
)
from featuretl.backbones.spec import BackboneSpec
from featuretl.exceptions import BackboneError, FeatureTLWarning, ParameterError
from featuretl.extraction import image_encoder
from featuretl.extraction.source import Source

TINY = BackboneSpec.of("test", "test_resnet", weights="random")
CPU = torch.device("cpu")


@pytest.fixture
def gpus(monkeypatch):
    def pretend(n):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: n > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: n)

    return pretend


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_cuda_is_every_gpu(gpus, device):
    gpus(3)
    assert devices_of("extract", device) == [torch.device("cuda", i) for i in range(3)]


def test_without_a_gpu_auto_is_the_cpu(gpus):
    gpus(0)
    assert devices_of("extract", "auto") == [torch.device("cpu")]


def test_a_list_is_what_it_says():
    listed = devices_of("extract", ["cpu", torch.device("meta"), "cpu"])
    assert [device.type for device in listed] == ["cpu", "meta", "cpu"]


@pytest.mark.parametrize("device", ["gpu", 3.5, None, ["cpu", "gpu"], []])
def test_what_is_no_device_is_refused(gpus, device):
    gpus(0)
    with pytest.raises(ParameterError, match=r"'device' parameter of extract must be .*; got "):
        devices_of("extract", device)


def test_a_gpu_that_is_not_there_is_refused(photos):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ParameterError, match=r"'device' parameter of extract .*; got 'cuda'"):
        extract(photos[:1], device="cuda")


def test_a_batch_is_normalised_on_the_device(pixels):
    on_meta, on_cpu = (
        load_backbone("test_resnet", weights="random", device=d) for d in ("meta", "cpu")
    )
    inputs = [on_cpu.prepare(pixels)] * 2
    batch, expected = on_meta.batch(inputs), on_cpu.batch(inputs)
    assert batch.device.type == "meta"
    assert (batch.shape, batch.dtype, batch.stride()) == (
        expected.shape,
        expected.dtype,
        expected.stride(),
    )


def test_on_the_cpu_there_are_no_streams():
    with own_stream(torch.device("cpu")):
        assert torch.zeros(1) == 0


@pytest.fixture
def cuda(monkeypatch):
    """Record what is asked of streams, events and tensors of a CUDA device that is not there."""
    calls, current = [], ["default"]

    class Stream:
        def __init__(self, name):
            self.name = name

        def wait_stream(self, other):
            calls.append((self.name, "waits for", other.name))

        def record_event(self):
            calls.append((self.name, "records"))
            return SimpleNamespace(synchronize=lambda: calls.append(("host", "synchronizes")))

    @contextlib.contextmanager
    def use(stream):
        before, current[0] = current[0], stream.name
        yield
        current[0] = before

    class Tensor:
        shape, dtype, device = (2, 3), torch.float32, torch.device("cuda", 1)

        def to(self, device, non_blocking):
            calls.append((current[0], "copies", non_blocking))
            return self

        def pin_memory(self):
            calls.append(("host", "pins"))
            return self

        def record_stream(self, stream):
            calls.append(("allocator", "keeps for", stream.name))

    class Pinned:
        def copy_(self, rows, non_blocking):
            calls.append((current[0], "copies back", non_blocking))

        def numpy(self):
            calls.append(("host", "reads"))
            return np.zeros((2, 3))

    monkeypatch.setattr(devices_module, "_stream", lambda purpose, device: Stream(purpose))
    monkeypatch.setattr(torch.cuda, "stream", use)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream(current[0]))
    monkeypatch.setattr(
        torch,
        "empty",
        lambda *args, pin_memory, **kwargs: calls.append(("pinned", pin_memory)) or Pinned(),
    )
    return SimpleNamespace(calls=calls, tensor=Tensor(), device=Tensor.device)


def test_on_cuda_a_stream_copies_ahead_and_the_computing_one_waits(cuda):
    with own_stream(cuda.device):
        assert copy_ahead(cuda.tensor, cuda.device) is cuda.tensor
    assert cuda.calls == [
        ("compute", "waits for", "default"),
        ("copy", "copies", True),
        ("compute", "waits for", "copy"),
        ("allocator", "keeps for", "compute"),
    ]


def test_on_cuda_rows_are_read_after_their_copy(cuda):
    with own_stream(cuda.device):
        wait = to_host(cuda.tensor)
    assert cuda.calls[1:] == [
        ("pinned", True),
        ("compute", "copies back", True),
        ("compute", "records"),
    ]
    del cuda.calls[:]
    assert wait().shape == (2, 3)
    assert cuda.calls == [("host", "synchronizes"), ("host", "reads")]


def test_on_cuda_small_tensors_are_pinned_first(cuda):
    to_device(cuda.tensor, cuda.device)
    assert cuda.calls == [("host", "pins"), ("default", "copies", True)]


@pytest.mark.parametrize("views", [(), (2,)])
def test_staging_memory_is_one_block_of_channels_last(views):
    memory = staging_memory(4, torch.zeros((*views, 3, 5, 6), dtype=torch.uint8), CPU)
    assert memory.shape == (4, *views, 3, 5, 6)
    assert memory.dtype == torch.uint8
    for part in (memory, memory[:2]):
        images = part.flatten(0, -4)
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert images.data_ptr() == memory.data_ptr()


def test_each_thread_embeds_on_one_device_in_turn(photos, monkeypatch):
    expected = extract(photos, TINY, device="cpu", batch_size=1)
    used = {}
    embed = image_encoder._Worker.embed

    def watched(self, inputs, stage):
        if (
            threading.current_thread() is not threading.main_thread()
        ):  # which embeds the golden image
            used.setdefault(threading.current_thread().name, set()).add(id(self))
        return embed(self, inputs, stage)

    monkeypatch.setattr(image_encoder._Worker, "embed", watched)
    found = extract(photos, TINY, device=["cpu", "cpu"], n_jobs=4, batch_size=1)
    np.testing.assert_array_equal(found.to_numpy(), expected.to_numpy())
    assert all(len(workers) == 1 for workers in used.values())
    assert len(set.union(*used.values())) == 2


def test_devices_that_differ_are_refused(photos, monkeypatch):
    signs = iter((1.0, -1.0))
    golden = image_encoder._Worker.golden
    monkeypatch.setattr(image_encoder._Worker, "golden", lambda self: next(signs) * golden(self))
    with pytest.raises(BackboneError, match="device 'cpu' does not give"):
        extract(photos[:2], TINY, device=["cpu", "cpu"])


@pytest.fixture
def pretended(monkeypatch):
    """Let the first CPU pass for an accelerator other than CUDA."""
    device = torch.device("cpu", 0)
    monkeypatch.setattr("featuretl.backbones.devices.accelerator", lambda: device)
    return device


def test_an_accelerator_that_agrees_with_the_cpu_is_used_and_reported(pretended, photos):
    source = Source(TINY, None)
    assert source.encoder.backbone.device == pretended
    found = extract(photos[:2], TINY)
    assert found.statistics.agreement == pytest.approx(1, abs=1e-6)
    np.testing.assert_array_equal(
        found.to_numpy(), extract(photos[:2], TINY, device="cpu").to_numpy()
    )
    assert extract(photos[:2], TINY, device="cpu").statistics.agreement is None


@pytest.mark.parametrize("problem", ["differs", "lacks an operation"])
def test_an_accelerator_that_disagrees_gives_way_to_the_cpu(
    pretended, photos, monkeypatch, problem
):
    golden = image_encoder._Worker.golden

    def on(self):
        if self.backbone.device != pretended:
            return golden(self)
        if problem == "differs":
            return -golden(self)
        raise NotImplementedError("no such operation")

    monkeypatch.setattr(image_encoder._Worker, "golden", on)
    with pytest.warns(FeatureTLWarning, match="device 'cpu:0'"):
        found = extract(photos[:2], TINY)
    assert found.statistics.agreement is None
    np.testing.assert_array_equal(
        found.to_numpy(), extract(photos[:2], TINY, device="cpu").to_numpy()
    )


def test_a_device_has_its_number(monkeypatch):
    class Used:
        device = torch.device("cuda", 1)

    monkeypatch.setattr(torch, "empty", lambda *args, **options: Used)
    assert usable_device("extract", "cuda") == torch.device("cuda", 1)
    assert usable_device("extract", "cpu:0") == torch.device("cpu", 0)


def test_a_stream_waits_for_what_was_queued_before(monkeypatch):
    order = []

    class Stream:
        def wait_stream(self, other):
            order.append(other)

    device = torch.device("cuda", 0)
    nothing = contextlib.nullcontext
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "the default stream")
    monkeypatch.setattr(torch.cuda, "device", nothing)
    monkeypatch.setattr(torch.cuda, "stream", nothing)
    thread = threading.Thread(target=lambda: [_enter(device) for _ in range(2)])
    thread.start()
    thread.join()
    assert order == ["the default stream"] * 2


def _enter(device):
    with own_stream(device):
        pass


def test_arrays_with_channels_last_become_images_that_share_their_memory():
    block = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    first, second = from_channels_last(block)
    assert first.shape == (3, 3, 4)
    assert torch.equal(second, torch.from_numpy(block[1]).permute(2, 0, 1))
    block[0] = 7
    assert bool((first == 7).all())


def test_main_memory_has_no_room_of_its_own():
    assert room_on(torch.device("cpu")) == 0
