"""Predictions in batches: failures have positions, and empty batches change no type."""

import numpy as np

from featuretl import FineTuneClassifier, TransferClassifier
from featuretl.prediction.predict import predict_images, use_machine


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
