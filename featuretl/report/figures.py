"""Matplotlib's figures as SVG inside a page: its colours and its font are the page's."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

from featuretl._core.parameters import import_pyplot

# Placeholders for colours of the page, which differ in light and in dark.
_INK, _FAINT = "#010203", "#040506"
ACCENT = "#4c7df0"
_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "text.usetex": False,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _FAINT,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "axes.prop_cycle": f"cycler('color', ['{ACCENT}', '#e0803a', '#3f9f6b'])",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "grid.color": _FAINT,
    "xtick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.color": _FAINT,
    "ytick.labelcolor": _INK,
    "legend.frameon": False,
    "font.size": 10,
}


def svg(draw: Callable[[Any], Any], label: str, size: tuple[float, float] = (6.0, 4.0)) -> str:
    """Return what `draw` draws into axes as an ``<svg>`` element, described by a label, size in 100 px."""
    from markupsafe import Markup, escape

    plt = import_pyplot()
    buffer = io.StringIO()
    with plt.rc_context({**_STYLE, "svg.hashsalt": label}):
        figure, ax = plt.subplots(figsize=size, layout="constrained")
        try:
            draw(ax)
            figure.savefig(buffer, format="svg", metadata={"Date": None})
        finally:
            plt.close(figure)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<style[^>]*>.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r"font: ((?:[\w.]+ )*[\d.]+px) [^;\"]*", r"font: \1 system-ui, sans-serif", text)
    text = text.replace(_INK, "currentColor").replace(_FAINT, "var(--faint)")
    view_box = re.search(r'viewBox="[^"]*"', text)
    assert view_box is not None  # matplotlib writes one  # nosec B101
    head = Markup(
        '<svg xmlns:xlink="http://www.w3.org/1999/xlink" role="img" aria-label="{}" {} style="max-width:{}px">'
    )
    body = text[text.index(">") + 1 :]
    return Markup(
        head.format(escape(label), Markup(view_box[0]), round(100 * size[0])) + Markup(body)
    )  # nosec B704
