"""History: what happened in each epoch, as a frame and as a figure."""

from __future__ import annotations

from typing import Any

from featuretl._core.parameters import import_pyplot

COLUMNS = (
    "stage",
    "n_blocks",
    "learning_rate",
    "epoch",
    "rate",
    "loss",
    "validation_loss",
    "validation_score",
    "seconds",
)


def frame(records: list[dict[str, Any]]) -> Any:
    """Return a pandas frame, one row per epoch; NaN where nothing was held out."""
    import pandas

    return pandas.DataFrame(records, columns=list(COLUMNS))


def plot(records: list[dict[str, Any]], ax: Any = None) -> Any:
    """Draw the losses of all epochs; return the matplotlib axes.

    Raises
    ------
    FeatureTLError
        If matplotlib is not installed.
    """
    plt = import_pyplot()
    ax = plt.subplots()[1] if ax is None else ax
    table = frame(records)
    for (stage, blocks, rate), run in table.groupby(["stage", "n_blocks", "learning_rate"]):
        label = f"{stage}: {blocks} blocks, rate {rate:g}"
        # Runs of the same candidate follow each other; each starts at epoch 1.
        number = (run["epoch"] == 1).cumsum()
        for _, part in run.groupby(number):
            (line,) = ax.plot(part["epoch"], part["loss"], label=label)
            if part["validation_loss"].notna().any():
                style = {"linestyle": "--", "color": line.get_color()}
                ax.plot(part["epoch"], part["validation_loss"], **style, label=f"{label}, held out")
    ax.set(xlabel="epoch", ylabel="loss")
    ax.legend()
    return ax
