"""Run commands in a pseudo-terminal and save its final screen as an SVG drawing.

    python docs/record.py docs/workflow.svg 'featuretl train photos/train -o model.featuretl' ..

Requires ``pip install pyte`` (a terminal emulator) and a POSIX system. The drawing shows the
output of the commands, with progress bars in their final state.
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from itertools import groupby
from pathlib import Path

import pyte
from rich.console import Console
from rich.style import Style
from rich.text import Text

COLUMNS, LINES = 104, 400
# Maps pyte's colour names to rich's where they differ.
NAMES = {"default": None, "brown": "yellow"}


def main(target: str, *commands: str) -> None:
    """Run `commands` in sequence and write a drawing of the terminal to `target`."""
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    for command in commands:
        stream.feed(f"\x1b[1;32m$\x1b[0m \x1b[1m{command}\x1b[0m\r\n".encode())
        for output in run(command):
            stream.feed(output)
        stream.feed(b"\r\n")
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    lines = [to_text(screen.buffer[y]) for y in range(screen.cursor.y)]
    while lines and not lines[-1].plain.strip():
        lines.pop()
    console.print(Text("\n").join(lines), soft_wrap=True)
    drawing = console.export_svg(title="featuretl")
    web_fonts = r"@font-face \{.*?\}\s*"
    Path(target).write_text(re.sub(web_fonts, "", drawing, flags=re.DOTALL), encoding="utf-8")


def run(command: str):
    """Run `command` in a pseudo-terminal and yield its output; exit if it fails."""
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)}
    process = subprocess.Popen(
        command, shell=True, stdin=child, stdout=child, stderr=child, env=environment
    )
    os.close(child)
    while True:
        try:
            output = os.read(parent, 65536)
        except OSError:  # Linux raises this after the last writer has closed.
            break
        if not output:
            break
        yield output
    os.close(parent)
    if process.wait():
        sys.exit(f"{command}: exit status {process.returncode}")


def to_text(row) -> Text:
    """Convert a line of the emulated screen to rich text."""
    cells = (row[x] for x in range(COLUMNS))
    runs = groupby(cells, key=lambda cell: (colour(cell.fg), cell.bold, cell.italics))
    text = Text()
    for (color, bold, italic), run_of_cells in runs:
        characters = "".join(cell.data for cell in run_of_cells)
        text.append(characters, Style(color=color, bold=bold, italic=italic))
    text.rstrip()
    return text


def colour(name: str) -> str | None:
    """Return rich's name for a pyte colour."""
    if len(name) == 6 and set(name) <= set("0123456789abcdef"):
        return f"#{name}"
    return NAMES.get(name, name.replace("bright", "bright_"))


if __name__ == "__main__":
    main(*sys.argv[1:])
