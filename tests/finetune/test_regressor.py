"""FineTuneRegressor: one or several numbers per image, and their weights."""

import numpy as np
import pytest
from sklearn.model_selection import cross_val_score

from featuretl import FineTuneRegressor

pytestmark = pytest.mark.filterwarnings("ignore:LinearProbeClassifier uses")


def test_regression(quick, photos, light):
    model = quick(FineTuneRegressor, epochs=3).fit(photos, light)
    assert model.predict(photos).shape == (24,)
    assert model.predict(photos).dtype == np.float32
    assert model.score(photos, light) > 0.8
    assert np.isfinite(cross_val_score(quick(FineTuneRegressor), photos, light, cv=2)).all()
    several = quick(FineTuneRegressor).fit(photos, np.c_[light, -light])
    assert several.predict(photos).shape == (24, 2)
    assert several.transform(photos).shape == (24, 1280)
    model.partial_fit(photos, light)
    assert model.history_["epoch"].tolist() == [1, 2, 3, 4, 5, 6]
    searched = quick(FineTuneRegressor, learning_rate="auto").fit(photos, light)
    assert searched.decision_


def test_a_number_without_weight_changes_nothing(quick, photos, light):
    weight, other = np.ones(24), light.copy()
    weight[0], other[0] = 0, 1e4
    model, same = (
        quick(FineTuneRegressor).fit(photos, y, sample_weight=weight) for y in (light, other)
    )
    np.testing.assert_allclose(model.predict(photos), same.predict(photos), atol=1e-4)


@pytest.mark.parametrize("bad", [[np.nan] * 24, [1.0] * 3, None])
def test_targets_of_regression_are_checked(quick, photos, bad):
    with pytest.raises(ValueError, match=r"(finite number|one entry per row|requires y)"):
        quick(FineTuneRegressor).fit(photos, bad)
