"""explain: evidence is exact where possible, lies on the object and names its method."""

from collections import Counter

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featuretl import (
    FineTuneClassifier,
    ImageEmbedder,
    LinearProbeClassifier,
    LinearProbeRegressor,
    explain,
)
from featuretl.exceptions import BackboneError, ImageError, InputError, ModelError, ParameterError
from featuretl.explanation import Explanation

SMALL = {"weights": "random", "cache": None}
CAM = "class activation map"


@pytest.fixture(scope="module")
def halves(photo_folder):
    """A temple beside a flower, uint8 (200, 200, 3): two crops outside the training images."""
    from sklearn.datasets import load_sample_images

    temple, flower = load_sample_images().images
    return np.hstack([temple[100:300, 250:350], flower[120:320, 260:360]])


@pytest.fixture(scope="module")
def model(photos, labels, shared_cache):
    """Packaged weights with a scaler and logistic regression."""
    embedder = ImageEmbedder(cache=shared_cache)
    return make_pipeline(embedder, StandardScaler(), LogisticRegression()).fit(photos, labels)


def assert_adds_up(explanation):
    assert explanation.method == CAM
    share = explanation.score - explanation.bias
    assert explanation.heat.mean() == pytest.approx(share, rel=1e-4, abs=1e-4)


def test_a_class_activation_map_adds_up_to_the_decision(model, photos):
    """Zhou et al. 2016: the mean over positions is the score minus its bias."""
    images = [photos[0], photos[-1]]
    found = explain(model, images)
    assert [e.target for e in found] == ["flower", "temple"] == model.predict(images).tolist()
    decisions = model.decision_function(images)
    np.testing.assert_allclose([e.score for e in found], [-decisions[0], decisions[1]], rtol=1e-4)
    for explanation in found:
        assert explanation.heat.shape == (7, 7) and explanation.heat.dtype == np.float32
        assert_adds_up(explanation)
        assert explanation.heat.std() > 0.1 * abs(explanation.heat.mean())


def test_evidence_lies_where_the_thing_is(model, halves):
    (temple,) = explain(model, [halves], target="temple")
    (flower,) = explain(model, [halves], target="flower")
    assert temple.heat[:, :3].mean() > temple.heat[:, 4:].mean()
    assert flower.heat[:, 4:].mean() > flower.heat[:, :3].mean()
    np.testing.assert_allclose(temple.heat, -flower.heat, atol=1e-5)
    assert temple.score == pytest.approx(-flower.score)


def test_several_layers_and_classes_add_up(photos, small):
    y = [str(i % 3) for i in range(24)]
    model = small(LinearProbeClassifier(), photos, y, layers=[1, "pre_logits", 1], pooling="avg")
    (found,) = explain(model, photos[:1], target="2")
    assert_adds_up(found)
    assert found.score == pytest.approx(model.decision_function(photos[:1])[0, 2], rel=1e-4)
    for target in (2, 2.0, np.int64(2)):  # a class matches by value, then by text
        assert explain(model, photos[:1], target=target)[0].target == "2"


def test_numbers_and_labels(photos, small):
    y = np.column_stack([np.arange(24.0), np.arange(24.0) ** 2])
    model = small(LinearProbeRegressor(), photos, y)
    (found,) = explain(model, photos[:1], target=1)
    assert_adds_up(found)
    assert found.target == 1
    assert found.score == pytest.approx(model.predict(photos[:1])[0, 1], rel=1e-4)
    with pytest.raises(ParameterError, match=r"'target' parameter .* 0 to 1; got None"):
        explain(model, photos[:1])
    one = small(LinearProbeRegressor(), photos, y[:, 0])
    (found,) = explain(one, photos[:1])
    assert found.target is None and found.caption == f"{found.score:.2f}"
    labels = small(LinearProbeClassifier(), photos, (y % 2).astype(int))
    (found,) = explain(labels, photos[:1], target=1)
    assert found.score == pytest.approx(labels[1:].decision_function(labels[0].transform(photos[:1]))[0, 1], rel=1e-4)  # fmt: skip
    assert_adds_up(explain(labels, photos[:1])[0])


def test_a_fine_tuned_network_with_a_linear_head_adds_up(photos, labels):
    model = FineTuneClassifier(
        "test_resnet", **SMALL, n_blocks=1, epochs=1, learning_rate=0.003, augment="none"
    ).fit(photos, labels)
    assert_adds_up(explain(model, photos[:1])[0])


def test_a_single_image_needs_no_list(model, photos):
    (alone,), (listed,) = explain(model, photos[0]), explain(model, photos[:1])
    assert alone.score == listed.score
    assert len(repr(alone).splitlines()) < 6


def test_what_cannot_be_explained_is_refused_in_one_sentence(
    model, small, photos, labels, tmp_path
):
    bad = tmp_path / "bad\n.jpg"
    bad.write_text("<html>")
    cases = [
        (ImageError, r"Cannot explain .*bad\\n.jpg", lambda: explain(model, [photos[0], bad])),
        (ParameterError, "a class of the model .flower, temple.*got 'wasp'", lambda: explain(model, photos[:1], target="wasp")),
        (InputError, "must predict from images", lambda: explain(model[1:], photos[:1])),
    ]  # fmt: skip
    neighbours = small(KNeighborsClassifier(), photos, labels)
    cases.append((ModelError, "KNeighborsClassifier", lambda: explain(neighbours, photos[:1])))
    gem = small(LinearProbeClassifier(), photos, labels, backbone="test_vit", pooling="gem")
    cases.append((BackboneError, "'cls', 'avg'.*got 'gem'", lambda: explain(gem, photos[:1])))
    for kind, message, call in cases:
        with pytest.raises(kind, match=message) as error:
            call()
        assert Counter(str(error.value))["\n"] == 0


def test_progress_and_all_kinds_of_images(model, photos, pixels):
    done = []
    found = explain(model, [photos[0], pixels], progress=done.append)
    assert done == [1, 2]
    assert found[0].image == photos[0]
    assert isinstance(found[1], Explanation)
    assert found[1].overlay().size == (pixels.shape[1], pixels.shape[0])
