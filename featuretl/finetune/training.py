"""Training: the settings of fine-tuning that most users leave at their defaults."""

from __future__ import annotations

from dataclasses import dataclass

from featuretl._core.parameters import check_int, check_number, check_option

SCHEDULES = ("cosine", "one-cycle", "inverse-time", "step", "constant")
_OPTIONS = {
    "optimizer": ("sgd", "adamw", "adam", "rmsprop"),
    "schedule": SCHEDULES,
    "batch_norm": ("frozen", "train"),
    "average": ("none", "ema"),
    "precision": ("auto", "float32", "bfloat16"),
}


@dataclass(frozen=True, kw_only=True)
class Training:
    """Settings for the parameter `training` of `FineTuneClassifier` and `FineTuneRegressor`.

    Parameters
    ----------
    optimizer : {"sgd", "adamw", "adam", "rmsprop"}, default="sgd"
        "sgd" (with Nesterov's method) and "rmsprop" use a momentum of 0.9.
    weight_decay : float >= 0, default=1e-4
    layer_decay : float in (0, 1], default=1.0
        The learning rate of a block is that of the block above it times this factor.
    schedule : {"cosine", "one-cycle", "inverse-time", "step", "constant"}, default="cosine"
        How the learning rate changes: "inverse-time" is ``rate / (1 + decay_rate * epoch)``, "step"
        divides the rate by 10 after 60% and 85% of training.
    decay_rate : float >= 0, default=1.0
        The decay of "inverse-time" per epoch.
    warmup : float in [0, 1), default=0.1
        The fraction of training in which the learning rate rises from 0.
    head_epochs : int >= 0, default=0
        The number of epochs in which only the head is trained.
    unfrozen_rate : float >= 0, default=1.0
        The factor on all learning rates after these `head_epochs`.
    batch_norm : {"frozen", "train"}, default="frozen"
        "frozen" keeps the batch-norm statistics of pretraining; "train" updates those of the
        trained blocks, and `fit` warns that this usually costs accuracy.
    validation_fraction : float in (0, 1), default=0.2
        The fraction of the images, or groups, that the inner split holds out.
    average : {"none", "ema"}, default="none"
        "ema" uses the exponential moving average of the weights over about two epochs.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        The precision of the trained part. "auto" is bfloat16 on a GPU that supports it, else
        float32.

    Raises
    ------
    ParameterError
        If the value of a setting is invalid.

    Examples
    --------
    Train the head alone for ten epochs, then the last blocks too at a tenth of the rate:

    >>> from featuretl import FineTuneClassifier
    >>> model = FineTuneClassifier(
    ...     head="linear",
    ...     learning_rate=0.01,
    ...     epochs=20,
    ...     training=Training(head_epochs=10, unfrozen_rate=0.1),
    ... )
    """

    optimizer: str = "sgd"
    weight_decay: float = 1e-4
    layer_decay: float = 1.0
    schedule: str = "cosine"
    decay_rate: float = 1.0
    warmup: float = 0.1
    head_epochs: int = 0
    unfrozen_rate: float = 1.0
    batch_norm: str = "frozen"
    validation_fraction: float = 0.2
    average: str = "none"
    precision: str = "auto"

    def __post_init__(self) -> None:
        for name, options in _OPTIONS.items():
            check_option("Training", name, getattr(self, name), options)
        check_int("Training", "head_epochs", self.head_epochs, 0)
        for name in ("weight_decay", "decay_rate", "unfrozen_rate"):
            check_number("Training", name, getattr(self, name), "[0, inf)")
        check_number("Training", "warmup", self.warmup, "[0, 1)")
        check_number("Training", "layer_decay", self.layer_decay, "(0, 1]")
        check_number("Training", "validation_fraction", self.validation_fraction, "(0, 1)")
