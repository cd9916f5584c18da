"""Training: the settings of fine-tuning that most fits leave as they are."""

from __future__ import annotations

from dataclasses import dataclass

from featuretl._core.parameters import check_int, check_number, check_option

OPTIMIZERS = ("sgd", "adamw", "adam", "rmsprop")
SCHEDULES = ("cosine", "one-cycle", "inverse-time", "step", "constant")
AVERAGES = ("none", "ema")
PRECISIONS = ("auto", "float32", "bfloat16")
BATCH_NORMS = ("frozen", "train")


@dataclass(frozen=True, kw_only=True)
class Training:
    """Settings of training, for the parameter `training` of `FineTuneClassifier` and `FineTuneRegressor`.

    Parameters
    ----------
    optimizer : {"sgd", "adamw", "adam", "rmsprop"}, default="sgd"
        "sgd" and "rmsprop" have momentum 0.9, "sgd" Nesterov's.
    weight_decay : float >= 0, default=1e-4
    layer_decay : float in (0, 1], default=1.0
        The learning rate of a block is that of the block above it times this.
    schedule : {"cosine", "one-cycle", "inverse-time", "step", "constant"}, default="cosine"
        How the learning rate changes; "inverse-time" is ``rate / (1 + decay_rate * epoch)``, "step"
        divides by 10 after 60% and 85% of training.
    decay_rate : float >= 0, default=1.0
        lambda of "inverse-time", per epoch.
    warmup : float in [0, 1), default=0.1
        Share of training in which the learning rate first rises from 0.
    head_epochs : int >= 0, default=0
        Epochs in which the head learns alone before the blocks join.
    unfrozen_rate : float >= 0, default=1.0
        Factor on all learning rates once the blocks have joined after `head_epochs`.
    batch_norm : {"frozen", "train"}, default="frozen"
        Keep the batch-norm statistics of pretraining, or estimate them again in the learning blocks;
        the latter raises a warning.
    validation_fraction : float in (0, 1), default=0.2
        Share of the images, or groups, of the inner split.
    average : {"none", "ema"}, default="none"
        "ema": use the exponential moving average of the weights, over about two epochs.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Of the learning part. "auto" is bfloat16 on a GPU that has it, else float32.

    Raises
    ------
    ParameterError
        If a setting has a value that is not accepted.

    Examples
    --------
    The head first, and then the last blocks at a tenth of the rate:

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
        for name, options in (
            ("optimizer", OPTIMIZERS),
            ("schedule", SCHEDULES),
            ("batch_norm", BATCH_NORMS),
            ("average", AVERAGES),
            ("precision", PRECISIONS),
        ):
            check_option("Training", name, getattr(self, name), options)
        check_int("Training", "head_epochs", self.head_epochs, 0)
        for name in ("weight_decay", "decay_rate", "unfrozen_rate"):
            check_number("Training", name, getattr(self, name), 0)
        check_number("Training", "warmup", self.warmup, 0, below=1)
        check_number("Training", "layer_decay", self.layer_decay, 0, at_most=1, open_below=True)
        check_number(
            "Training", "validation_fraction", self.validation_fraction, 0, below=1, open_below=True
        )
