"""FineTuneClassifier: scikit-learn's contract, tested without check_estimator as X holds images."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline

from featuretl import FineTuneClassifier
from featuretl.exceptions import FeatureTLWarning, InputError
from featuretl.finetune import Training

# The probe warns that it uses fewer folds, as these data sets are tiny.
pytestmark = pytest.mark.filterwarnings("ignore:LinearProbeClassifier uses")


def test_predicts_probabilities_classes_and_embeddings(fitted, photos, labels):
    proba = fitted.predict_proba(photos)
    assert proba.shape == (24, 2)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    assert (fitted.predict(photos) == fitted.classes_[proba.argmax(axis=1)]).all()
    assert fitted.score(photos, labels) >= 0.95
    margin = fitted.decision_function(photos)
    assert ((margin > 0) == (proba[:, 1] > 0.5)).all()
    embeddings = fitted.transform(photos)
    assert embeddings.shape == (24, 1280)
    assert embeddings.dtype == np.float32
    assert len(fitted.get_feature_names_out()) == 1280
    assert fitted.n_features_in_ == 1


def test_fit_changes_no_parameter_and_repeats_itself(quick, photos, labels):
    model = quick(augment="light")
    before = dict(model.get_params())
    first = model.fit(photos, labels).predict_proba(photos)
    assert model.get_params() == before
    np.testing.assert_array_equal(model.fit(photos, labels).predict_proba(photos), first)
    other = clone(model).set_params(random_state=1).fit(photos, labels).predict_proba(photos)
    assert not np.array_equal(other, first)


def test_a_batch_of_one_is_a_batch_of_many(fitted, photos):
    together = fitted.predict_proba(photos[:5])
    alone = np.concatenate([fitted.predict_proba([photo]) for photo in photos[:5]])
    np.testing.assert_allclose(alone, together, atol=1e-4)


def test_cross_validation_and_grid_search(quick, photos, labels, forwards):
    scores = cross_val_score(quick(), photos, labels, cv=2)
    assert scores.shape == (2,)
    assert scores.mean() >= 0.8
    grid = {"n_blocks": [1, 2], "training": [Training(optimizer="adam")]}
    search = GridSearchCV(quick(), grid, cv=2, n_jobs=1).fit(photos, labels)
    assert search.best_score_ >= 0.8
    assert len(forwards) <= 2 * 24  # each image once per cut at most


def test_sample_weight_counts_and_zero_is_absence_for_the_probe(quick, photos, labels):
    weight = np.r_[np.ones(12), np.full(12, 1e-6)]
    biased = quick(epochs=1, learning_rate=1e-6).fit(photos, labels, sample_weight=weight)
    plain = quick(epochs=1, learning_rate=1e-6).fit(photos, labels)
    assert biased.predict_proba(photos)[:, 0].mean() > plain.predict_proba(photos)[:, 0].mean()
    balanced = quick(epochs=1, class_weight="balanced").fit(photos[:18], labels[:18])
    assert balanced.score(photos, labels) >= 0.8


def test_works_in_a_pipeline_and_with_metadata_routing(quick, photos, labels):
    pipe = make_pipeline(quick(), LogisticRegression())
    assert pipe.fit(photos, labels).score(photos, labels) == 1.0
    groups = np.arange(24) // 2
    with sklearn.config_context(enable_metadata_routing=True):
        model = quick(learning_rate="auto", epochs=2).set_fit_request(groups=True)
        scores = cross_val_score(model, photos, labels, cv=GroupKFold(2), params={"groups": groups})
    assert scores.mean() >= 0.8


def test_frames_arrays_and_pil_images(quick, photos, labels, pixels):
    frame = pd.DataFrame({"image": photos})
    model = quick(epochs=1).fit(frame, labels)
    np.testing.assert_allclose(model.predict_proba(frame), model.predict_proba(photos), atol=1e-6)
    arrays = np.stack([pixels[i * 20 : i * 20 + 64, :64] for i in range(8)])
    model = quick(epochs=1).set_output(transform="pandas").fit(arrays, [0, 1] * 4)
    assert model.transform(arrays).shape == (8, 1280)
    assert isinstance(model.transform(arrays), pd.DataFrame)


def test_three_classes_and_a_class_with_one_image(quick, photos, labels):
    y = np.array(labels, dtype=object)
    y[0] = "rare"
    with pytest.warns(FeatureTLWarning, match="1 class"):
        model = quick().fit(photos, y.tolist())
    assert model.predict_proba(photos).shape == (24, 3)


def test_labels(quick, photos, labels):
    y = [{label, "photo"} if i % 3 else {label} for i, label in enumerate(labels)]
    model = quick().fit(photos, y)
    assert model.classes_.tolist() == ["flower", "photo", "temple"]
    proba = model.predict_proba(photos)
    assert proba.shape == (24, 3)
    is_flower = np.array(labels) == "flower"
    assert proba[is_flower, 0].min() > proba[~is_flower, 0].max()
    assert set(np.unique(model.predict(photos))) <= {0, 1}
    assert 0 <= model.score(photos, y) <= 1


def test_partial_fit_takes_more_epochs_and_more_data(quick, photos, labels):
    model = quick(epochs=1)
    model.partial_fit(photos[6:18], labels[6:18], classes=["flower", "other", "temple"])
    assert model.classes_.tolist() == ["flower", "other", "temple"]
    before = model.predict_proba(photos)
    assert (before[:, 1] < 0.5).all()
    model.partial_fit(photos, labels)
    assert model.history_["epoch"].tolist() == [1, 2]
    assert not np.array_equal(model.predict_proba(photos), before)
    assert model.score(photos, labels) == 1.0
    with pytest.raises(InputError, match=r"'palace'"):
        model.partial_fit(photos[:2], ["flower", "palace"])


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, "requires y"),
        (["flower"] * 24, "only one class"),
        (["flower"] * 3, "one entry per row"),
    ],
)
def test_targets_are_checked(quick, photos, y, message):
    with pytest.raises(InputError, match=message):
        quick().fit(photos, y)


def test_groups_are_checked(quick, photos, labels):
    with pytest.raises(InputError, match=r"groups .* 3 for 24"):
        quick().fit(photos, labels, groups=[1, 2, 3])


def test_too_few_blocks_and_training_batch_norm_are_said(quick, photos, labels):
    with pytest.raises(RuntimeError, match=r"16 blocks.*n_blocks=17"):
        quick(n_blocks=17).fit(photos, labels)
    with pytest.warns(FeatureTLWarning, match=r"batch_norm='train'.*'frozen'"):
        quick(training=Training(batch_norm="train"), epochs=1).fit(photos, labels)


def test_is_a_classifier_of_images():
    tags = FineTuneClassifier().__sklearn_tags__()
    assert tags.estimator_type == "classifier"
    assert not tags.input_tags.two_d_array
    assert tags.classifier_tags.multi_label


def test_partial_fit_finds_lists_of_labels_among_the_classes(photos, quick):
    """A batch without one of the labels has a column for it nevertheless."""
    model = quick(epochs=1)
    model.partial_fit(photos, [["a", "b"], ["c"], ["b"]] * 8)
    assert model.classes_.tolist() == ["a", "b", "c"]
    model.partial_fit(photos, [["a"], ["c"]] * 12)
    assert model.predict(photos).shape == (24, 3)
    with pytest.raises(InputError, match="'z'"):
        model.partial_fit(photos, [["a"], ["z"]] * 12)
    with pytest.raises(InputError, match="12 of 24"):
        model.partial_fit(photos, [["a"], None] * 12)
