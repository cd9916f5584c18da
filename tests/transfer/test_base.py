"""What the transfer estimators share: parameters, backbones, prediction and novelty."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score

from featuretl import TransferClassifier, TransferMultiTask, TransferRegressor, list_backbones
from featuretl.exceptions import InputError, ParameterError

pytestmark = pytest.mark.filterwarnings("ignore:LinearProbeClassifier uses")


def test_it_is_a_scikit_learn_estimator(chooser, photos, labels):
    model = chooser("linear", test_size=None)
    twin = clone(model)
    assert twin.get_params() == model.get_params()
    with pytest.raises(NotFittedError):
        model.predict(photos)
    with pytest.raises(NotFittedError):
        model.classes_  # noqa: B018
    assert cross_val_score(model, np.array(photos), labels, cv=3).mean() > 0.8
    fitted = pickle.loads(pickle.dumps(model.fit(photos, labels)))
    np.testing.assert_array_equal(fitted.predict_proba(photos), model.predict_proba(photos))
    assert fitted.decision_.explain() == model.decision_.explain()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"strategy": "finetune"}, "'fine-tune'"),
        ({"backbone": []}, "'backbone' parameter"),
        ({"backbone": ["a", "a"]}, "'backbone' parameter"),
        ({"backbone": ["a", "b"], "weights": "file"}, "'weights' parameter"),
        ({"cv": 1}, "'cv' parameter"),
        ({"cv": [([0], [1])]}, "an int >= 2 or a splitter"),
        ({"test_size": 0.7}, "'test_size' parameter"),
        ({"test_size": True}, "'test_size' parameter"),
        ({"time_budget": 0}, "'time_budget' parameter"),
    ],
)
def test_parameters_are_checked(few, parameters, message):
    with pytest.raises(ParameterError, match=message):
        TransferClassifier(**parameters).fit(*few)


def test_groups_are_checked(few):
    with pytest.raises(InputError, match="groups"):
        TransferClassifier().fit(*few, groups=[1, 2])


def test_of_several_backbones_the_best_probe_is_taken(chooser, photos, labels):
    names = ["tf_efficientnet_lite0", "tf_efficientnet_lite1"]
    model = chooser(backbone=names, test_size=None).fit(photos, labels)
    frame = model.decision_.candidates
    probes = frame[frame["strategy"] == "linear"].set_index("backbone")
    assert set(probes.index) == set(names)
    assert probes["score"].idxmax() == model.backbone_
    other = next(name for name in names if name != model.backbone_)
    assert probes["verdict"][other] == f"{model.backbone_} scored higher"
    model = chooser("linear", backbone="auto", test_size=None).fit(photos, labels)
    installed = [info.name for info in list_backbones() if info.available]
    assert sorted(model.decision_.candidates["backbone"]) == sorted(installed)


def test_only_classifiers_have_probabilities(chooser, few, photos):
    for kind, has in ((TransferClassifier, True), (TransferRegressor, False)):
        y = few[1] if has else [0.0, 1, 2, 3, 4, 5]
        model = chooser("linear", kind, test_size=None, novelty=False)
        assert hasattr(model, "predict_proba") == has
        assert hasattr(model.fit(few[0], y), "predict_proba") == has
    assert hasattr(TransferMultiTask(), "predict_proba")


def test_novelty_needs_images_of_two_groups(chooser, few):
    model = chooser("linear", test_size=None).fit(*few)
    assert model.novelty_.predict(few[0]).shape == (6,)
    assert model.novelty_[0].backbone.name == model.backbone_
    assert not hasattr(model.fit(*few, groups=[0] * 6), "novelty_")
    assert not hasattr(model.set_params(novelty=False).fit(*few), "novelty_")


@pytest.mark.parametrize(
    "parameters",
    [
        {"novelty": 1},
        {"backbone": ["a", 1]},
        {"backbone": ("a", "b"), "weights": "random"},
        {"backbone": "auto", "weights": "file.safetensors"},
        {"test_size": 0},
        {"test_size": "half"},
        {"time_budget": np.inf},
        {"cv": "loo"},
    ],
)
def test_the_first_wrong_parameter_is_named(parameters, few):
    name = "weights" if "weights" in parameters else next(iter(parameters))
    with pytest.raises(ParameterError, match=f"'{name}' parameter of TransferClassifier"):
        TransferClassifier(**parameters).fit(*few)
