"""explain: evidence is exact where possible, lies on the object and names its method."""

from collections import Counter

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featuretl import (
    FineTuneClassifier,
    ImageEmbedder,
    LinearProbeClassifier,
    LinearProbeRegressor,
    NearestMeanClassifier,
    explain,
)
from featuretl.exceptions import BackboneError, ImageError, InputError, ModelError, ParameterError
from featuretl.explanation import Explanation
from featuretl.networks.network import network_of

SMALL = {"weights": "random", "cache": None}
CAM, HIRESCAM, ROLLOUT = "class activation map", "HiResCAM", "gradient attention rollout"


@pytest.fixture(scope="module")
def labels(photos):
    return [path.split("/")[-2] for path in photos]


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


def small(head, photos, y, backbone="test_resnet", **parameters):
    embedder = ImageEmbedder(backbone, **SMALL, **parameters)
    return make_pipeline(embedder, head).fit(photos, y)


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


def test_several_layers_and_classes_add_up(photos):
    y = [str(i % 3) for i in range(24)]
    model = small(LinearProbeClassifier(), photos, y, layers=[1, "pre_logits", 1], pooling="avg")
    (found,) = explain(model, photos[:1], target="2")
    assert_adds_up(found)
    assert found.score == pytest.approx(model.decision_function(photos[:1])[0, 2], rel=1e-4)
    for target in (2, 2.0, np.int64(2)):  # a class matches by value, then by text
        assert explain(model, photos[:1], target=target)[0].target == "2"


def test_numbers_and_labels(photos):
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


@pytest.mark.parametrize(
    "head, parameters",
    [
        (NearestMeanClassifier(), {}),
        (LinearProbeClassifier(), {"normalize": True}),
        (LinearProbeClassifier(), {"pooling": "gem"}),
        (LinearProbeClassifier(), {"backbone": "test_convnext"}),  # normalises after pooling
    ],
)
def test_otherwise_it_is_the_slope_along_the_map(head, parameters, photos, labels):
    """The mean of map times gradient is the derivative of the score with respect to the map's scale."""
    model = small(head, photos, labels, **parameters)
    (found,) = explain(model, photos[:1], target="temple")
    assert found.method == HIRESCAM and found.bias is None
    network = network_of(model, "cpu")
    with torch.no_grad():
        ((index, x),) = network.embedding.outputs(network.batch(photos[:1])).items()
        more, less = (
            network.head(network.embedding.pooled({index: x * by})) for by in (1.01, 0.99)
        )
    slope = float(more - less) / 0.02
    assert found.heat.mean() == pytest.approx(slope, rel=0.02, abs=2e-3)


@pytest.mark.parametrize("pooling", ["auto", "avg", "cls+avg"])
def test_rollout_of_a_vision_transformer(pooling, photos, labels):
    model = small(LinearProbeClassifier(), photos, labels, backbone="test_vit", pooling=pooling)
    before = model[0].transform(photos[:1])
    (found,) = explain(model, photos[:1])
    assert found.method == ROLLOUT
    assert found.heat.shape == (10, 10) and found.heat.min() >= 0 and found.heat.max() > 0
    assert explain(model, photos[1:2])[0].heat.tolist() != found.heat.tolist()
    np.testing.assert_array_equal(model[0].transform(photos[:1]), before)


def test_rollout_is_attention_times_its_slope(photos, labels):
    """The last layer alone is compared with differences of the score under changed attention."""
    from featuretl.explanation.evidence import attention_layers, rollout

    model = small(LinearProbeClassifier(), photos, labels, backbone="test_vit")
    network = network_of(model, "cpu")
    layer = attention_layers(network.embedding.model)[-1]
    batch, weight = network.batch(photos[:1]), torch.ones(1)
    found = rollout(network, batch, weight, [layer]).ravel()
    layer.fused_attn = False
    patch, step = int(found.argmax()), 1e-2
    attention = []

    def value(head, by):
        def change(module, args, output):
            attention.append(output[0, :, 0, 1 + patch])
            output = output.clone()
            output[0, head, 0, 1 + patch] += by
            return output

        hook = layer.attn_drop.register_forward_hook(change)
        changed = float(network.values(batch)[0, 0])
        hook.remove()
        return changed

    heads = range(layer.num_heads)
    slopes = [(value(head, step) - value(head, -step)) / (2 * step) for head in heads]
    expected = np.maximum(np.array(slopes) * attention[0].numpy(), 0).mean()
    assert found[patch] == pytest.approx(expected, rel=0.02)


def test_a_single_image_needs_no_list(model, photos):
    (alone,), (listed,) = explain(model, photos[0]), explain(model, photos[:1])
    assert alone.score == listed.score
    assert len(repr(alone).splitlines()) < 6


def test_what_cannot_be_explained_is_refused_in_one_sentence(model, photos, labels, tmp_path):
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
