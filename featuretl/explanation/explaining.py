"""explain: maps of the evidence for a model's predictions in images."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from featuretl._core.parameters import parameter_error
from featuretl._core.text import printable
from featuretl._learning.labels import codes_of
from featuretl.exceptions import BackboneError, ImageError, InputError
from featuretl.explanation.explanation import Explanation
from featuretl.explanation.linear import feature_maps
from featuretl.images.inputs import ONE_IMAGE, as_images, name_of, read
from featuretl.models.fitted import Fitted
from featuretl.prediction.predict import Progress


def explain(
    model: Any,
    X: Any,
    *,
    target: Any = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> list[Explanation]:
    """Return an `Explanation` of each image, a map of the evidence for a prediction.

    Parameters
    ----------
    model : estimator
        Fitted image model: a pipeline that begins with `ImageEmbedder`, a `TransferClassifier`,
        a `FineTuneClassifier` or their regressors.
    X : sequence of n images
        Paths, bytes, PIL images, arrays or tensors, as for `ImageEmbedder`; or one of these.
    target : object, default=None
        Class or label to explain, or its text; None explains the predicted one of each image. With
        several regression targets, the position of one, an int >= 0.
    device : str, default="auto"
        A torch device.
    progress : callable, optional
        Called with the number of finished images.

    Raises
    ------
    ImageError, InputError, ParameterError
        If an image cannot be read, or the model takes no images or has no such target.
    ModelError, BackboneError
        If the model cannot be converted to a network, or the network has neither feature maps nor
        attention over all patches.

    Notes
    -----
    *Class activation map* (Zhou et al., CVPR 2016), for linear heads, fitted or fine-tuned, on
    convolutional networks with average pooling such as EfficientNet and ResNet: the score is
    exactly ``heat.mean() + bias``. The maps of several layers are added.

    *HiResCAM* (Draelos and Carin 2020, arXiv:2011.08891), for nonlinear heads (nearest mean, RBF
    kernel, a hidden layer) or nonlinear pooling: feature map times gradient of the score. It shows
    the effect of small changes of the feature map and does not add up to the score.

    *Gradient attention rollout* (Chefer, Gur and Wolf, ICCV 2021, arXiv:2103.15679), for vision
    transformers: relevance of each patch for the score, without evidence against it.

    The default backbone has a map of 7 x 7 cells. It shows regions rather than outlines, and the
    regions that the model uses, which are not necessarily those that it should use.

    Examples
    --------
    >>> from sklearn.datasets import load_sample_images
    >>> from sklearn.pipeline import make_pipeline
    >>> from featuretl import ImageEmbedder, NearestMeanClassifier
    >>> images = load_sample_images().images
    >>> pipe = make_pipeline(ImageEmbedder(cache=None), NearestMeanClassifier())
    >>> (found,) = explain(pipe.fit(images, ["temple", "flower"]), images[:1])
    >>> found.target, found.heat.shape, found.method
    ('temple', (7, 7), 'HiResCAM')
    >>> found.overlay().size
    (640, 427)
    """
    images = as_images([X] if isinstance(X, ONE_IMAGE) else X, "explain")
    fitted = Fitted.of_images(model)
    network: Any = feature_maps(fitted, device)
    if network is not None:
        evidence_of = network.evidence
    else:
        from featuretl.explanation.evidence import evidence
        from featuretl.networks.network import network_of

        network = network_of(fitted, device)
        evidence_of = partial(evidence, network)
    found = []
    for i, image in enumerate(images):
        try:
            found.append(_explain_image(network, evidence_of, image, target))
        except ImageError as error:
            raise ImageError(f"Cannot explain {name_of(image, i)}: {error}.") from error
        if progress:
            progress(i + 1)
    return found


def _explain_image(network: Any, evidence_of: Any, image: Any, target: Any) -> Explanation:
    backbone = network.backbone
    content, least_side = read(image), backbone.preprocessing.least_side
    pixels = content.pixels()
    seen = content.pixels(least_side=least_side) if least_side else pixels
    batch = backbone.batch([backbone.prepare(seen)])
    values = network.values(batch)[0]
    chosen, weight = _resolve_target(network.head, values, target)
    heat, method, bias = evidence_of(batch, weight)
    if not np.isfinite(heat).all():
        raise BackboneError(
            f"The evidence for {printable(chosen)} is not finite; pass another target."
        )
    box = backbone.preprocessing.box(*pixels.shape[:2])
    return Explanation(image, chosen, float(values @ weight), heat, box, method, bias)


def _resolve_target(head: Any, values: np.ndarray, target: Any) -> tuple[Any, np.ndarray]:
    """Return the class, label or output of `target`, and its weights for the values, (k,)."""
    k = len(values)
    one_hot = np.eye(k, dtype=np.float32)
    if head.classes is None:
        position = _output(k, target)
        return None if k == 1 else position, one_hot[position]
    if target is None:
        value = values.round() if head.link == "votes" else values  # as `Head.chosen`
        position = int(value.argmax() if k > 1 or head.link == "labels" else value[0] > 0)
    else:
        position = _position(head.classes, target)
    if k == 1 and head.link != "labels":  # the value of the second class
        return head.classes[position], np.array([2 * position - 1], np.float32)
    return head.classes[position], one_hot[position]


def _position(classes: list[Any], target: Any) -> int:
    with suppress(InputError, ValueError):
        if np.ndim(target) == 0:
            found = codes_of("explain", np.array([target]), np.array(classes, object), "target")
            return int(found[0])
    known = printable(", ".join(map(str, classes[:20])))
    raise parameter_error("explain", "target", f"a class of the model ({known})", target)


def _output(k: int, target: Any) -> int:
    if k == 1 and target is None:
        return 0
    if str(target) not in map(str, range(k)):
        expected = "None, for one target" if k == 1 else f"the position of an output, 0 to {k - 1}"
        raise parameter_error("explain", "target", expected, target)
    return int(target)
