"""TransferClassifier on few photographs."""

import numpy as np
import pandas as pd
import pytest

from featuretl import (
    FineTuneClassifier,
    TransferClassifier,
    load_backbone,
    load_image_folder,
    load_model,
    save_model,
)
from featuretl.finetune.loop import Trainer

pytestmark = pytest.mark.filterwarnings("ignore:LinearProbeClassifier uses")


def test_one_image_per_class_is_learnt_and_not_scored(chooser, photos):
    model = chooser().fit([photos[0], photos[-1]], ["a", "b"])
    assert model.strategy_ == "linear"
    assert model.decision_.outer.images == 0
    assert "It has no outer score" in model.decision_.explain()
    assert model.predict([photos[0], photos[-1]]).tolist() == ["a", "b"]


def test_fine_tuning_on_request(chooser, photos, labels):
    model = chooser("fine-tune", test_size=0.25).fit(photos, labels)
    assert isinstance(model.estimator_, FineTuneClassifier)
    assert model.estimator_.learning_rate != "auto"
    assert model.decision_.outer.images == 6
    assert "fine-tuning 3 blocks at rate" in model.decision_.explain()
    assert "The linear probe: for comparison." in model.decision_.explain()
    assert model.score(photos, labels) == 1.0


def test_the_same_seed_gives_the_same(chooser, photos, labels):
    one, two = (chooser().fit(photos[6:18], labels[6:18]) for _ in range(2))
    columns = [c for c in one.decision_.candidates if c != "seconds"]
    pd.testing.assert_frame_equal(
        one.decision_.candidates[columns], two.decision_.candidates[columns]
    )
    np.testing.assert_array_equal(one.predict_proba(photos), two.predict_proba(photos))


def test_an_interrupt_ends_it(chooser, photos, labels, monkeypatch):
    def interrupt(self, rows, x):
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        chooser("fine-tune", test_size=None).fit(photos, labels)


def test_backbones_given_as_objects_are_compared_saved_and_loaded(photo_folder, tmp_path):
    data = load_image_folder(photo_folder)
    small = load_backbone("test_vit", weights="random", image_size=96)
    other = load_backbone("test_resnet", weights="random")
    model = TransferClassifier(strategy="linear", backbone=[small, other], random_state=0)
    model.fit(data.data, data.target)
    assert model.backbone_ in ("test_vit", "test_resnet")
    own = TransferClassifier(strategy="linear", backbone=small).fit(data.data, data.target)
    save_model(own, tmp_path / "own.featuretl")
    again = load_model(tmp_path / "own.featuretl")
    np.testing.assert_allclose(again.predict_proba(data.data), own.predict_proba(data.data))
    assert again.estimator_[0].recipe()["preprocess"]["input_size"] == [3, 96, 96]
