"""Training: the settings are checked when they are made."""

import dataclasses

import numpy as np
import pytest

from featuretl.exceptions import ParameterError
from featuretl.finetune import Training


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "sdg"}, "did you mean 'sgd'"),
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
        ({"layer_decay": 1.5}, "'layer_decay' .* \\(0, 1\\]"),
        ({"warmup": 1.0}, "'warmup' .* \\[0, 1\\)"),
        ({"batch_norm": True}, "'batch_norm'"),
        ({"validation_fraction": 1.0}, "'validation_fraction'"),
        ({"precision": "half"}, "'precision'"),
    ],
)
def test_settings_of_training_are_checked(settings, message):
    with pytest.raises(ParameterError, match=message):
        Training(**settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("weight_decay", -1e-9),
        ("weight_decay", np.nan),
        ("decay_rate", np.inf),
        ("unfrozen_rate", True),
        ("warmup", -0.1),
        ("layer_decay", 0),
        ("head_epochs", 1.0),
        ("validation_fraction", 0),
        ("average", None),
    ],
)
def test_values_just_outside_of_the_limits_are_refused(name, value):
    with pytest.raises(ParameterError, match=f"'{name}' parameter of Training"):
        Training(**{name: value})


def test_values_on_the_limits_are_accepted():
    limits = {"weight_decay": 0, "layer_decay": 1, "warmup": 0, "unfrozen_rate": 0}
    assert dataclasses.asdict(Training(**limits)).items() >= limits.items()


def test_settings_cannot_be_changed_to_invalid_ones():
    settings = Training()
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.schedule = "cosin"
    with pytest.raises(ParameterError, match="'schedule'"):
        dataclasses.replace(settings, schedule="cosin")
    assert settings == Training(schedule="cosine")
