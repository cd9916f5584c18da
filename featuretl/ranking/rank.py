"""rank_backbones: successive halving of backbones on growing samples of the images."""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from featuretl._core.parameters import (
    check_int,
    check_option,
    is_word,
    parameter_error,
    random_generator,
)
from featuretl._core.statistics import CONFIDENCE, interval_of_share, margin, standard_error
from featuretl._core.types import Array
from featuretl._learning.folds import check_folds, fold_of_rows
from featuretl._learning.groups import equal_ones, joined, read_groups
from featuretl._learning.targets import Targets
from featuretl.backbones.catalog import PACKAGED, packaged_file
from featuretl.backbones.spec import BackboneSpec
from featuretl.exceptions import FeatureTLWarning, ImageError
from featuretl.extraction.extraction import check_parameters, describe_failures, extract
from featuretl.extraction.statistics import embedding_bar
from featuretl.images.crops import or_files
from featuretl.images.inputs import as_images, contents_of
from featuretl.ranking.methods import METHODS, FoldedTargets, score_of
from featuretl.ranking.scores import BackboneScore, read_labels
from featuretl.ranking.speed import costs_of
from featuretl.store.store import EmbeddingStore, resolve_store

_OWNER = "rank_backbones"
_MIN_IMAGES = 100
_KEY_BYTES = 32


def rank_backbones(
    X: Any,
    y: Any,
    backbones: Any = "auto",
    *,
    method: str = "probe",
    groups: Any = None,
    task: str = "auto",
    cv: Any = 5,
    finalists: int = 4,
    device: Any = "auto",
    runtime: str = "auto",
    n_jobs: int | None = None,
    cache: Any = "auto",
    random_state: Any = 0,
    verbose: int = 0,
) -> pd.DataFrame:
    """Rank backbones by how well their frozen embeddings suit a task, best first.

    New embeddings are cached in the store. More than `finalists` backbones are compared by
    successive halving (Jamieson and Talwalkar 2016, arXiv:1502.07943): all are scored on a sample
    of the images, the better half (or fewer, to keep samples large enough) on a sample of twice the
    size, and so on; only finalists embed all images.

    Parameters
    ----------
    X : sequence of n images
        See `ImageEmbedder`.
    y : array-like of shape (n,), or (n, n_outputs) for regression
        Classes, or regression targets.
    backbones : "auto", list of (str, BackboneSpec or Backbone), or dict of str to these
        Names of timm models, or backbones of `load_backbone`; the keys of a dict name them in the
        result, to compare layers and poolings. "auto": all installed packages.
    method : {"probe", "knn", "logme"}, default="probe"
        The score: the cross-validated accuracy of `LinearProbeClassifier` (R2 of
        `LinearProbeRegressor`) for "probe", or of the 5 nearest neighbours by cosine for "knn";
        `log_me` for "logme", which is cheaper, for a shortlist.
    groups : array-like of shape (n,), default=None
        Images of one group, such as a patient, stay in one fold and sample, and count as one draw.
        The default for crops is their file.
    task, cv
        As in `log_me` and `LinearProbeClassifier`; "logme" needs no folds.
    finalists : int >= 1, default=4
        Maximum number of backbones that are scored on all images; no limit with fewer than 200
        images. Samples are stratified and have at least 100 images.
    device, runtime, n_jobs, cache, verbose
        As in `extract` and `ImageEmbedder`; ``cache=None`` is a temporary store.
    random_state : int, RandomState or None, default=0
        Seed of folds and samples.

    Returns
    -------
    DataFrame of one row per backbone
        - `backbone` : name.
        - `score`, `low`, `high` : the score and its 95% interval.
        - `behind`, `tied` : the difference from the best score on the same images, and whether its
          interval includes 0.
        - `round`, `images` : the last round of the backbone, from 1, and its number of images.
          Later rounds come first.
        - `images_per_second`, `ms_per_image` : from files to embeddings on this machine, in eager
          PyTorch on the first device; measured once and cached in the store.
        - `n_features`, `cache_bytes`, `n_parameters` : the sizes of an embedding, of those of all n
          images in the store, and of the network without the classifier.

    Raises
    ------
    ParameterError, InputError
        If a parameter is invalid, lengths differ, or two folds cannot be made.
    ImageError, BackboneError, StoreError
        If images (the others are cached), a backbone or the store cannot be used.

    Warns
    -----
    FeatureTLWarning
        If other backbones are tied with the best.

    Notes
    -----
    The intervals describe the sampling of images (or groups), not the variance of training: the
    exact binomial interval at the effective number of images for accuracy, the delta method for R2,
    the closed-form jackknife for `log_me`. Differences are paired and usually have narrower
    intervals than scores. Halving may drop the best backbone if its lead is small.

    Examples
    --------
    >>> from sklearn.datasets import load_sample_images
    >>> photos = load_sample_images().images
    >>> images = [photo[:, x : x + 99] for photo in photos for x in (0, 200, 400)]
    >>> names = ["tf_efficientnet_lite0"]
    >>> frame = rank_backbones(images, [0, 0, 0, 1, 1, 1], names, cv=3, cache=None)
    >>> frame[["backbone", "images", "n_features"]].values.tolist()
    [['tf_efficientnet_lite0', 6, 1280]]
    """
    check_parameters(_OWNER, "auto", n_jobs, "raise", runtime)
    check_option(_OWNER, "method", method, METHODS)
    check_folds(_OWNER, cv)
    check_int(_OWNER, "finalists", finalists, 1)
    images = as_images(X, _OWNER)
    candidates = _candidates(backbones)
    whole = _read_targets(y, images, method, task, groups, cv, random_state)
    how = {"device": device, "runtime": runtime, "n_jobs": n_jobs}
    with ExitStack() as stack:
        store = resolve_store(cache, _OWNER)
        if store is None:  # the rounds share embeddings
            store = EmbeddingStore(stack.enter_context(tempfile.TemporaryDirectory()))
        embed = partial(_embed, images, candidates, verbose, store=store, **how)
        rng = random_generator(_OWNER, random_state)
        frame = _halve(list(candidates), whole, method, embed, finalists, rng)
        costs = pd.DataFrame(
            costs_of(candidates[name], images, store, device=device, n_jobs=n_jobs)
            for name in frame["backbone"]
        )
    frame = frame.assign(
        images_per_second=costs["images_per_second"],
        ms_per_image=1000 / costs["images_per_second"],
        cache_bytes=len(images) * (4 * frame["n_features"] + _KEY_BYTES),
        n_parameters=costs["n_parameters"],
    )
    tied = frame[frame["tied"] & (frame["round"] == frame["round"].max())]
    if len(tied):
        others = ", ".join(map(repr, tied["backbone"]))
        message = (
            f"It is not known which backbone is best: on these {frame['images'][0]:,} images, the "
            f"lead of {frame['backbone'][0]!r} over {others} is within chance at {CONFIDENCE:.0%} "
            "confidence; take the fastest of them, or rank them on more images."
        )
        warnings.warn(message, FeatureTLWarning, stacklevel=2)
    return frame


def _candidates(backbones: Any) -> dict[str, Any]:
    """Return the backbones or specs by name."""
    if is_word(backbones, "auto"):
        backbones = [name for name in PACKAGED if packaged_file(name) is not None]
    is_many = isinstance(backbones, (Sequence, Mapping)) and not isinstance(backbones, str)
    if not is_many or not backbones:
        expected = "'auto', a list of backbones or a dict of names to these"
        raise parameter_error(_OWNER, "backbones", expected, backbones)
    is_named = isinstance(backbones, Mapping)
    found = list(backbones.values() if is_named else backbones)
    found = [BackboneSpec.of(_OWNER, one) if isinstance(one, str) else one for one in found]
    specs = [getattr(one, "spec", one) for one in found]
    for one, spec in zip(found, specs, strict=True):
        if not isinstance(spec, BackboneSpec):
            raise parameter_error(_OWNER, "backbones", "names of timm models or backbones", one)
    names = list(backbones) if is_named else [spec.name for spec in specs]
    if len(set(names)) < len(names):
        expected = "a list of distinct names, or a dict of names to backbones"
        raise parameter_error(_OWNER, "backbones", expected, names)
    return dict(zip(names, found, strict=True))


def _read_targets(
    y: Any, images: Any, method: str, task: str, groups: Any, cv: Any, random_state: Any
) -> FoldedTargets:
    n = len(images)
    labels = read_labels(_OWNER, y, n, task)
    groups = read_groups(_OWNER, or_files(groups, images), n)
    groups = joined(groups, equal_ones(contents_of(images)))
    units = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    # A constant multi-label target makes folds without strata.
    strata = labels if labels.ndim == 1 else np.zeros((n, 1), int)
    targets = Targets(np.unique(strata), strata)
    fold = np.zeros(n, int)
    if method in ("probe", "knn"):
        fold = fold_of_rows(_OWNER, targets, groups, cv, random_state)
    return FoldedTargets(labels, fold, units)


def _halve(
    field: list[str], whole: FoldedTargets, method: str, embed: Any, finalists: int, rng: Any
) -> pd.DataFrame:
    """Return the rows of the result by successive halving, until at most `finalists` are left."""
    n = len(whole.y)
    wanted, possible = math.log2(len(field) / finalists), math.log2(n / _MIN_IMAGES)
    n_halvings = max(0, min(math.ceil(wanted), math.floor(possible)))
    place = _place_in_samples(whole, rng)
    table: list[pd.DataFrame] = []
    for number, halvings_left in enumerate(range(n_halvings, -1, -1), start=1):
        rows = np.flatnonzero(place < n >> halvings_left)
        targets = whole.subset(rows)
        scores, n_features = {}, {}
        for name in field:
            X = embed(rows, name)
            scores[name], n_features[name] = score_of(method, X, targets), X.shape[1]
        best_first = sorted(field, key=lambda name: -scores[name].value)
        best = scores[best_first[0]]
        field = best_first[: finalists * 2 ** (halvings_left - 1)] if halvings_left else []
        out = [name for name in best_first if name not in field]
        compared = [_comparison(scores[name], best, targets, method) for name in out]
        last_round = pd.DataFrame(compared).assign(
            round=number, images=len(rows), n_features=[n_features[name] for name in out]
        )
        last_round.insert(0, "backbone", out)
        table.insert(0, last_round)
    return pd.concat(table, ignore_index=True)


def _comparison(
    score: BackboneScore, best: BackboneScore, targets: FoldedTargets, method: str
) -> dict[str, Any]:
    """Return a score with its interval, and its difference from the best on the same images."""
    sizes = np.bincount(targets.groups)
    error, reach = standard_error(score.influence, targets.groups), margin(CONFIDENCE, len(sizes))
    low, high = score.value - reach * error, score.value + reach * error
    if method in ("probe", "knn") and not targets.is_regression:
        low, high = interval_of_share(score.value, error, CONFIDENCE, sizes)
    behind = best.value - score.value
    chance = reach * standard_error(best.influence - score.influence, targets.groups)
    tied = score is not best and behind <= chance
    return {"score": score.value, "low": low, "high": high, "behind": behind, "tied": tied}


def _place_in_samples(targets: FoldedTargets, rng: Any) -> Array:
    """Return the size (n,) that a stratified sample of groups must exceed to contain each image."""
    strata = np.zeros(len(targets.y), int) if targets.is_regression else targets.y
    images = pd.DataFrame({"stratum": strata, "group": targets.groups})
    counts = images.value_counts(["group", "stratum"], sort=False).reset_index(name="size")
    most = counts.sort_values("size", ascending=False, kind="stable").drop_duplicates("group")
    groups = most.set_index("group").sort_index()
    groups["size"] = counts.groupby("group")["size"].sum()
    groups = groups.sample(frac=1, random_state=rng)
    of_stratum = groups.groupby("stratum")["size"]
    quantile = (of_stratum.cumcount() + 0.5) / of_stratum.transform("size")
    groups = groups.loc[quantile.sort_values(kind="stable").index]
    before = groups["size"].cumsum() - groups["size"]
    return before.loc[targets.groups].to_numpy()


def _embed(
    images: Any, candidates: dict[str, Any], verbose: int, rows: Array, name: str, **how: Any
) -> Array:
    """Return the embeddings, float32 (k, d), of the images at `rows` (k,) by a candidate."""
    chosen = [images[i] for i in rows]
    with embedding_bar(len(chosen), shown=bool(verbose)) as progress:
        extraction = extract(chosen, candidates[name], on_error="nan", progress=progress, **how)
    if extraction.failures:
        remedy = "fix these images or leave them out."
        raise ImageError(describe_failures(extraction.failures, len(chosen), remedy))
    return extraction.to_numpy()
