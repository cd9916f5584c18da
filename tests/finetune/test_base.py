"""What the fine-tuning estimators share: parameters, history, embeddings and the search."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from featuretl.exceptions import ParameterError
from featuretl.finetune.search import RATES

pytestmark = pytest.mark.filterwarnings("ignore:LinearProbeClassifier uses")


def test_a_search_judges_by_what_is_held_out(quick, photos, labels):
    model = quick(learning_rate="auto")
    found = model.search(photos, labels, held_out=[20, 3, 4])
    assert found.held_out.tolist() == [3, 4, 20]
    assert found.learning_rate in RATES["sgd"]
    assert found.n_blocks == 1
    assert found.losses.shape == found.scores.shape == found.probe_scores.shape == (3,)
    assert not hasattr(model, "classes_")
    again = model.search(photos, labels, held_out=[3, 4, 20])
    np.testing.assert_array_equal(found.losses, again.losses)
    assert len(model.search(photos, labels).held_out) == 5


def test_history_tells_every_epoch(fitted):
    history = fitted.history_
    assert history["epoch"].tolist() == [1, 2, 3]
    assert (history["stage"] == "fit").all()
    assert (history["n_blocks"] == 1).all()
    assert np.isfinite(history[["loss", "rate", "seconds"]]).all(axis=None)
    axes = fitted.plot_history()
    assert axes.get_xlabel() == "epoch"
    assert len(axes.lines) == 1


def test_clone_and_parameters(fitted):
    twin = clone(fitted)
    assert twin.get_params() == fitted.get_params()
    assert not any(name.endswith("_") for name in vars(twin))
    with pytest.raises(NotFittedError):
        twin.predict(["no.jpg"])
    for method in ("predict_proba", "transform", "plot_history"):
        with pytest.raises(NotFittedError):
            getattr(twin, method)(*([] if method == "plot_history" else [["no.jpg"]]))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_blocks": 0}, "'n_blocks' .* int >= 1"),
        ({"n_blocks": "some"}, "'n_blocks' .* 'auto' or 'all'"),
        ({"head": ("mlp", 0)}, "'head' .* 'probe', 'linear' or"),
        ({"learning_rate": 0}, "'learning_rate' .* a number in .* or 'auto'"),
        ({"epochs": 0}, "'epochs'"),
        ({"batch_size": 2.5}, "'batch_size'"),
        ({"augment": "much"}, "'augment'"),
        ({"cache_trunk": 1}, "'cache_trunk' .* 'auto', True or False"),
        ({"early_stopping": 0}, "'early_stopping'"),
        ({"time_budget": -1}, "'time_budget' .* or None"),
        ({"checkpoint": 3}, "'checkpoint' .* a path or None"),
        ({"n_jobs": 0}, "'n_jobs'"),
        ({"training": {"optimizer": "adam"}}, "'training' .*Training or None"),
        ({"head": ("mlp", True)}, "'head'"),
    ],
)
def test_parameters_are_checked(quick, photos, labels, parameters, message):
    with pytest.raises(ParameterError, match=message):
        quick(**parameters).fit(photos, labels)


def test_embeddings_are_the_input_of_the_head(fitted, photos):
    network = fitted._tuned.live("auto")[2]
    logits = (
        fitted.transform(photos[:6]) @ network.head.weight.numpy().T + network.head.bias.numpy()
    )
    margin = logits[:, 1] - logits[:, 0]
    np.testing.assert_allclose(fitted.decision_function(photos[:6]), margin, rtol=1e-4, atol=1e-4)


def test_the_history_has_a_line_for_each_run_and_one_for_held_out_images(quick, photos, labels):
    model = quick(early_stopping=2).fit(photos, labels)
    assert model.history_["validation_loss"].notna().all()
    lines = model.plot_history().lines
    assert [line.get_linestyle() for line in lines] == ["-", "--"]
    assert lines[0].get_color() == lines[1].get_color()
    model.partial_fit(photos, labels)
    assert model.history_["epoch"].tolist() == [1, 2, 3, 4]
    other = model.plot_history().axes
    assert model.plot_history(ax=other) is other


def test_a_search_is_not_a_fit(fitted, photos, labels):
    before = vars(fitted).copy()
    found = fitted.search(photos, labels, groups=np.arange(24) // 2)
    assert vars(fitted) == before
    groups = set(found.held_out // 2)
    assert sorted(found.held_out) == sorted([2 * g for g in groups] + [2 * g + 1 for g in groups])
    assert found.decision.endswith(("fine-tuned.", "the probe is kept."))
    assert found.worthwhile == found.decision.endswith("fine-tuned.")
