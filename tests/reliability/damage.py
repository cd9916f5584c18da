"""Kinds of file damage: truncation, zeroed ranges and flipped bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random


def truncated(data: bytes, random: Random) -> bytes:
    """Return `data` truncated at a random position."""
    return data[: random.randrange(len(data))]


def zeroed(data: bytes, random: Random) -> bytes:
    """Return `data` with a random range of bytes set to zero."""
    start = random.randrange(len(data))
    stop = random.randrange(start, len(data)) + 1
    return data[:start] + bytes(stop - start) + data[stop:]


def flipped(data: bytes, random: Random) -> bytes:
    """Return `data` with one random bit flipped."""
    at = random.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :]


DAMAGES: list[Callable[[bytes, Random], bytes]] = [truncated, zeroed, flipped]


def committed_files(store: Path) -> list[Path]:
    """Return the segment files and the index, in a reproducible order."""
    files = [*store.glob("spaces/*/*.npy"), *store.glob("spaces/*/*.keys")]
    return [*sorted(files, key=lambda path: path.stat().st_mtime_ns), store / "index.sqlite"]


def damage(path: Path, random: Random) -> str:
    """Damage a file in a random way; return the file name and the kind of damage.

    The damaged file replaces the intact one, as after a restart. Truncating it in place would raise
    SIGBUS in processes that have mapped it.
    """
    change = random.choice(DAMAGES)
    data = path.read_bytes()
    if data:
        new = path.with_name(f"{path.name}.damaged")
        new.write_bytes(change(data, random))
        new.replace(path)
    return f"{path.name} {change.__name__}"
