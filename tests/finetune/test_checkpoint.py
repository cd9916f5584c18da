"""TODO"""

import numpy as np
import pytest
from sklearn.base import clone

from featuretl.exceptions import InputError
from featuretl.finetune.checkpoint import Checkpoint
from featuretl.finetune.loop import Trainer
from featuretl.finetune.training import Training

pytestmark = pytest.mark.filterwarnings("ignore:LinearProbeClassifier uses")


@pytest.mark.parametrize("average", ["none", "ema"])
def test_killed_and_resumed_is_uninterrupted(quick, photos, labels, tmp_path, monkeypatch, average):
    common = {
        "epochs": 4,
        "augment": "light",
        "training": Training(average=average, optimizer="adamw"),
    }
    whole = quick(**common).fit(photos, labels).predict_proba(photos)
    model = quick(**common, checkpoint=tmp_path / "checkpoint")
    save = Checkpoint.save

    def save_and_die(self, training):
        save(self, training)
        if training["trainer"]["state"]["epoch"] == 2:
            raise MemoryError("killed")

    monkeypatch.setattr(Checkpoint, "save", save_and_die)
    with pytest.raises(MemoryError):
        model.fit(photos, labels)
    monkeypatch.undo()
    steps = []
    step = Trainer.step
    monkeypatch.setattr(Trainer, "step", lambda *a: steps.append(1) or step(*a))
    resumed = clone(model).fit(photos, labels)
    assert len(steps) == 2 * 3  # two epochs of three batches were left
    np.testing.assert_array_equal(resumed.predict_proba(photos), whole)
    assert resumed.history_["epoch"].tolist() == [1, 2, 3, 4]


def test_a_checkpoint_of_another_fit_is_refused(quick, photos, labels, tmp_path):
    quick(epochs=1, checkpoint=tmp_path).fit(photos, labels)
    with pytest.raises(InputError, match="belongs to a fit"):
        quick(epochs=1, checkpoint=tmp_path, training=Training(weight_decay=0.1)).fit(
            photos, labels
        )
    with pytest.raises(InputError, match="belongs to a fit"):
        quick(epochs=1, checkpoint=tmp_path).fit(photos, labels[::-1])
    with pytest.raises(InputError, match="labels or groups"):
        quick(epochs=1, checkpoint=tmp_path).fit(photos, labels, groups=np.arange(24) // 2)
    (tmp_path / "checkpoint.pt").write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(InputError, match=r"cannot be read .* delete it"):
        quick(epochs=1, checkpoint=tmp_path).fit(photos, labels)
