"""Predictions in batches: failures have positions, and empty batches change no type."""

import numpy as np
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from featuretl import FineTuneClassifier, ImageEmbedder, MultiTaskHead, TransferClassifier
from featuretl.prediction.predict import (
    concatenated,
    in_batches,
    predict_batch,
    predict_images,
    task_models,
    use_machine,
)


def test_a_tuned_network_names_bad_images_too(photos, labels, with_bad):
    model = FineTuneClassifier(
        "test_resnet", weights="random", n_blocks=1, learning_rate=0.003, epochs=1,
        augment="none", random_state=0,
    ).fit(photos, labels)  # fmt: skip
    found = predict_images(model, with_bad)
    assert np.flatnonzero(~found.ok).tolist() == [3, 20]
    assert [failure.index for failure in found.failures] == [3, 20]
    assert found.failures[1].message.startswith("No such file")
    np.testing.assert_array_equal(found.predicted, model.predict(photos))
    np.testing.assert_allclose(found.proba, model.predict_proba(photos), atol=1e-6)
    nothing = predict_images(model, with_bad[3:4])
    assert nothing.proba.shape == (0, 2)


def test_a_model_is_told_about_the_machine(photos, labels, tmp_path):
    chosen = TransferClassifier(
        "linear", backbone="test_resnet", weights="random", cache=None, cv=2, test_size=None
    )
    model = chosen.fit(photos, labels)
    use_machine(model, cache=tmp_path / "own", n_jobs=1, device="cpu")
    embedder = model.estimator_[0]
    assert (embedder.cache, embedder.n_jobs) == (tmp_path / "own", 1)
    model.predict(photos[:2])
    assert (tmp_path / "own").is_dir()


def test_positions_of_failures_count_from_the_first_image(tiny, with_bad, small_batches):
    found = list(in_batches(tiny, with_bad, None))
    assert [len(part.ok) for part in found] == [5, 5, 5, 5, 5, 1]
    assert [failure.index for part in found for failure in part.failures] == [3, 20]
    assert [failure.index for failure in predict_batch(tiny, with_bad, 20).failures] == [20]


def test_batches_without_a_readable_image_do_not_change_the_type(tiny, photos, with_bad):
    nothing, some = predict_images(tiny, with_bad[3:4]), predict_images(tiny, photos)
    assert not nothing.ok.any()
    predicted, proba = concatenated([nothing, some, nothing])
    assert predicted.dtype == some.predicted.dtype
    np.testing.assert_array_equal(predicted, some.predicted)
    np.testing.assert_array_equal(proba, some.proba)
    predicted, proba = concatenated([nothing, nothing])
    assert (predicted.shape, proba.shape) == ((0,), (0, 2))


def test_a_model_without_probabilities_predicts_classes(photos, labels, shared_cache, with_bad):
    embedder = ImageEmbedder("test_resnet", weights="random", cache=shared_cache)
    model = make_pipeline(embedder, LinearSVC()).fit(photos, labels)
    found = predict_images(model, with_bad)
    assert found.proba is None
    np.testing.assert_array_equal(found.predicted, model.predict(photos))
    assert predict_images(model, with_bad[3:4]).proba is None
    assert concatenated([found, found])[1] is None


def test_a_task_has_the_predictions_of_its_own_model(photos, labels, shared_cache, with_bad):
    embedder = ImageEmbedder("test_resnet", weights="random", cache=shared_cache)
    y = {"what": labels, "light": np.linspace(0, 1, 24)}
    model = make_pipeline(embedder, MultiTaskHead()).fit(photos, y)
    models, found = task_models(model), predict_images(model, with_bad)
    assert list(models) == ["what", "light"]
    for name, alone in models.items():
        of_task = found.of_task(name)
        assert of_task.failures == found.failures
        np.testing.assert_array_equal(of_task.predicted, alone.predict(photos))
    assert found.of_task("light").proba is None
    assert task_models(models["what"]) is None
