"""TransferRegressor on photographs of different brightness."""

import numpy as np
import pytest

from featuretl import TransferRegressor
from featuretl.exceptions import InputError
from featuretl.transfer import search


@pytest.fixture(scope="module")
def shades(pixels):
    """Twenty photographs and their darkness."""
    darkness = np.linspace(1, 4, 20)
    return [(pixels[:200, :200] / d).astype(np.uint8) for d in darkness], darkness


def test_the_ridge_probe_is_the_fallback(chooser, shades):
    model = chooser(kind=TransferRegressor).fit(*shades)
    assert model.strategy_ == "linear"
    assert model.decision_.outer.images == 20
    assert model.decision_.outer.score > 0.9
    assert model.score(*shades) > 0.99
    assert "r2" in model.decision_.explain()
    assert "With 200 images fine-tuning could be tried" in model.decision_.explain()


def test_all_that_can_be_tried(chooser, shades, monkeypatch):
    monkeypatch.setattr(search, "MANY_NUMBERS", 10)
    model = chooser(kind=TransferRegressor, test_size=None).fit(*shades)
    frame = model.decision_.candidates.set_index("strategy")
    assert frame["images"].to_dict() == {"linear": 20, "svm": 20, "fine-tune": 7}
    assert frame["score"].notna().all()
    assert frame["verdict"].str.startswith("chosen").sum() == 1


def test_several_numbers_per_image(chooser, shades):
    images, darkness = shades
    both = np.c_[darkness, -darkness]
    model = chooser("linear", TransferRegressor, test_size=0.25).fit(images, both)
    assert model.predict(images).shape == (20, 2)
    assert model.decision_.outer.images == 5


@pytest.mark.parametrize("strategy", ["svm", "fine-tune"])
def test_other_strategies_on_request(chooser, shades, strategy, monkeypatch):
    # After four epochs, the fit to 20 images still depends on the processor.
    monkeypatch.setattr("featuretl.transfer.experiment._EPOCHS", (12, 12))
    model = chooser(strategy, TransferRegressor, test_size=None).fit(*shades)
    assert model.strategy_ == strategy
    assert model.score(*shades) > 0.5


@pytest.mark.parametrize(
    ("y", "message"), [(None, "requires y"), ([1.0] * 20, "must vary"), ([1.0], "one entry per")]
)
def test_targets_are_checked(shades, y, message):
    with pytest.raises(InputError, match=message):
        TransferRegressor().fit(shades[0], y)
