import numpy as np
import pytest

from featuretl.finetune.schedules import rate_factor
from featuretl.finetune.training import SCHEDULES


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup", [0.0, 0.2])
def test_factors_lie_between_0_and_1(schedule, warmup):
    factor = rate_factor(schedule, warmup, 1.0, 10)
    values = [factor(t) for t in np.linspace(0, 1, 101)]
    assert min(values) >= 0
    assert max(values) <= 1 + 1e-12
    assert max(values) == pytest.approx(1.0, abs=0.05)


def test_known_values():
    assert rate_factor("inverse-time", 0, 0.3, 12)(0.5) == pytest.approx(1 / (1 + 0.3 * 6))
    step = rate_factor("step", 0, 1, 10)
    assert [round(step(t), 3) for t in (0.5, 0.7, 0.9)] == [1.0, 0.1, 0.01]
    one_cycle = rate_factor("one-cycle", 0, 1, 10)
    assert one_cycle(0) == pytest.approx(1 / 25)
    assert one_cycle(0.25) == pytest.approx(1)
    assert one_cycle(1) == pytest.approx(1e-5)
    assert rate_factor("constant", 0.5, 1, 10)(0.25) == pytest.approx(0.5)
