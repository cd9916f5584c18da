"""TransferMultiTask: each task is what it is alone; missing labels and wrong tasks."""

import numpy as np
import pytest
from sklearn.base import clone

from featuretl import TransferClassifier, TransferMultiTask, TransferRegressor
from featuretl.exceptions import InputError, ParameterError

pytestmark = pytest.mark.filterwarnings("ignore:LinearProbeClassifier uses")

SMALL = {"backbone": "test_resnet", "weights": "random", "test_size": 0.5}


@pytest.fixture(scope="module")
def table(photos):
    """A class and a number for each photograph; some of both are missing."""
    kind = np.array([path.split("/")[-2] for path in photos], object)
    light = np.linspace(0.0, 1.0, 24).astype(object)
    kind[[0, 13]], light[5] = None, np.nan
    return {"kind": kind, "light": light}


@pytest.fixture
def several(chooser):
    def make(**parameters):
        return chooser(kind=TransferMultiTask, **(SMALL | parameters))

    return make


def test_each_task_is_what_it_is_alone(chooser, several, photos, table):
    groups = np.arange(24) // 2
    model = several().fit(photos, table, groups=groups)
    assert model.tasks_ == {"kind": "classification", "light": "regression"}
    assert list(model.decisions_) == list(table)
    for (name, kind), one in zip(
        [("kind", TransferClassifier), ("light", TransferRegressor)],
        model.estimator_[-1].estimators_,
        strict=True,
    ):
        has = [i for i, label in enumerate(table[name]) if label is not None and label == label]
        y = table[name][has].tolist()
        own = [photos[i] for i in has], y, groups[has]
        alone = chooser("linear", kind, **SMALL).fit(*own)
        np.testing.assert_allclose(one.coef_, alone.estimator_[-1].coef_, rtol=1e-4, atol=1e-6)
        found, expected = model.decisions_[name], alone.decision_
        assert found.n_images == len(has)
        assert found.outer.score == pytest.approx(expected.outer.score)
        assert found.outer.images == expected.outer.images
    assert (model.strategy_, model.backbone_) == ("linear", "test_resnet")
    assert model.novelty_.predict(photos).shape == (24,)
    assert list(model.predict_proba(photos)) == list(model.classes_) == ["kind"]
    full = {"kind": model.predict(photos)[:, 0], "light": model.predict(photos)[:, 1]}
    assert model.score(photos, full) == 1.0


def test_the_decision_has_a_line_for_each_task(several, photos, table):
    lines = several().fit(photos, table).decision_.splitlines()
    assert [line.split(" (")[0] for line in lines] == ["kind: classification", "light: regression"]
    assert "of 22 images; accuracy" in lines[0]
    assert "of 23 images; r2" in lines[1]
    model = several(test_size=None, novelty=False).fit(photos, {"a\nb": table["kind"]})
    assert model.decision_.endswith("of 22 images; no outer score (test_size=None).")
    assert "\n" not in model.decision_
    assert not hasattr(model, "novelty_")


def test_every_image_is_embedded_once(several, photos, table, forwards):
    several(cache=None, novelty=False).fit(photos, table)
    assert len(forwards) == 24


def test_the_kind_of_a_task_can_be_asked_for(several, photos):
    y = np.c_[np.arange(24) % 3, np.arange(24) // 12]
    model = several(tasks={0: "regression"}, test_size=None).fit(photos, y)
    assert model.tasks_ == {"0": "regression", "1": "classification"}
    assert (model.decisions_["0"].score_name, model.decisions_["1"].score_name) == (
        "r2",
        "accuracy",
    )
    assert several().fit(photos, y).tasks_["0"] == "classification"


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"tasks": ["kind"]}, "tasks"),
        ({"tasks": {"colour": "regression"}}, "tasks"),
        ({"tasks": {"kind": "ranking"}}, "tasks"),
        ({"backbone": ["test_resnet", "resnet18"], "weights": "auto"}, "backbone"),
        ({"backbone": "auto", "weights": "auto"}, "backbone"),
        ({"strategy": "svm"}, "strategy"),
    ],
)
def test_wrong_parameters_are_refused(parameters, name, photos, table):
    with pytest.raises(ParameterError, match=f"'{name}' parameter of TransferMultiTask"):
        TransferMultiTask(**(SMALL | parameters)).fit(photos, table)


@pytest.mark.parametrize("column", [["a"] * 24, [None] * 24, ["a", 1] * 12])
def test_an_error_in_a_column_names_it(column, several, photos, table):
    with pytest.raises(InputError, match="'light'"):
        several().fit(photos, {"kind": table["kind"], "light": column})


def test_it_has_no_time_budget_and_is_cloned():
    model = TransferMultiTask(tasks={"a": "regression"}, cv=3)
    assert "time_budget" not in model.get_params()
    assert clone(model).get_params() == model.get_params()
    assert model.__sklearn_tags__().target_tags.multi_output
