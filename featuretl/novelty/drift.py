"""Drift: whether more images are novel than chance explains."""

from __future__ import annotations

from dataclasses import dataclass

from scipy.stats import betabinom

# The fraction of folders of images like the training ones that are called changed.
_FALSE_ALARMS = 0.001


@dataclass(frozen=True)
class Drift:
    """How many of some images are novel, and how many are expected if nothing has changed.

    Attributes
    ----------
    images : int
    novel : int
        The number of images whose novelty reaches 1 - `level`.
    expected : float
        The number to expect among images like the training ones; 0 where these were too few for any
        to be novel.
    level : float
    pvalue : float in [0, 1]
        How often as many or more would be novel by chance.
    can_tell : bool
        Whether any number of novel images would be a clear sign; not with few images or draws.
    """

    images: int
    novel: int
    expected: float
    level: float
    pvalue: float
    can_tell: bool

    @classmethod
    def of(
        cls,
        images: int,
        novel: int,
        level: float,
        rank: int,
        n: int,
        worth: float,
        draws: int | None = None,
    ) -> Drift:
        """Test the number of novel images, of which `draws` (None: all) are independent.

        `rank` - 1 of `n` held-out training images, worth `worth` independent ones, score below the
        threshold. The number of novel images is then beta-binomial, which allows for a threshold that
        is itself estimated, where a binomial would not.
        """
        draws = images if draws is None else draws
        share, size = rank / (n + 1), (n + 1) * worth / n
        pvalue = least = 1.0
        if rank and images:
            chance = betabinom(draws, size * share, size * (1 - share))
            pvalue, least = (float(chance.sf(k - 1)) for k in (novel * draws // images, draws))
        can_tell = least < _FALSE_ALARMS
        return cls(images, novel, images * share, level, min(max(pvalue, 0.0), 1.0), can_tell)

    @property
    def is_clear(self) -> bool:
        """Whether chance would explain this in at most one of 1,000 folders."""
        return self.pvalue < _FALSE_ALARMS

    def explain(self) -> str:
        """Return what was found, in a sentence."""
        if not self.expected and self.images:
            return (
                "The training images are too few to tell which images are novel at the "
                f"{100 * self.level:.3g}% level."
            )
        found = (
            f"{self.novel:,} of {self.images:,} images are unlike the training images at the "
            f"{100 * self.level:.3g}% level, where {self.expected:,.1f} are expected"
        )
        if not self.can_tell and self.images:
            return (
                f"{found}: they are too few, or of too few groups, to tell whether images changed."
            )
        if not self.is_clear:
            return f"{found}: no clear sign that the images have changed."
        chance = f"p = {self.pvalue:.1g}" if self.pvalue >= 1e-6 else "p < 1e-6"
        return (
            f"{found}: the images may have changed ({chance}, if they are independent; "
            "ones of a series, or of one person, prove less)."
        )

    def __str__(self) -> str:
        return self.explain()
