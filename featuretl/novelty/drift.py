"""The result of a test of whether the number of novel images exceeds the false-positive rate."""

from __future__ import annotations

from dataclasses import dataclass

SIGNIFICANCE = 0.001


@dataclass(repr=False, frozen=True)
class Drift:
    """The number of novel images, and the number expected without drift.

    Attributes
    ----------
    images : int
    novel : int
        The number of images whose novelty is at least 1 - `level`.
    expected : float
        The number expected among images like the training images; 0 if there were too few training
        images for any image to be novel.
    level : float
    pvalue : float in [0, 1]
        The probability of at least `novel` novel images without drift.
    can_tell : bool
        Whether the test can detect drift at all; False with few images or draws.
    """

    images: int
    novel: int
    expected: float
    level: float
    pvalue: float
    can_tell: bool

    @property
    def is_clear(self) -> bool:
        """Whether the p-value is below 0.001."""
        return self.pvalue < SIGNIFICANCE

    def explain(self) -> str:
        """Return the result as a sentence."""
        if not self.expected and self.images:
            return (
                "There are too few training images to tell which images are novel at the "
                f"{100 * self.level:.3g}% level."
            )
        found = (
            f"{self.novel:,} of {self.images:,} images are unlike the training images at the "
            f"{100 * self.level:.3g}% level, where {self.expected:,.1f} are expected"
        )
        if not self.can_tell and self.images:
            return f"{found}: too few images or groups to tell whether the images have changed."
        if not self.is_clear:
            return f"{found}: no clear sign that the images have changed."
        chance = f"p = {self.pvalue:.1g}" if self.pvalue >= 1e-6 else "p < 1e-6"
        return (
            f"{found}: the images may have changed ({chance} for independent images; images of one "
            "series or person are weaker evidence)."
        )

    __repr__ = explain
