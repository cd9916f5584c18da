"""The tables of gpu.py, from the contents of gpu.json."""

from __future__ import annotations

import statistics
from typing import Any

Entry = dict[str, Any]

_ENDS = ("extraction", "shards", "usual loop", "timm loader")


def markdown(content: dict[str, Any]) -> str:
    """Return the results as tables in Markdown."""
    entries = list(content["measurements"].values())
    done = [entry for entry in entries if entry["runs"]]
    parts = ["# Measured by gpu.py"]
    if content["settings"]["rehearse"]:
        parts.append("**A rehearsal with tiny sizes: no figure means anything.**")
    parts.append(_table(_machine(done)))
    parts += ["## The network alone, on batches on the device", _table(_ceilings(done))]
    parts += ["## Reading, decoding and resizing alone, all cores", _table(_decoding(done))]
    parts += ["## From images to embeddings", _table(_ends(done))]
    parts += ["## Heads and fine-tuning", _table(_training(done))]
    parts += ["## Agreement with float32 on the CPU", _table(_agreements(done))]
    parts += ["## Failed or skipped", _table(_failures(entries))]
    return "\n\n".join(parts) + "\n"


def _machine(done: list[Entry]) -> list[Entry]:
    return [
        {"what": key, "value": value}
        for entry in _of(done, "machine")
        for key, value in entry["runs"][-1].items()
    ]


def _ceilings(done: list[Entry]) -> list[Entry]:
    return [
        {
            "network": entry["network"],
            "precision": entry["precision"] + (", compiled" if entry["compiled"] else ""),
            "images/s": _median(entry),
            "batch": entry["runs"][-1]["batch"],
            "peak MiB": entry["runs"][-1]["peak_device_mib"],
            "first call, s": entry["runs"][-1].get("first_seconds"),
        }
        for entry in _of(done, "ceiling")
    ]


def _decoding(done: list[Entry]) -> list[Entry]:
    return [
        {
            "images": entry["source"],
            "images/s": _median(entry),
            "cores busy": _median(entry, "cores_busy"),
        }
        for entry in _of(done, "decoding")
    ]


def _ends(done: list[Entry]) -> list[Entry]:
    ceilings = {
        (entry["network"], entry["precision"]): _median(entry)
        for entry in _of(done, "ceiling")
        if not entry["compiled"]
    }
    usual = {
        (entry["network"], entry["source"]): _median(entry) for entry in _of(done, "usual loop")
    }
    rows = []
    for entry in _of(done, *_ENDS):
        network, rate = entry["network"], _median(entry)
        base = usual.get((network, entry["source"] if entry["source"] == "big" else "files"))
        # The other loops compute with PyTorch's defaults.
        ceiling = ceilings.get((network, entry.get("precision", "tf32")))
        rows.append(
            {
                "contender": _contender(entry),
                "network": network,
                "precision": entry.get("precision", "default"),
                "images": entry["source"],
                "rounds": len(entry["runs"]),
                "images/s": rate,
                "later": _median(entry, "later_images_per_second"),
                "to the usual loop": base and rate / base,
                "of the ceiling": ceiling and rate / ceiling,
                "device busy": _median(entry, "device_busy"),
                "cores busy": _median(entry, "cores_busy"),
                "peak MiB": _median(entry, "peak_device_mib"),
            }
        )
    return rows


def _contender(entry: Entry) -> str:
    kind = "featuretl" if entry["kind"] in ("extraction", "shards") else entry["kind"]
    workers = f", {entry['workers']} workers" if "workers" in entry else ""
    return kind + workers + (", compiled" if entry.get("runtime") == "compile" else "")


def _training(done: list[Entry]) -> list[Entry]:
    names = ("fit_seconds", "search_seconds", "seconds", "epoch_seconds")
    return [
        {
            "what": " ".join(f"{k}={v}" for k, v in entry.items() if k in _FACTS),
            **{name.replace("_seconds", ", s"): _median(entry, name) for name in names},
        }
        for entry in _of(done, "heads", "fine-tuning")
    ]


def _agreements(done: list[Entry]) -> list[Entry]:
    return [
        {
            "network": entry["network"],
            "precision": entry["precision"],
            "least cosine": f"{entry['runs'][-1]['least_cosine']:.6f}",
            "mean cosine": f"{entry['runs'][-1]['mean_cosine']:.6f}",
        }
        for entry in _of(done, "agreement")
    ]


def _failures(entries: list[Entry]) -> list[Entry]:
    return [
        {
            "measurement": " ".join(str(v) for k, v in entry.items() if k in _FACTS),
            "reason": str(entry[key]).replace("|", "\\|"),
        }
        for entry in entries
        for key in ("error", "skipped")
        if key in entry
    ]


_FACTS = (
    "kind",
    "network",
    "precision",
    "compiled",
    "source",
    "workers",
    "runtime",
    "rows",
    "cached",
)


def _of(done: list[Entry], *kinds: str) -> list[Entry]:
    return [entry for entry in done if entry["kind"] in kinds]


def _median(entry: Entry, name: str = "images_per_second") -> Any:
    values = [run[name] for run in entry["runs"] if run.get(name) is not None]
    return statistics.median(values) if values else None


def _table(rows: list[Entry]) -> str:
    if not rows:
        return "None."
    lines = [[*rows[0]], ["---"] * len(rows[0]), *([_cell(v) for v in r.values()] for r in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return str(value)
