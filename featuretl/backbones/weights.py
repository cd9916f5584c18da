"""Weights of networks: pretrained, from a file, or random; loaded without pickle."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import mmap
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import adapt_input_conv

from featuretl._core.precision import full_precision
from featuretl._core.text import printable, reason_of
from featuretl.backbones.blocks import PreLogits, trace
from featuretl.backbones.catalog import PACKAGED
from featuretl.backbones.folding import fold
from featuretl.backbones.preprocess import Preprocessing
from featuretl.backbones.sources import Source, find_source
from featuretl.backbones.spec import BackboneSpec
from featuretl.exceptions import BackboneError

RANDOM_SEED = 0

_LEAST_COSINE = 0.99999  # between embeddings before and after folding
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of glibc's mallopt


@dataclass(frozen=True)
class Network:
    """A timm model with its weights, in evaluation mode, without gradients."""

    model: Any
    files: list[Path]  # that determine the tensors and the architecture
    recipe: dict[str, Any]  # name of the architecture, and `tensors_digest` of the model

    @cached_property
    def folded(self) -> Any:
        """The model with batch-norm folded into convolutions, or the model if that fails."""
        whole = PreLogits(self.model)
        try:
            folded: Any = fold(whole, trace(whole))
        except TypeError:
            return self.model
        return folded.model if folded is whole or _agree(whole, folded) else self.model


def load_network(spec: BackboneSpec, device: torch.device) -> Network:
    """Build the network of a spec with its weights. Raises BackboneError.

    The last two networks loaded stay in memory.
    """
    _keep_freed_memory()
    if spec.network is not None:
        return spec.network.on(device)
    source = find_source(spec.name)
    file = None if spec.weights == "random" else Path(spec.weights)
    if spec.weights == "auto":
        file = source.weights()
    states = tuple((str(path), *_times(path)) for path in source.files(file))
    return _load(spec.name, spec.weights, spec.image_size, spec.in_chans, device, file, states)


def _times(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_mtime_ns, state.st_ctime_ns


@lru_cache(maxsize=2)
def _load(
    name: str,
    weights: str,
    image_size: tuple[int, int] | None,
    in_chans: int,
    device: torch.device,
    file: Path | None,
    states: object,
) -> Network:
    source = find_source(name)
    source.check_size(file)
    packaged = weights == "auto" and file is not None and file == source.packaged
    if weights == "auto" and not packaged:
        model = _pretrained(source, file, in_chans)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(RANDOM_SEED)
            model = source.build(in_chans=in_chans)
        if file is not None:
            _load_file(model, name, file, packaged)
    model = model.eval().requires_grad_(False)
    size = model.pretrained_cfg["input_size"][1:]
    model.pretrained_cfg = {**model.pretrained_cfg, "input_size": (in_chans, *size)}
    tensors = tensors_digest(model)
    if image_size is not None:
        _set_image_size(model, name, image_size)
    # With channels last, convolutions run about twice as fast; transformers do not change.
    model = model.to(device, memory_format=torch.channels_last)
    return Network(model, source.files(file), {**source.recipe, "tensors": tensors})


@cache
def _keep_freed_memory() -> None:
    # By default glibc returns every large activation to the kernel, which costs thousands of page
    # faults per image and half the speed of a small CNN. Reuse of freed blocks in all threads costs
    # about 0.1 GB of resident memory.
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another libc
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(_M_MMAP_THRESHOLD, 2**30)
            libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
            libc.mallopt(_M_ARENA_MAX, 1)


def _set_image_size(model: Any, name: str, size: tuple[int, int]) -> None:
    """Adapt a network to images of (height, width), as timm does. Raises BackboneError."""
    channels = model.pretrained_cfg["input_size"][0]
    model.pretrained_cfg = {**model.pretrained_cfg, "input_size": (channels, *size)}
    try:
        if hasattr(model, "set_input_size"):  # position embeddings are interpolated
            model.set_input_size(img_size=size)
        with torch.inference_mode():
            model(torch.zeros((2, channels, *size)))
    except Exception as error:  # timm's models raise any exception for a size that does not fit
        raise BackboneError(
            f"The backbone {printable(name)!r} does not take images of {size[0]} x {size[1]} "
            f"(image_size; {reason_of(error)}); use a multiple of its patch size, or another "
            "backbone."
        ) from error


def preprocessing_of(spec: BackboneSpec, model: Any) -> Any:
    """Return the preprocessing that belongs to the weights of a spec."""
    if spec.network is not None:
        return spec.network.preprocessing
    packaged = spec.weights == "auto" and spec.name in PACKAGED
    changes = dict(PACKAGED[spec.name].preprocess) if packaged else {}
    if spec.crop_pct is not None:
        changes["crop_pct"] = spec.crop_pct
    return replace(
        Preprocessing.of(model.pretrained_cfg, **changes), decode_ratio=spec.decode_ratio
    )


def tensors_digest(model: Any) -> str:
    """Return the SHA-256 of all tensors (name, dtype, shape, bytes) outside the classifier."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if not _is_classifier(name, model):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _pretrained(source: Source, file: Path | None, in_chans: int) -> Any:
    """Return timm's model with the weights in its own format, from a file or timm's URL."""
    name = printable(source.name)
    if file is None and not source.config.get("url"):
        raise BackboneError(
            f"timm has no pretrained weights for {name!r}; pass a local .safetensors or .pth file "
            "as weights, or weights='random'."
        )
    state = None if file is None else _read_state(file)
    try:
        if file is None:
            model: Any = timm.create_model(source.name, pretrained=True, in_chans=in_chans)
        else:
            model = source.build(state, in_chans=in_chans)
    except Exception as error:  # the network and foreign tensors cause any error
        raise BackboneError(
            f"The weights {printable(file or source.config['url'])!r} of {name!r} could not be "
            f"loaded ({type(error).__name__}: {printable(' '.join(str(error).split())[:300])})."
        ) from error
    if file is not None and source.file is not None:
        _check_fit(model, name, file, model.state_dict())
    return model


def _load_file(model: Any, name: str, file: Path, packaged: bool) -> None:
    if packaged and hashlib.sha256(file.read_bytes()).hexdigest() != PACKAGED[name].sha256:
        raise BackboneError(
            f"The packaged weights {str(file)!r} do not have the published SHA-256; reinstall "
            f"{PACKAGED[name].distribution}."
        )
    state = _read_state(file)
    own = model.state_dict()
    if packaged:
        # The tensors have the same order as timm's, but other names.
        shapes = [[t.shape[:1] + t.shape[2:] for t in s.values()] for s in (state, own)]
        if shapes[0] != shapes[1]:
            raise BackboneError(f"The packaged weights {str(file)!r} do not fit timm's {name!r}.")
        state = dict(zip(own, state.values(), strict=True))
    for key in [key for key in state if _is_classifier(key, model)]:
        if key not in own or state[key].shape != own[key].shape:
            del state[key]  # embeddings do not depend on the classifier
    _adapt_channels(model, state)
    _check_fit(model, name, file, state)
    model.load_state_dict(state, strict=False)


def _adapt_channels(model: Any, state: dict[str, torch.Tensor]) -> None:
    """Adapt the first convolutions in `state` to the channels of the model, as timm does."""
    first = model.pretrained_cfg.get("first_conv") or ()
    own = model.state_dict()
    for name in (first,) if isinstance(first, str) else first:
        key = f"{name}.weight"
        if key in state and key in own and state[key].shape[1:2] == (3,):
            state[key] = adapt_input_conv(own[key].shape[1], state[key])


def _read_state(file: Path) -> dict[str, torch.Tensor]:
    try:
        if file.suffix == ".safetensors":
            import safetensors.torch

            state: Any = safetensors.torch.load_file(file)
        else:
            _check_archive(file)
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # unusable files raise any exception; nothing was executed
        raise BackboneError(
            f"The weights file {printable(file)!r} cannot be loaded ({type(error).__name__}: "
            f"{reason_of(error)}); pass a .safetensors file, or a PyTorch file of tensors only."
        ) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    tensors = state.values() if isinstance(state, Mapping) else [None]
    if not all(isinstance(tensor, torch.Tensor) for tensor in tensors):
        raise BackboneError(
            f"The weights file {printable(file)!r} must hold a state dict (names to tensors)."
        )
    odd = [str(key) for key, tensor in state.items() if not _is_plain(tensor)]
    if odd:
        raise BackboneError(
            f"The weights file {printable(file)!r} must hold dense tensors of real numbers; got "
            f"{len(odd)} others (sparse, meta, complex, quantised), such as {printable(odd[0])!r}."
        )
    return {str(key).removeprefix("module."): tensor for key, tensor in state.items()}


def _check_archive(file: Path) -> None:
    """Raise ValueError for a file that could take much more memory than its size."""
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data.find(b"\nbytearray\n") >= 0:  # bytearray(n) is the only call that allocates n bytes
            raise ValueError("it holds a bytearray")
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError("its archive is compressed")


def _is_plain(tensor: torch.Tensor) -> bool:
    return (
        tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and not (tensor.is_complex() or tensor.is_quantized or tensor.is_nested)
    )


def _check_fit(model: Any, name: str, file: Path, state: Mapping[str, torch.Tensor]) -> None:
    own = model.state_dict()
    problems = {
        "missing": [k for k in own if k not in state and not _is_classifier(k, model)],
        "unexpected": [k for k in state if k not in own],
        "of another shape": [k for k in state if k in own and state[k].shape != own[k].shape],
        "with NaN or infinity": [k for k in state if k in own and not state[k].isfinite().all()],
    }
    if any(problems.values()):
        lists = "; ".join(
            f"{len(keys)} {what}: {printable(', '.join(keys[:20]))}{', ..' * (len(keys) > 20)}"
            for what, keys in problems.items()
            if keys
        )
        raise BackboneError(f"The weights file {printable(file)!r} does not fit {name!r}: {lists}.")


def _agree(whole: PreLogits, folded: Any) -> bool:
    """Return whether both models give the same embeddings for two images of noise."""
    generator = torch.Generator().manual_seed(RANDOM_SEED)
    noise = torch.randn((2, *whole.model.pretrained_cfg["input_size"]), generator=generator)
    x = noise.to(next(whole.parameters()).device)
    with torch.inference_mode(), full_precision():
        cosine = torch.nn.functional.cosine_similarity(whole(x), folded(x))
    return bool(cosine.min() > _LEAST_COSINE)


def _is_classifier(key: str, model: Any) -> bool:
    names = model.pretrained_cfg.get("classifier") or ()
    names = (names,) if isinstance(names, str) else names
    return any(key.startswith(f"{name}.") for name in names)
