"""Fitted: the parts and the kind of every form of model."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featuretl import (
    FineTuneClassifier,
    ImageEmbedder,
    LinearProbeClassifier,
    LinearProbeRegressor,
    MultiTaskHead,
    TransferClassifier,
    load_model,
    save_model,
)
from featuretl.exceptions import InputError
from featuretl.models.fitted import Fitted, is_model
from featuretl.networks.network import network_of

SMALL = {"backbone": "test_resnet", "weights": "random", "cache": None}


@pytest.fixture(scope="module")
def labels(photos):
    return [path.split("/")[-2] for path in photos]


@pytest.fixture(scope="module")
def tuned(photos, labels):
    quick = {"n_blocks": 1, "epochs": 1, "learning_rate": 0.003, "augment": "none"}
    return FineTuneClassifier(**SMALL, **quick, cache_trunk=False, random_state=0).fit(
        photos, labels
    )


@pytest.mark.parametrize(
    "head, y, kind",
    [
        (LinearProbeClassifier(), "names", "classification"),
        (make_pipeline(StandardScaler(), LogisticRegression()), "names", "classification"),
        (LinearProbeClassifier(), "indicator", "multilabel"),
        (MLPClassifier((3,), solver="lbfgs", max_iter=9), "indicator", "multilabel"),
        (LinearProbeRegressor(), "numbers", "regression"),
        (Ridge(), "numbers", "regression"),
        (MultiTaskHead(), "tasks", "multitask"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_the_kind_is_that_of_the_predictions(head, y, kind, iris):
    X, names = iris
    numbers = X[:, 0]
    indicator = np.column_stack([names == "setosa", numbers > 5]).astype(int)
    tasks = {"species": names, "width": numbers}
    targets = {"names": names, "indicator": indicator, "numbers": numbers, "tasks": tasks}
    fitted = Fitted.of(head.fit(X, targets[y]))
    assert fitted.kind == kind
    assert fitted.embedder is fitted.tuned is fitted.novelty is None
    assert fitted.gives_probabilities == (kind != "regression")
    assert Fitted.of(fitted) is fitted
    if kind == "multitask":
        assert [task.kind for task in fitted.tasks.values()] == ["classification", "regression"]
        assert fitted.tasks["width"].classes is None
    else:
        assert fitted.tasks is None
    with pytest.raises(InputError, match="must predict from images"):
        Fitted.of_images(head)


def test_a_chosen_model_has_the_parts_of_its_winner(photos, labels):
    model = TransferClassifier("linear", **SMALL, cv=2, test_size=None).fit(photos, labels)
    fitted = Fitted.of_images(model)
    assert fitted.inner is model.estimator_
    assert fitted.embedder is model.estimator_[0] and fitted.head is model.estimator_[-1]
    assert fitted.novelty is fitted.detector is model.novelty_
    assert fitted.classes.tolist() == ["flower", "temple"]
    assert Fitted.of(TransferClassifier()).embedder is None  # not fitted


def test_what_is_no_model_of_images_has_no_head_or_no_embedder(iris):
    scaler = StandardScaler().fit(iris[0])
    assert Fitted.of(scaler).head is None and not is_model(scaler)
    assert not is_model(iris[0])
    embedder = ImageEmbedder(**SMALL)
    for model in (embedder, make_pipeline(embedder, StandardScaler())):
        assert Fitted.of(model).embedder is embedder
        with pytest.raises(InputError, match="must predict from images"):
            Fitted.of_images(model)
    several = make_pipeline(embedder, KNeighborsClassifier().fit(iris[0], np.c_[iris[1], iris[1]]))
    with pytest.raises(InputError, match="KNeighborsClassifier is a multi-output classifier"):
        Fitted.of_images(several)
    with pytest.raises(InputError, match="no novelty detector"):
        _ = Fitted.of(several).detector


def test_a_head_on_a_tuned_network_is_one_model(tuned, photos, labels, tmp_path):
    """A head on `FineTuneClassifier.transform` is one model in prediction, network and file."""
    assert Fitted.of_images(tuned).embedder is Fitted.of(tuned).head is tuned
    head = LogisticRegression().fit(tuned.transform(photos), labels)
    model = make_pipeline(tuned, head)
    fitted = Fitted.of_images(model)
    assert fitted.tuned is tuned._tuned and fitted.head is head
    network = network_of(model, "cpu")
    found = network.values(network.batch(photos[:5]))[:, 0]
    np.testing.assert_allclose(found, model.decision_function(photos[:5]), atol=1e-4)
    save_model(model, tmp_path / "model.featuretl")
    twin = load_model(tmp_path / "model.featuretl")
    np.testing.assert_allclose(
        twin.predict_proba(photos[:5]), model.predict_proba(photos[:5]), atol=1e-5
    )
