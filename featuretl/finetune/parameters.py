"""The parameters that the fine-tuning estimators share, checked."""

from __future__ import annotations

import numbers
import os
from typing import Any

from featuretl._core.parameters import (
    check_int,
    check_number,
    check_option,
    is_bool,
    is_word,
    parameter_error,
)
from featuretl.backbones.views import STRENGTHS
from featuretl.extraction.extraction import check_parameters as check_extraction
from featuretl.finetune.training import Training


def check_parameters(estimator: Any) -> None:
    """Raise ParameterError if a parameter of a fine-tuning estimator is not accepted."""
    owner, p = type(estimator).__name__, estimator
    if not is_word(p.n_blocks, "auto", "all"):
        if isinstance(p.n_blocks, str):
            raise parameter_error(owner, "n_blocks", "an int >= 1, 'auto' or 'all'", p.n_blocks)
        check_int(owner, "n_blocks", p.n_blocks, 1)
    if not _is_head(p.head):
        raise parameter_error(owner, "head", "'probe', 'linear' or ('mlp', width >= 1)", p.head)
    if not callable(p.augment):
        check_option(owner, "augment", p.augment, ("auto", *STRENGTHS))
    if not is_word(p.cache_trunk, "auto") and not is_bool(p.cache_trunk):
        raise parameter_error(owner, "cache_trunk", "'auto', True or False", p.cache_trunk)
    for name in ("epochs", "batch_size"):
        check_int(owner, name, getattr(p, name), 1)
    if p.early_stopping is not None:
        check_int(owner, "early_stopping", p.early_stopping, 1)
    if not is_word(p.learning_rate, "auto"):
        check_number(
            owner, "learning_rate", p.learning_rate, 0, open_below=True, words=" or 'auto'"
        )
    if p.training is not None and not isinstance(p.training, Training):
        raise parameter_error(
            owner, "training", "a featuretl.finetune.Training or None", p.training
        )
    if p.time_budget is not None:
        check_number(owner, "time_budget", p.time_budget, 0, open_below=True, words=" or None")
    if p.checkpoint is not None and not isinstance(p.checkpoint, (str, os.PathLike)):
        raise parameter_error(owner, "checkpoint", "a path or None", p.checkpoint)
    check_extraction(owner, p.batch_size, p.n_jobs, "raise", "auto")


def _is_head(head: Any) -> bool:
    if isinstance(head, str):
        return head in ("probe", "linear")
    return (
        isinstance(head, (tuple, list))
        and len(head) == 2
        and head[0] == "mlp"
        and isinstance(head[1], numbers.Integral)
        and int(head[1]) >= 1
    )
