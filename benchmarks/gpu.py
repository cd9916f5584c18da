"""One command measures featuretl on a GPU, and what else could feed that GPU.

    python benchmarks/gpu.py --minutes 8 -o results            # again with the same -o: continues
    python benchmarks/gpu.py --device cpu --rehearse -o trial  # the same code on a CPU, tiny sizes

After every measurement it writes results/gpu.json and the tables of results/gpu.md.
The measurements (gpu_measure.py) run in two child processes, one for featuretl and one for the
loops that it is compared with; a measurement that fails is recorded as one line, and the others
run. They are ordered by importance: one that the remaining time does not suffice for is skipped,
and a later run with the same folder makes up for it, as for failures.

Protocol: photographs of 500 x 375 pixels and 110 KB, and of 12 megapixels, cut from two real ones
(write_photographs in extract.py); networks without packaged weights get random ones. Contenders
alternate in rounds, and the tables show medians. featuretl starts from an empty store and computes
in float32 without TF32, unless a row says bfloat16; the other loops keep PyTorch's defaults, which
use TF32 in convolutions. Imports, loading and the first batches are not timed. "later" in a row of
shards leaves out the start of the worker processes.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from gpu_plan import Measurement, Size, full, plan, rehearsal
from gpu_tables import markdown

_SLACK = 3.0  # the least limit of a measurement, in multiples of its expected seconds


class Child:
    """A process of gpu_measure.py, which starts with the first request and after a failure."""

    def __init__(self, log: Path) -> None:
        self._log, self._process = log, None  # type: Path, Any

    def ask(self, request: dict[str, Any], limit: float) -> dict[str, Any]:
        """Return the figures for a request, or an error; kill the process after `limit` seconds."""
        if self._process is None:
            script = Path(__file__).with_name("gpu_measure.py")
            pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            pipes["start_new_session"] = True  # a group, which is ended with its own children
            with self._log.open("a") as log:
                self._process = subprocess.Popen([sys.executable, str(script)], stderr=log, **pipes)
        process, killed = self._process, threading.Event()

        def stop() -> None:
            killed.set()
            _kill(process)

        timer = threading.Timer(limit, stop)
        timer.start()
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        answer = json.loads(line) if line else {"error": self._end(killed.is_set(), limit)}
        if "error" in answer:  # a device can be unusable after an error
            self.close()
        return answer

    def _end(self, killed: bool, limit: float) -> str:
        if killed:
            return f"took more than {limit:.0f} s and was ended"
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return f"the process ended with {self._process.wait()}: {lines[-1] if lines else ''}"[:500]

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            _kill(self._process)
            self._process.wait()
            self._process = None


def _kill(process: Any) -> None:
    """End a process and those that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@dataclass(eq=False)
class Results:
    """The contents of gpu.json, which is replaced after every measurement."""

    file: Path
    settings: dict[str, Any]
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path, settings: dict[str, Any]) -> Results:
        """Create the results of a folder, or continue those that it holds."""
        folder.mkdir(parents=True, exist_ok=True)
        results = cls(folder / "gpu.json", settings)
        if results.file.exists():
            known = json.loads(results.file.read_text())
            if known["settings"] != settings:
                raise click.ClickException(
                    f"{results.file} has other settings ({known['settings']}); choose another -o."
                )
            results.entries = known["measurements"]
        return results

    def lacks(self, one: Measurement) -> bool:
        """Return whether a measurement, in its round, has no figures yet."""
        return len(self.entries.get(one.id, {}).get("runs", [])) <= one.round

    def add(self, one: Measurement, answer: dict[str, Any]) -> None:
        """Add figures, an `error` or the reason why a measurement was `skipped`."""
        entry = self.entries.setdefault(one.id, {**one.facts, "runs": []})
        entry.pop("error", None)
        entry.pop("skipped", None)
        if "error" in answer or "skipped" in answer:
            entry |= answer
        else:
            entry["runs"].append(answer)
        self.save()

    def save(self) -> None:
        """Replace gpu.json and gpu.md."""
        content = {"settings": self.settings, "measurements": self.entries}
        partial = self.file.with_suffix(".partial")
        partial.write_text(json.dumps(content, indent=1) + "\n")
        partial.replace(self.file)
        self.file.with_suffix(".md").write_text(markdown(content))


@contextlib.contextmanager
def children(log: Path) -> Iterator[dict[bool, Child]]:
    """Yield the process for featuretl (False) and the one for its peers (True)."""
    both = {is_peer: Child(log) for is_peer in (False, True)}
    try:
        yield both
    finally:
        for child in both.values():
            child.close()


def photographs(size: Size) -> dict[str, list[str]]:
    """Write the photographs and the tar files, or find those of an earlier run; return the paths.

    A few are encoded; the others are these with another comment, so that every content differs.
    """
    folder = Path(tempfile.gettempdir(), f"featuretl-gpu-{size.files}-{size.big_files}")
    if not (folder / "complete").exists():
        from extract import write_photographs

        shutil.rmtree(folder, ignore_errors=True)
        kinds = (("files", size.files, (500, 375)), ("big", size.big_files, size.megapixels))
        for kind, n, pixels in kinds:
            with tempfile.TemporaryDirectory() as encoded:
                wanted = min(n, 64 if kind == "files" else 4)
                originals = write_photographs(Path(encoded), wanted, pixels)
                contents = [Path(path).read_bytes() for path in originals]
            (folder / kind).mkdir(parents=True)
            for i in range(n):
                text = f"photograph {i}".encode()
                comment = b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text
                content = contents[i % len(contents)]
                Path(folder, kind, f"{i:06d}.jpg").write_bytes(content[:2] + comment + content[2:])
        _write_tars(folder, size)
        (folder / "complete").touch()
    return {kind: sorted(map(str, (folder / kind).iterdir())) for kind in ("files", "big", "tars")}


def _write_tars(folder: Path, size: Size) -> None:
    import tarfile

    paths = sorted((folder / "files").iterdir())
    (folder / "tars").mkdir()
    for start in range(0, len(paths), size.files // size.tars):
        with tarfile.open(folder / "tars" / f"{start:06d}.tar", "w") as tar:
            for path in paths[start : start + size.files // size.tars]:
                tar.add(path, path.name)


def measure(results: Results, todo: list[Measurement], deadline: float) -> None:
    """Make all measurements that the results lack, in order, while time remains."""
    with children(results.file.with_suffix(".log")) as both:
        for one in todo:
            remaining = deadline - time.monotonic()
            failed = results.entries.get(one.id, {}).get("error")
            if (one.round and failed) or not results.lacks(one):
                continue
            if remaining < one.seconds:
                reason = f"needs about {one.seconds:.0f} s, and {max(0, remaining):.0f} s remained"
                answer = {"skipped": reason}
            else:
                limit = min(remaining + one.seconds, max(_SLACK * one.seconds, 60))
                answer = both[one.is_peer].ask(one.request, limit)
            results.add(one, answer)
            words = answer.get("error") or answer.get("skipped") or _short(answer)
            click.echo(f"{one.id} ({one.round + 1}): {words}", err=True)


def _short(answer: dict[str, Any]) -> str:
    numbers = {k: v for k, v in answer.items() if isinstance(v, (int, float))}
    return ", ".join(f"{k} {v:.5g}" for k, v in numbers.items()) or json.dumps(answer)


@click.command(help=__doc__)
@click.option("--minutes", default=8.0, show_default=True, help="Time budget.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder.")
@click.option("--device", default="cuda", show_default=True, help="Torch device.")
@click.option("--rehearse", is_flag=True, help="Tiny sizes and networks.")
def main(minutes: float, output: Path, device: str, rehearse: bool) -> None:
    """Measure, and write the results."""
    deadline = time.monotonic() + 60 * minutes
    size = rehearsal() if rehearse else full()
    results = Results.open(output, {"device": device, "rehearse": rehearse})
    results.save()
    measure(results, plan(size, photographs(size), device), deadline)
    click.echo(str(results.file.with_suffix(".md")))


if __name__ == "__main__":
    main()
