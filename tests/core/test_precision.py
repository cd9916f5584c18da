"""Settings of precision last while any thread needs them, and are restored."""

import torch

from featuretl._core.precision import full_precision


def test_full_precision_lasts_until_the_last_thread_leaves_and_keeps_cudnn():
    def settings():
        return torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()

    torch.set_float32_matmul_precision("high")
    try:
        outer, inner = full_precision(), full_precision()
        outer.__enter__()
        inner.__enter__()
        outer.__exit__(None, None, None)
        assert settings() == (False, "highest")
        assert torch.backends.cudnn.enabled
        inner.__exit__(None, None, None)
        assert settings() == (True, "high")
    finally:
        torch.set_float32_matmul_precision("highest")


def test_full_precision_restores_what_the_new_interface_set():
    products = torch.backends.cuda.matmul
    products.fp32_precision = "tf32"
    try:
        with full_precision():
            assert products.fp32_precision == "ieee"
        assert products.fp32_precision == "tf32"
    finally:
        torch.set_float32_matmul_precision("highest")
