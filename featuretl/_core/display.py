"""How results print: a few lines of facts in a terminal, a table in a notebook."""

from __future__ import annotations

import html
from typing import Any

from featuretl._core.text import printable


class Display:
    """A mixin for results, which print their facts as lines and as an HTML table."""

    def _facts(self) -> dict[str, Any]:
        """Return a handful of short values by name; each class defines its own."""
        raise NotImplementedError

    def __repr__(self) -> str:
        facts = "\n".join(f"  {name}: {printable(value)}" for name, value in self._facts().items())
        return f"{type(self).__name__}\n{facts}"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align: left'>{html.escape(printable(name))}</th>"
            f"<td style='text-align: left'>{html.escape(printable(value))}</td></tr>"
            for name, value in self._facts().items()
        )
        return f"<table><caption>{type(self).__name__}</caption>{rows}</table>"
