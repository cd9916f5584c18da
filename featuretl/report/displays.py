"""Displays with scikit-learn's API: a map of embeddings, per-class scores, grids of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from featuretl._core.parameters import axes_or_new, import_pyplot
from featuretl._core.text import printable
from featuretl._core.types import Array
from featuretl._learning.labels import some_labels
from featuretl.exceptions import ImageError
from featuretl.images.inputs import as_images, name_of, read
from featuretl.report.findings import (
    class_scores,
    confident_mistakes,
    label_errors,
    near_duplicates,
)

_COMPONENTS = 50  # before t-SNE; van der Maaten and Hinton (2008) use 30
_PERPLEXITY = 30
_TSNE = {"max_iter": 500, "angle": 0.8}  # a third of the usual time, the same neighbours
_FEWEST_FOR_THREADS = 1_000


def map_of(X: Any, *, random_state: Any = 0) -> Array:
    """Return coordinates of embeddings in [0, 1], float32 (n, 2): PCA, then t-SNE if n >= 10."""
    X = np.asarray(X, np.float32)
    places = np.zeros((len(X), 2), np.float32)
    components = min(_COMPONENTS, *X.shape) if len(X) else 0
    if components and X.std(axis=0).any():
        reduced = np.asarray(PCA(components, random_state=random_state).fit_transform(X))
        if len(X) < 10:
            places[:, : min(2, components)] = reduced[:, :2]
        else:
            perplexity = min(_PERPLEXITY, (len(X) - 1) / 3)
            tsne = TSNE(perplexity=perplexity, random_state=random_state, **_TSNE)
            # For few points, threads wait for each other longer than they compute.
            with threadpool_limits(1 if len(X) < _FEWEST_FOR_THREADS else None):
                places = np.asarray(tsne.fit_transform(reduced))
    spread = np.ptp(places, axis=0).max() if len(places) else 0
    middle = (places.min(axis=0) + places.max(axis=0)) / 2 if len(places) else 0
    return (places - middle) / (spread or 1) + np.float32(0.5)


class EmbeddingMapDisplay:
    """Scatter plot of embeddings in two dimensions, one colour per class; see `from_embeddings`.

    Parameters
    ----------
    places : ndarray of shape (n, 2)
        Coordinates.
    y : array-like of shape (n,), optional
        Classes, or regression targets (floats with a fractional part). Unlabelled images are grey.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
    scatters_ : list of PathCollection

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from featuretl.report import EmbeddingMapDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> display = EmbeddingMapDisplay.from_embeddings(X, y)
    >>> display.places.shape, len(display.scatters_)
    ((150, 2), 3)
    """

    def __init__(self, places: Array, y: Any = None) -> None:
        self.places = places
        self.y = y

    @classmethod
    def from_embeddings(
        cls, X: Any, y: Any = None, *, random_state: Any = 0, ax: Any = None, **kwargs: Any
    ) -> Self:
        """Draw embeddings X (n, d): PCA to 50 components, then t-SNE from n = 10; see `plot`."""
        import_pyplot()
        return cls(map_of(X, random_state=random_state), y).plot(ax=ax, **kwargs)

    @classmethod
    def from_estimator(cls, estimator: Any, X: Any, y: Any = None, **kwargs: Any) -> Self:
        """Draw images `X`, which a transformer such as `ImageEmbedder` embeds."""
        return cls.from_embeddings(np.asarray(estimator.transform(X)), y, **kwargs)

    def plot(self, ax: Any = None, **kwargs: Any) -> Self:
        """Draw into `ax`, or into a new figure; `kwargs` are passed to `Axes.scatter`."""
        ax = axes_or_new(ax)
        style = {"s": 12, "alpha": 0.8, **kwargs}
        y = [None] * len(self.places) if self.y is None else self.y
        labels, known = some_labels(type(self).__name__, y)
        rest, labelled = self.places[~known].T, self.places[known].T
        self.scatters_ = []
        if not known.all():
            grey = {"c": "lightgrey"} if known.any() else {}
            self.scatters_.append(ax.scatter(*rest, **grey | style))
        if labels.dtype.kind == "f" and known.any():
            self.scatters_.append(ax.scatter(*labelled, c=labels, **style))
        elif known.any():
            for name in np.unique(labels):
                of_class = labelled[:, labels == name]
                self.scatters_.append(ax.scatter(*of_class, label=printable(name), **style))
            ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        ax.set(xticks=[], yticks=[], aspect="equal")
        self.ax_, self.figure_ = ax, ax.figure
        return self


class ClassScoresDisplay:
    """Precision, recall or F1 of each class with its confidence interval; see `from_predictions`.

    Parameters
    ----------
    scores : pandas.DataFrame
        Returned by `class_scores`.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
    errorbar_ : matplotlib ErrorbarContainer

    Examples
    --------
    >>> from featuretl.report import ClassScoresDisplay
    >>> display = ClassScoresDisplay.from_predictions(["a", "a", "b"], ["a", "b", "b"])
    >>> display.ax_.get_xlabel()
    'recall'
    """

    def __init__(self, scores: pd.DataFrame) -> None:
        self.scores = scores

    @classmethod
    def from_predictions(
        cls, y: Any, y_pred: Any, *, labels: Any = None, groups: Any = None,
        score: str = "recall", ax: Any = None, **kwargs: Any,
    ) -> Self:  # fmt: skip
        """Draw the scores of predictions. See `plot`, and `class_scores` for the intervals."""
        frame = class_scores(y, y_pred, labels, groups=groups)
        return cls(frame).plot(score=score, ax=ax, **kwargs)

    @classmethod
    def from_estimator(cls, estimator: Any, X: Any, y: Any, **kwargs: Any) -> Self:
        """Draw the scores of a fitted classifier on `X`; see `from_predictions`."""
        return cls.from_predictions(y, estimator.predict(X), **kwargs)

    def plot(self, score: str = "recall", ax: Any = None, **kwargs: Any) -> Self:
        """Draw one score, {"precision", "recall", "f1"}; `kwargs` are passed to `Axes.errorbar`."""
        ax = axes_or_new(ax)
        names = [score, f"{score}_low", f"{score}_high"]
        value, low, high = self.scores[names].to_numpy(np.float64).T
        around = [np.maximum(value - low, 0), np.maximum(high - value, 0)]
        rows = np.arange(len(value))
        style = {"fmt": "o", "capsize": 3, **kwargs}
        self.errorbar_ = ax.errorbar(value, rows, xerr=around, **style)
        ax.set_yticks(rows, [printable(name) for name in self.scores["class"]], parse_math=False)
        ax.invert_yaxis()
        ax.set(xlabel=score, xlim=(-0.02, 1.02))
        self.ax_, self.figure_ = ax, ax.figure
        return self


class ImageGridDisplay:
    """Grid of images with titles: mistakes, probable label errors or near-duplicates.

    Parameters
    ----------
    images : sequence of images
        Paths, bytes, PIL images, arrays or tensors.
    titles : list of str

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, (rows, columns)
    ax_, figure_ : matplotlib Axes and Figure
        The first axes, and the figure.

    Examples
    --------
    >>> from sklearn.datasets import load_sample_images
    >>> from featuretl.report import ImageGridDisplay
    >>> photos = load_sample_images().images
    >>> proba = [[0.3, 0.7], [0.2, 0.8]]
    >>> display = ImageGridDisplay.from_predictions(
    ...     photos, ["temple", "flower"], proba, classes=["flower", "temple"]
    ... )
    >>> display.titles
    ['flower, predicted temple (0.80)']
    """

    def __init__(self, images: Sequence[Any], titles: list[str]) -> None:
        self.images = images
        self.titles = titles

    @classmethod
    def from_predictions(
        cls, images: Any, y: Any, proba: Any, *, classes: Any, limit: int = 12, **kwargs: Any
    ) -> Self:
        """Show at most `limit` of the `confident_mistakes` among n images; `plot` gets `kwargs`."""
        found = confident_mistakes(y, proba, classes)[:limit]
        titles = [
            f"{row.label}, predicted {row.prediction} ({row.confidence:.2f})"
            for row in found.itertuples()
        ]
        return cls._from_rows(images, found["index"], titles, **kwargs)

    @classmethod
    def from_estimator(
        cls, estimator: Any, images: Any, y: Any, *, limit: int = 12, **kwargs: Any
    ) -> Self:
        """Show the most confident mistakes of a fitted image classifier."""
        proba, classes = estimator.predict_proba(images), estimator.classes_
        return cls.from_predictions(images, y, proba, classes=classes, limit=limit, **kwargs)

    @classmethod
    def from_label_errors(
        cls, images: Any, y: Any, proba: Any, *, classes: Any, limit: int = 12, **kwargs: Any
    ) -> Self:
        """Show probable label errors; `proba` must be out-of-fold, see `label_errors`."""
        found = label_errors(y, proba, classes)[:limit]
        titles = [f"labelled {row.label}, maybe {row.suggestion}?" for row in found.itertuples()]
        return cls._from_rows(images, found["index"], titles, **kwargs)

    @classmethod
    def from_near_duplicates(
        cls, images: Any, X: Any, *, threshold: float = 0.9, limit: int = 12, **kwargs: Any
    ) -> Self:
        """Show pairs of near-duplicates side by side; `X` (n, d) are the embeddings of `images`."""
        found = near_duplicates(X, threshold=threshold)[: limit // 2]
        rows = found[["first", "second"]].to_numpy().ravel()
        titles = [f"similarity {value:.3f}" for value in found["similarity"].repeat(2)]
        return cls._from_rows(images, rows, titles, **kwargs)

    @classmethod
    def _from_rows(cls, images: Any, rows: Any, titles: list[str], **kwargs: Any) -> Self:
        images = as_images(images, cls.__name__)
        return cls([images[int(i)] for i in rows], titles).plot(**kwargs)

    def plot(self, ax: Any = None, *, n_columns: int = 4) -> Self:
        """Draw the images in a grid that replaces `ax`, or in a new figure."""
        n_rows = max(1, -(-len(self.images) // n_columns))
        if ax is None:
            size = (2.4 * n_columns, 2.6 * n_rows)
            axes = import_pyplot().subplots(n_rows, n_columns, squeeze=False, figsize=size)[1]
        else:
            ax.axis("off")
            grid = ax.get_subplotspec().subgridspec(n_rows, n_columns)
            axes = grid.subplots(squeeze=False)
        for panel in axes.flat:
            panel.axis("off")
        for i, (panel, image, title) in enumerate(
            zip(axes.flat, self.images, self.titles, strict=False)
        ):
            try:
                panel.imshow(read(image).pixels())
            except ImageError as error:
                panel.text(0.5, 0.5, str(error), ha="center", wrap=True, parse_math=False)
                title = f"{name_of(image, i)}: {title}"
            panel.set_title(printable(title), fontsize=8, parse_math=False)
        self.axes_, self.ax_, self.figure_ = axes, axes[0, 0], axes[0, 0].figure
        return self
