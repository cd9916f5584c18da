"""Sources of networks: timm's names, repositories on the Hugging Face hub, and local folders."""

from __future__ import annotations

import dataclasses
import inspect
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import PretrainedCfg
from timm.models._hub import load_model_config_from_path

from featuretl._core.text import did_you_mean, parse_json, printable
from featuretl.backbones.catalog import packaged_file
from featuretl.backbones.hub import WEIGHTS, download, local_copy, reference
from featuretl.backbones.spec import split_name
from featuretl.exceptions import BackboneError

CONFIG = "config.json"
MAX_CONFIG_BYTES = 2**24
MAX_NUMBER = 2**16  # in the arguments of a network
MAX_PARAMETERS = 2**30  # of a network from a folder with random weights
MAX_INPUT = 2**12  # height and width

# Arguments that change no embedding, and those that are not the network's own.
_WITHOUT_EFFECT = ("num_classes", "drop")
_RESERVED = {
    *inspect.signature(timm.create_model).parameters,
    *("features_only", "pretrained_model_args", "pretrained_strict", "pretrained_filter_fn"),
    *("feature_cfg", "model_cfg", "model_cls", "kwargs_filter", "variant", "device", "dtype"),
}
_OWN = {"url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "custom_load"}
_FIELDS = {field.name for field in dataclasses.fields(PretrainedCfg)} - _OWN


@dataclass(frozen=True)
class Source:
    """What a backbone's name stands for: an architecture, its configuration and its weights."""

    name: str  # as in BackboneSpec
    architecture: str  # timm's, without a tag
    config: dict[str, Any]  # timm's pretrained_cfg
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)  # of the network
    file: Path | None = None  # config.json
    repository: str | None = None  # on the hub
    revision: str | None = None

    @property
    def recipe(self) -> dict[str, Any]:
        """The part of a recipe that describes the architecture (JSON).

        It contains the arguments that are not timm's defaults: the same tensors under another name
        of the same network have the same recipe.
        """
        _, *size = self.config.get("input_size", (3,))
        args = {
            name: value
            for name, value in self.arguments.items()
            if not any(word in name for word in _WITHOUT_EFFECT)
            and not (name == "img_size" and value in (size, size[0]))
            and not (name == "in_chans" and value == 3)
        }
        if "global_pool" in args:  # timm exports it always
            rest = {name: value for name, value in self.arguments.items() if name != "global_pool"}
            default = dataclasses.replace(self, arguments=rest)
            if _structure(self.describe()) == _structure(default.describe()):
                del args["global_pool"]
        return {"name": self.architecture, **({"arguments": args} if args else {})}

    @property
    def packaged(self) -> Path | None:
        """Path of the packaged weights, if they are installed."""
        return packaged_file(self.name)

    def weights(self, *, here: bool = False) -> Path | None:
        """Return the file of the weights, downloaded unless `here`; None if there is no file.

        Raises BackboneError if the download fails.
        """
        if self.packaged:
            return self.packaged
        if self.file:
            beside = [self.file.parent / name for name in WEIGHTS]
            found = next((path for path in beside if path.is_file()), None)
        else:
            id_ = self.repository
            found = local_copy(id_, self.revision, *WEIGHTS) if id_ else None
        if found or here:
            return found
        if self.repository:
            # The commit that the configuration comes from.
            revision = self.file.parent.name if self.file else self.revision
            return download(self.name, self.repository, revision, *WEIGHTS)
        if self.file:
            raise BackboneError(
                f"The folder {printable(self.file.parent)!r} has no {' or '.join(WEIGHTS)}; save "
                "the network there with timm.models.save_for_hf."
            )
        return None

    def files(self, weights: Path | None) -> list[Path]:
        """Return the existing files that determine the network, with these weights."""
        files = [file for file in (self.file, weights) if file]
        if self.repository and files and "snapshots" in files[0].parts[-3:]:
            files.append(reference(files[0], self.revision))
        return [file for file in files if file.is_file()]

    def build(self, state: dict[str, torch.Tensor] | None = None, in_chans: int = 3) -> Any:
        """Return timm's model with the tensors of `state`, or initialised randomly."""
        overlay = {} if state is None else {"state_dict": state, "source": ""}
        given: dict[str, Any] = {"pretrained": state is not None, "pretrained_cfg_overlay": overlay}
        given["in_chans"] = in_chans
        if self.file is None:
            model: Any = timm.create_model(self.name, **given)
        else:
            given["pretrained_cfg"] = self.config
            model = timm.create_model(self.architecture, **self.arguments | given)
        model.pretrained_cfg.pop("state_dict", None)  # a copy of all tensors
        return model

    def describe(self) -> Any:
        """Return timm's model without memory for its tensors. Raises BackboneError."""
        try:
            with torch.device("meta"):
                return self.build()
        except Exception as error:  # a foreign configuration can cause any error
            raise BackboneError(
                f"timm {timm.__version__} cannot build the network {printable(self.file)!r} "
                f"({type(error).__name__}: {printable(' '.join(str(error).split())[:200])}); "
                "export it again with timm.models.save_for_hf."
            ) from error

    def check_size(self, weights: Path | None) -> None:
        """Raise BackboneError if a foreign configuration needs more memory than its weights."""
        if self.file is not None:
            limit = MAX_PARAMETERS if weights is None else weights.stat().st_size
            n = sum(tensor.numel() for tensor in self.describe().state_dict().values())
            if n > limit:
                raise BackboneError(
                    f"The network in {printable(self.file)!r} has {n:,} parameters, more than "
                    f"{'the limit' if weights is None else 'the bytes of its weights'}, {limit:,}."
                )


def find_source(name: str) -> Source:
    """Return what a backbone's name stands for; downloads at most its configuration.

    Raises BackboneError if the name is unknown or its configuration is unusable.
    """
    kind, where = split_name(name)
    if kind is None:
        return _registered(name)
    if kind == "local-dir":
        file = Path(where, CONFIG)
        if not file.is_file():
            raise BackboneError(
                f"The folder {printable(where)!r} of the backbone {printable(name)!r} has no file "
                f"{CONFIG}; save the network there with timm.models.save_for_hf."
            )
        return _configured(name, file)
    repository, _, tag = where.partition("@")
    revision = tag or None
    found = _local_config(name, repository, revision)
    found = found or download(name, repository, revision, CONFIG, max_bytes=MAX_CONFIG_BYTES)
    return _configured(name, found, repository, revision)


def _registered(name: str) -> Source:
    if not timm.is_model(name):
        hint = did_you_mean(name, timm.list_models())
        if "/" in name:
            hint = f"; did you mean 'hf-hub:{printable(name)}' or 'local-dir:{printable(name)}'?"
        raise BackboneError(
            f"timm {timm.__version__} knows no model {printable(name)!r}{hint}; `featuretl "
            "backbones PATTERN` lists them."
        )
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        architecture, _, tag = name.partition(".")
        known = timm.list_pretrained(f"{architecture}.*")
        has = f"use {', '.join(known)}" if known else "it has no tags: omit the tag"
        raise BackboneError(
            f"timm {timm.__version__} knows no pretrained tag {printable(tag)!r} of "
            f"{architecture!r}{did_you_mean(name, known)}; {has}."
        ) from error
    facts = config.to_dict() if config else {}
    return Source(name, name.split(".")[0], facts, repository=facts.get("hf_hub_id"))


def _local_config(name: str, repository: str, revision: str | None) -> Path | None:
    try:
        return local_copy(repository, revision, CONFIG)
    except ValueError as error:  # huggingface_hub's check of the name
        raise BackboneError(
            f"The backbone {printable(name)!r} must name a repository on the hub, as in "
            "'hf-hub:organisation/model' or 'hf-hub:organisation/model@revision'."
        ) from error


def _configured(
    name: str, file: Path, repository: str | None = None, revision: str | None = None
) -> Source:
    """Return the source that a `config.json` of timm describes; its content is not trusted."""
    try:
        if file.stat().st_size > MAX_CONFIG_BYTES:
            raise ValueError(f"it has more than {MAX_CONFIG_BYTES} bytes")
        content = parse_json(file.read_bytes())
        if not isinstance(content, dict) or not isinstance(content.get("architecture"), str):
            raise ValueError("it is not a JSON object with an architecture")
        arguments = _checked_arguments(content.get("model_args") or {})
        given, architecture, _ = load_model_config_from_path(file.parent)
        architecture = architecture.split(".")[0]
        if not timm.is_model(architecture):
            near = did_you_mean(architecture, timm.list_models())
            raise ValueError(f"timm {timm.__version__} has no architecture {architecture!r}{near}")
        config = {key: value for key, value in given.items() if key in _FIELDS}
        # timm discards the classifier, and then ignores tensors that are missing, if they differ.
        config["num_classes"] = arguments.get("num_classes", config.get("num_classes", 1000))
        config["architecture"] = architecture
        _check_config(config)
    except (ValueError, TypeError, AttributeError, KeyError, OSError) as error:
        raise BackboneError(
            f"The configuration {printable(file)!r} is not one of a timm model "
            f"({printable(' '.join(str(error).split())[:200])}); export the network again with "
            "timm.models.save_for_hf."
        ) from error
    return Source(name, architecture, config, arguments, file, repository, revision)


def _checked_arguments(arguments: Any) -> dict[str, Any]:
    """Return the arguments of a network from a file that are set; raises ValueError."""
    if not isinstance(arguments, dict) or set(arguments) & _RESERVED:
        raise ValueError("its model_args are not arguments of a network")
    found: list[Any] = [arguments]
    while found:
        value = found.pop()
        if isinstance(value, dict):
            found += value.values()
        elif isinstance(value, list):
            found += value
        elif isinstance(value, (int, float)) and not abs(value) <= MAX_NUMBER:
            raise ValueError(f"its model_args have a number beyond {MAX_NUMBER}")
    return {key: value for key, value in arguments.items() if value is not None}


def _check_config(config: dict[str, Any]) -> None:
    """Raise ValueError or TypeError unless the preprocessing and the classes can be used."""
    from featuretl.backbones.preprocess import Preprocessing

    found = Preprocessing.of(config)
    channels, *size = found.input_size
    facts = {
        "input_size": channels == 3
        and len(size) == 2
        and all(isinstance(n, int) and 0 < n <= MAX_INPUT for n in size),
        "mean": len(found.mean) == 3 and all(map(math.isfinite, found.mean)),
        "std": len(found.std) == 3 and all(0 < value < math.inf for value in found.std),
        "crop_pct": 0.1 <= found.crop_pct <= 2,
        "crop_mode": found.crop_mode in ("center", "border", "squash"),
        "interpolation": found.interpolation in ("bicubic", "bilinear", "lanczos"),
        "num_classes": isinstance(n := config["num_classes"], int) and 0 <= n <= MAX_NUMBER,
    }
    wrong = [name for name, is_right in facts.items() if not is_right]
    if wrong:
        raise ValueError(f"its {', '.join(wrong)} cannot be used")


def _structure(model: Any) -> tuple[str, list[str]]:
    """Return the modules of a network and their global poolings, as text."""
    return str(model), [str(getattr(part, "global_pool", "")) for part in model.modules()]
