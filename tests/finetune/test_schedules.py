import numpy as np
import pytest

from featuretl.finetune.loop import Run, rate_factor
from featuretl.finetune.training import SCHEDULES


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup", [0.0, 0.2])
def test_factors_lie_between_0_and_1(schedule, warmup):
    training = Run(schedule=schedule, warmup=warmup, learning_rate=1.0, epochs=10)
    values = [rate_factor(training, t) for t in np.linspace(0, 1, 101)]
    assert min(values) >= 0
    assert max(values) <= 1 + 1e-12
    assert max(values) == pytest.approx(1.0, abs=0.05)


def test_known_values():
    def factors(*progress, schedule, epochs=10, warmup=0.0, **settings):
        run = Run(schedule=schedule, epochs=epochs, learning_rate=1.0, warmup=warmup, **settings)
        return [rate_factor(run, t) for t in progress]

    approx = pytest.approx
    assert factors(0, 0.5, 1, schedule="cosine") == approx([1, 0.5, 0])
    assert factors(0.5, schedule="inverse-time", decay_rate=0.3, epochs=12) == approx([1 / 2.8])
    assert factors(0.5, 0.7, 0.9, schedule="step") == approx([1, 0.1, 0.01])
    assert factors(0, 0.25, 1, schedule="one-cycle") == approx([1 / 25, 1, 1e-5])
    assert factors(0.25, schedule="constant", warmup=0.5) == approx([0.5])
