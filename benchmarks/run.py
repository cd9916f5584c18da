"""Run benchmarks, keep their results as JSON, and write the tables of README.md from them.

    python benchmarks/run.py               every benchmark, small: does it still run?
    python benchmarks/run.py --full        the record: benchmarks/results, and the tables
    python benchmarks/run.py heads --full  one of them
    python benchmarks/run.py --tables      write the tables again
    python benchmarks/run.py --stale       name the records whose code has changed since

A record has the rows that the script printed, and its processor, versions, date and commit. In
README.md a table stands between `<!-- record: NAME -->` (or `NAME 2` for the second table of a
script) and `<!-- end -->`. Small runs go to build/benchmarks and change no table. Most benchmarks
need the data sets in ../shared/data.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import re
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import click

HERE = Path(__file__).resolve().parent
ROOT, RESULTS, README = HERE.parent, HERE / "results", HERE / "README.md"
SMALL_RESULTS = ROOT / "build" / "benchmarks"
PACKAGES = ("torch", "timm", "scikit-learn", "numpy", "onnxruntime")
PHOTOS = ROOT.parent / "shared" / "data" / "hymenoptera"

_MARK = re.compile(r"(<!-- record: ([\w.-]+)(?: (\d))? -->\n).*?(<!-- end -->)", re.DOTALL)


class Benchmark(NamedTuple):
    """The arguments of a full run, those of a small one, and the folders it measures."""

    full: str
    small: str
    code: str


BENCHMARKS = {
    "commands": Benchmark(
        f"commands.py {PHOTOS}/train {PHOTOS}/val",
        f"commands.py {PHOTOS}/train {PHOTOS}/val --repeat 1",
        "cli featuretl",
    ),
    "few": Benchmark("head_speed.py few", "head_speed.py few --repeats 1", "featuretl/heads"),
    "wide": Benchmark(
        "head_speed.py memory --rows 100000 --classes 1000",
        "head_speed.py memory --rows 2000 --classes 100",
        "featuretl/heads",
    ),
    "choices": Benchmark("choices.py --last", "choices.py --tasks 2", "featuretl"),
    "heads": Benchmark("heads.py quality", "heads.py quality", "featuretl/heads"),
    "tasks": Benchmark("tasks.py", "tasks.py", "featuretl/heads"),
    "novelty": Benchmark(
        "novelty.py calibration", "novelty.py calibration --seeds 2", "featuretl/novelty"
    ),
    "intervals": Benchmark(
        "intervals.py scores", "intervals.py scores --samples 20", "featuretl/_learning"
    ),
    "predict": Benchmark("predict.py", "predict.py --images 2000", "featuretl/prediction"),
    "warm": Benchmark("warm.py", "warm.py --images 2000 --repeats 1", "featuretl/store"),
}


@click.command(help=__doc__)
@click.argument("names", nargs=-1, type=click.Choice(list(BENCHMARKS)))
@click.option("--full", is_flag=True, help="Full size, for the record.")
@click.option("--tables", "only_tables", is_flag=True, help="Write the tables only.")
@click.option("--stale", "only_stale", is_flag=True, help="Name outdated records only.")
def main(names: tuple[str, ...], full: bool, only_tables: bool, only_stale: bool) -> None:
    """Run the benchmarks named, or all."""
    if only_stale:
        for name, commits in outdated(ROOT, RESULTS).items():
            click.echo(f"{name}: {commits} commits since")
        return
    for name in () if only_tables else names or BENCHMARKS:
        began = time.monotonic()
        record = run(name, full)
        folder = RESULTS if full else SMALL_RESULTS
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
        click.echo(f"{name}: {time.monotonic() - began:.0f} s")
    if full or only_tables:
        README.write_text(with_tables(README.read_text(), RESULTS))


def run(name: str, full: bool) -> dict[str, Any]:
    """Return the record of a benchmark, run in its own process; its errors end this one."""
    script, *arguments = (BENCHMARKS[name].full if full else BENCHMARKS[name].small).split()
    command = [sys.executable, str(HERE / script), *arguments, "--json"]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    changed = "-dirty" if _git(ROOT, "status", "--porcelain", "--", *_code(name)) else ""
    return {
        "command": f"python benchmarks/{script} {' '.join(map(_short, arguments))}".strip(),
        "date": datetime.date.today().isoformat(),
        "commit": _git(ROOT, "rev-parse", "--short", "HEAD") + changed,
        "processor": f"{os.cpu_count()} cores {_processor()}",
        "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
        "tables": tables_in(printed),
    }


def tables_in(printed: str) -> list[list[dict[str, Any]]]:
    """Return the JSON lists that a script printed one after the other."""
    tables, start = [], 0
    while printed[start:].strip():
        start += len(printed[start:]) - len(printed[start:].lstrip())
        table, start = json.JSONDecoder().raw_decode(printed, start)
        tables.append(table)
    return tables


def with_tables(text: str, results: Path) -> str:
    """Return a page with its tables written from the records in a folder."""

    def written(match: re.Match[str]) -> str:
        begin, name, number, end = match.groups()
        record = json.loads((results / f"{name}.json").read_text())
        return f"{begin}\n{markdown(record, int(number or 1) - 1)}\n{end}"

    return _MARK.sub(written, text)


def markdown(record: dict[str, Any], number: int) -> str:
    """Return a table of a record and the line that says where it comes from."""
    table = record["tables"][number]
    columns = list(dict.fromkeys(column for row in table for column in row))
    lines = [columns, ["---"] * len(columns)]
    lines += [[_cell(row.get(column, "")) for column in columns] for row in table]
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    source = (
        f"`{record['command']}`, {record['date']}, commit {record['commit']}, on "
        f"{record['processor']}; {versions}."
    )
    rows = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"{rows}\n\n{source}\n"


def outdated(root: Path, results: Path) -> dict[str, int]:
    """Return the records whose code has changed, and in how many commits."""
    found = {}
    for file in sorted(results.glob("*.json")):
        if file.stem in BENCHMARKS:
            commit = json.loads(file.read_text())["commit"].removesuffix("-dirty")
            since = _git(root, "log", "--oneline", f"{commit}..HEAD", "--", *_code(file.stem))
            if since:
                found[file.stem] = len(since.splitlines())
    return found


def _code(name: str) -> list[str]:
    script = BENCHMARKS[name].full.split()[0]
    return [f"benchmarks/{script}", *BENCHMARKS[name].code.split()]


def _cell(value: Any) -> str:
    if value is None or value != value:  # NaN
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _short(argument: str) -> str:
    return argument.replace(f"{ROOT.parent}/", "../")


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _processor() -> str:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if "model name" in line)
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
