"""rank_backbones: which of many backbones suits these images, without embedding all with each."""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from featuretl._core.parameters import check_int, check_option, parameter_error, random_generator
from featuretl._core.statistics import CONFIDENCE, interval_of_share, margin, standard_error
from featuretl._core.types import Array
from featuretl._learning.folds import check_folds, fold_of_rows
from featuretl._learning.groups import equal_ones, joined, read_groups
from featuretl._learning.targets import Targets
from featuretl.backbones.catalog import PACKAGED, packaged_file
from featuretl.backbones.spec import BackboneSpec
from featuretl.exceptions import FeatureTLWarning, ImageError
from featuretl.extraction.extraction import check_parameters, describe_failures, extract
from featuretl.extraction.progress import embedding_bar
from featuretl.images.inputs import as_images, contents_of
from featuretl.ranking.costs import Costs, costs_of
from featuretl.ranking.methods import METHODS, Task, estimate
from featuretl.ranking.scores import Estimate, read_labels
from featuretl.store.store import EmbeddingStore, resolve_store

_OWNER = "rank_backbones"
_FEWEST_IMAGES = 100
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

    Embeddings in the store are used, those that are not are made and kept. More than `finalists`
    backbones are halved first: all are judged on a sample of the images, the better half (or fewer,
    where samples would get too small) again on one of twice the size, and so on; only the finalists
    embed all images.

    Parameters
    ----------
    X : sequence of n images
        See `ImageEmbedder`.
    y : array-like of shape (n,), or (n, n_outputs) for regression
        Classes or numbers.
    backbones : "auto", list of (str, BackboneSpec or Backbone), or dict of str to these
        Names of timm models, or what `load_backbone` returns; the keys of a dict are what the result
        calls them, so that layers and poolings can be ranked, too. "auto" is every packaged
        backbone that is installed.
    method : {"probe", "knn", "logme"}, default="probe"
        What the score is. On images held out in turn: "probe" the accuracy of
        `LinearProbeClassifier` (R2 of `LinearProbeRegressor`), "knn" that of the 5 nearest
        neighbours by cosine. On all images: "logme", which is `log_me`; it is cheaper, and serves
        to make a shortlist.
    groups : array-like of shape (n,), default=None
        Images of one group are held out, sampled and counted together: for instance all of a patient.
    task : {"auto", "classification", "regression"}, default="auto"
        "auto": numbers with a fraction are regression, the rest classification.
    cv : int >= 2, splitter or iterable of (train, test), default=5
        Folds of "probe" and "knn", as in `LinearProbeClassifier`.
    finalists : int >= 1, default=4
        How many backbones at most are judged on all images; all are where there are fewer than 200.
        Samples have 100 images at least and the shares of the classes of `y`.
    device, runtime, n_jobs
        See `extract`.
    cache : "auto", path, EmbeddingStore or None, default="auto"
        Where embeddings are kept, see `ImageEmbedder`; None keeps nothing once the ranking is made.
    random_state : int, RandomState or None, default=0
        Draws folds and samples.
    verbose : int, default=0
        1 shows a progress bar for each backbone that embeds images.

    Returns
    -------
    DataFrame of one row per backbone
        - `backbone` : its name.
        - `score`, `low`, `high` : the score and its 95% interval.
        - `behind` : how much less the score is than that of the best on the same images.
        - `tied` : whether the interval of this difference includes 0.
        - `round`, `images` : the round in which it was judged last, from 1 on, and on how many
          images. Those that went further come first.
        - `n_features` : size of an embedding.
        - `images_per_second`, `ms_per_image` : from files to embeddings on this machine, in eager
          PyTorch (on the first device); measured once, then remembered in the store.
        - `cache_bytes` : what the embeddings of all n images take.
        - `n_parameters` : classifier excluded.

    Raises
    ------
    ParameterError
        If a parameter has a value that is not accepted.
    InputError
        If `y` or `groups` does not fit X, or there are no two folds.
    ImageError
        If images cannot be read; the others are embedded and kept.
    BackboneError, StoreError
        If something cannot be used as it is.

    Warns
    -----
    FeatureTLWarning
        If it is not known which is best, because others are tied with it.

    See Also
    --------
    log_me : The score, on arrays.

    Notes
    -----
    The intervals say what other images (or groups) drawn alike would change. The accuracy is a share
    of the images held out (the exact binomial interval at the effective number of images); the errors of R2
    are its delta method's, that of `log_me` is the jackknife's in closed form
    (compared once by hand with how far halves of 2,062 photographs differ: within a tenth). The luck
    of a head's training set is not in them. Differences are of the same images in the same folds: as
    a rule they are known better than the scores. Halving saves embedding; it may drop a backbone that
    all images would have put first, the more easily the less it is behind.

    References
    ----------
    Jamieson and Talwalkar, Non-stochastic Best Arm Identification and Hyperparameter Optimization,
    AISTATS 2016 (successive halving).

    Examples
    --------
    >>> from sklearn.datasets import load_sample_images
    >>> images = [photo[:, x : x + 99] for photo in load_sample_images().images for x in (0, 200, 400)]
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
    whole = _read_task(y, images, method, task, groups, cv, random_state)
    how = {"device": device, "runtime": runtime, "n_jobs": n_jobs}
    with _store(cache) as store:
        embed = partial(_embed, images, store=store, verbose=verbose, **how)
        rounds = _halve(candidates, whole, method, embed, finalists, random_state)
        costs = {
            name: costs_of(backbone, images, store, device=device, n_jobs=n_jobs)
            for name, backbone in candidates.items()
        }
    frame = _frame(rounds, costs, len(images), method)
    tied = frame[frame["tied"] & (frame["round"] == len(rounds))]
    if len(tied):
        warnings.warn(_not_known(frame, tied), FeatureTLWarning, stacklevel=2)
    return frame


@dataclass(frozen=True)
class _Round:
    """Backbones judged on the same images; `estimates` best first, of which `kept` go on."""

    task: Task
    estimates: dict[str, Estimate]
    n_features: dict[str, int]
    kept: list[str]


def _candidates(backbones: Any) -> dict[str, Any]:
    """Return what to rank, by name."""
    if isinstance(backbones, str) and backbones == "auto":
        backbones = [name for name in PACKAGED if packaged_file(name) is not None]
    if (
        isinstance(backbones, str)
        or not isinstance(backbones, (Sequence, Mapping))
        or not backbones
    ):
        expected = "'auto', a list of backbones or a dict of names to these"
        raise parameter_error(_OWNER, "backbones", expected, backbones)
    if not isinstance(backbones, Mapping):
        names = [_spec(backbone).name for backbone in backbones]
        if len(set(names)) < len(names):
            expected = "a list of distinct names, or a dict of names to backbones"
            raise parameter_error(_OWNER, "backbones", expected, names)
        backbones = dict(zip(names, backbones, strict=True))
    specs = {name: _spec(backbone) for name, backbone in backbones.items()}
    return {
        name: specs[name] if isinstance(backbone, str) else backbone
        for name, backbone in backbones.items()
    }


def _spec(backbone: Any) -> BackboneSpec:
    """Return the spec of a name, a BackboneSpec or a Backbone."""
    if isinstance(backbone, str):
        return BackboneSpec.of(_OWNER, backbone)
    spec = getattr(backbone, "spec", backbone)
    if not isinstance(spec, BackboneSpec):
        raise parameter_error(_OWNER, "backbones", "names of timm models or backbones", backbone)
    return spec


def _read_task(
    y: Any, images: Any, method: str, task: str, groups: Any, cv: Any, random_state: Any
) -> Task:
    n = len(images)
    labels = read_labels(_OWNER, y, n, task)
    groups = joined(read_groups(_OWNER, groups, n), equal_ones(contents_of(images)))
    units = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    # Numbers are folded as labels of several to an image are: without strata.
    strata = labels if labels.ndim == 1 else np.zeros((n, 1), int)
    targets = Targets(np.unique(strata), strata)
    fold = np.zeros(n, int)
    if method in ("probe", "knn"):
        fold, _ = fold_of_rows(_OWNER, targets, groups, cv, random_state)
    return Task(labels, fold, units)


@contextmanager
def _store(cache: Any) -> Iterator[EmbeddingStore]:
    """Yield the store, or one for as long as the ranking takes: rounds share embeddings."""
    store = resolve_store(cache, _OWNER)
    if store is not None:
        yield store
        return
    with tempfile.TemporaryDirectory() as folder:
        yield EmbeddingStore(folder)


def _halve(
    candidates: Mapping[str, Any],
    whole: Task,
    method: str,
    embed: Any,
    finalists: int,
    random_state: Any,
) -> list[_Round]:
    """Judge the candidates in rounds, on more and more images, until at most `finalists` are left."""
    n, field = len(whole.y), list(candidates)
    wanted, possible = math.log2(len(field) / finalists), math.log2(n / _FEWEST_IMAGES)
    n_halvings = max(0, min(math.ceil(wanted), math.floor(possible)))
    place = _place_in_samples(whole, random_state)
    rounds: list[_Round] = []
    for halvings_left in range(n_halvings, -1, -1):
        rows = np.flatnonzero(place < n >> halvings_left)
        task = whole.taken(rows)
        estimates, n_features = {}, {}
        for name in field:
            embeddings = embed(rows, candidates[name])
            n_features[name] = embeddings.shape[1]
            estimates[name] = estimate(method, embeddings, task)
        best_first = sorted(field, key=lambda name: -estimates[name].score)
        field = best_first[: finalists * 2 ** (halvings_left - 1)] if halvings_left else []
        ordered = {name: estimates[name] for name in best_first}
        rounds.append(_Round(task, ordered, n_features, field))
    return rounds


def _place_in_samples(task: Task, random_state: Any) -> Array:
    """Return for each image (n,) how large a sample must be for it to be in it.

    Samples grow by whole groups, and in all of them each class has its share of the groups that are
    mostly its.
    """
    strata = np.zeros(len(task.y), int) if task.is_regression else task.y
    images = pd.DataFrame({"stratum": strata, "group": task.groups})
    counts = images.value_counts(["group", "stratum"], sort=False).reset_index(name="size")
    most = counts.sort_values("size", ascending=False, kind="stable").drop_duplicates("group")
    groups = most.set_index("group").sort_index()
    groups["size"] = counts.groupby("group")["size"].sum()
    groups = groups.sample(frac=1, random_state=random_generator(_OWNER, random_state))
    of_stratum = groups.groupby("stratum")["size"]
    share = (of_stratum.cumcount() + 0.5) / of_stratum.transform("size")
    groups = groups.loc[share.sort_values(kind="stable").index]
    before = groups["size"].cumsum() - groups["size"]
    return before.loc[task.groups].to_numpy()


def _embed(
    images: Sequence[Any],
    rows: Array,
    backbone: Any,
    *,
    store: EmbeddingStore,
    verbose: int,
    **how: Any,
) -> Array:
    """Return the embeddings of the images at `rows` (k,): float32 (k, d)."""
    chosen = [images[i] for i in rows]
    with embedding_bar(len(chosen), shown=bool(verbose)) as progress:
        extraction = extract(
            chosen, backbone, store=store, on_error="nan", progress=progress, **how
        )
    if extraction.failures:
        remedy = "mend these or leave them out."
        raise ImageError(describe_failures(extraction.failures, len(chosen), remedy))
    return extraction.to_numpy()


def _frame(rounds: list[_Round], costs: Mapping[str, Costs], n: int, method: str) -> pd.DataFrame:
    """Return the result, best first."""
    table = []
    for number, one in reversed(list(enumerate(rounds, start=1))):
        groups, (best, *_) = one.task.groups, one.estimates.values()
        sizes = np.bincount(groups)
        errors = margin(CONFIDENCE, len(sizes))
        for name, found in one.estimates.items():
            if name in one.kept:
                continue
            error = standard_error(found.influence, groups)
            interval = (found.score - errors * error, found.score + errors * error)
            if method in ("probe", "knn") and not one.task.is_regression:
                interval = interval_of_share(found.score, error, CONFIDENCE, sizes)
            behind = best.score - found.score
            chance = errors * standard_error(best.influence - found.influence, groups)
            table.append(
                {
                    "backbone": name,
                    "score": found.score,
                    "low": interval[0],
                    "high": interval[1],
                    "behind": behind,
                    "tied": found is not best and behind <= chance,
                    "round": number,
                    "images": len(groups),
                    "n_features": one.n_features[name],
                    "images_per_second": costs[name].images_per_second,
                    "ms_per_image": 1000 / costs[name].images_per_second,
                    "cache_bytes": n * (4 * one.n_features[name] + _KEY_BYTES),
                    "n_parameters": costs[name].n_parameters,
                }
            )
    return pd.DataFrame(table)


def _not_known(frame: pd.DataFrame, tied: pd.DataFrame) -> str:
    others = ", ".join(map(repr, tied["backbone"]))
    return (
        f"It is not known which backbone is best: on these {frame['images'][0]:,} images, "
        f"{frame['backbone'][0]!r} is ahead of {others} by no more than chance may be at "
        f"{CONFIDENCE:.0%} confidence; take the fastest of them, or rank on more images."
    )
