"""Eager PyTorch halves batches that are too large for memory."""

import numpy as np
import pytest
import torch

from featuretl.backbones.eager import TorchRuntime


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
        MemoryError(),
    ],
)
def test_batches_too_large_for_memory_are_halved_and_stay_so(error):
    sizes = []

    class Small(torch.nn.Module):
        def forward(self, batch):
            sizes.append(len(batch))
            if len(batch) > 3:
                raise error
            return batch.flatten(1)

    runtime = TorchRuntime(Small())
    batch = torch.arange(14.0).reshape(14, 1)
    np.testing.assert_array_equal(runtime(batch), batch)
    assert sizes == [14, 7, 3, 3, 3, 3, 2]
    np.testing.assert_array_equal(runtime(batch[:4]), batch[:4])
    assert sizes[-2:] == [3, 1]


def test_one_image_too_many_for_memory_is_an_error_and_so_is_any_other():
    class Failing(torch.nn.Module):
        def forward(self, batch):
            raise self.error

    module = Failing()
    module.error = torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(torch.OutOfMemoryError):
        TorchRuntime(module)(torch.zeros(8, 1))
    module.error = RuntimeError("shapes do not fit")
    with pytest.raises(RuntimeError, match="do not fit"):
        TorchRuntime(module)(torch.zeros(8, 1))


def test_the_output_of_one_batch_is_not_copied():
    output = torch.ones(3, 2)

    class Fixed(torch.nn.Module):
        def forward(self, batch):
            assert torch.is_inference_mode_enabled()
            return output

    found = TorchRuntime(Fixed())(torch.zeros(3, 1))
    assert np.shares_memory(found, output.numpy())
