"""Which images to label: accuracy on other signers after so many labels, strategy by strategy.

    python benchmarks/labelling.py [--seeds 5] [--json]      (needs ../shared/data)

Sign-digits. Each seed holds out a fifth of the signers; of the others' photographs, batches are chosen
by `suggest_labels` and labelled, from 10 to 500 in all (1 to 50 per digit). After each batch a
`LinearProbeClassifier()` and a `NearestMeanClassifier()` learn from what is labelled; what counts is
the better of the two on average: nearest mean up to 50 labels, the probe from then on. "area" is the
mean accuracy over the logarithm of the number of labels.
"""

from __future__ import annotations

from typing import Any

import click
import numpy as np
from heads import DATA, show, signers
from sklearn.model_selection import GroupShuffleSplit

import featuretl
from featuretl import LinearProbeClassifier, NearestMeanClassifier, suggest_labels

TOTALS = (10, 20, 50, 100, 200, 350, 500)
STRATEGIES = ("random", "typiclust", "coreset", "uncertainty", "auto")
_MEANS_TO = 50


@click.command(help=__doc__)
@click.option("--seeds", default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(seeds: int, as_json: bool) -> None:
    """Run the study and print accuracies, means over the seeds."""
    if not DATA.exists():
        raise click.ClickException(f"the images are not there: {DATA}")
    signs = featuretl.load_image_folder(DATA / "sign-digits")
    X, y = featuretl.ImageEmbedder().transform(signs.data), np.asarray(signs.target)
    groups = signers(signs.data, signs.target)
    table, of_random = [], None
    for strategy in STRATEGIES:
        curves = [_curve(X, y, groups, strategy, seed) for seed in range(seeds)]
        areas = np.array([_area(curve) for curve in curves])
        of_random = areas if of_random is None else of_random
        gain = areas - of_random
        means = dict(zip(map(str, TOTALS), np.mean(curves, axis=0).tolist(), strict=True))
        error = gain.std(ddof=1) / np.sqrt(seeds)
        row = {"strategy": strategy, **means, "area": areas.mean(), "gain": gain.mean()}
        table.append(row | {"its error": error})
        click.echo(f"{strategy}: area {areas.mean():.4f}", err=True)
    show(table, as_json)


def _curve(X: Any, y: Any, groups: Any, strategy: str, seed: int) -> list[float]:
    """Return the accuracy on signers apart after each of `TOTALS` labels."""
    split = GroupShuffleSplit(1, test_size=0.2, random_state=seed).split(y, groups=groups)
    pool, test = next(split)
    rows, scores = np.empty(0, int), []
    for total in TOTALS:
        # Before there are labels of two classes, nothing is uncertain.
        first = strategy if strategy != "uncertainty" or len(rows) else "random"
        more = suggest_labels(
            X[pool], total - len(rows), first, labelled=rows, y=y[pool][rows], random_state=seed
        )
        rows = np.concatenate([rows, more])
        head = NearestMeanClassifier() if total <= _MEANS_TO else LinearProbeClassifier()
        scores.append(head.fit(X[pool][rows], y[pool][rows]).score(X[test], y[test]))
    return scores


def _area(curve: list[float]) -> float:
    where = np.log(TOTALS)
    return float(np.trapezoid(curve, where) / (where[-1] - where[0]))


if __name__ == "__main__":
    main()
