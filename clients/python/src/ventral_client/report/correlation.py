"""Correlations of accuracy and Brain-Score, with two kinds of confidence interval.

Fisher's: the coefficient's inverse hyperbolic tangent is about normal, with the variance 1/(n-3) for Pearson's r and
(1 + r²/2)/(n-3) for Spearman's rank correlation r (Bonett & Wright 2000). Bootstrap: percentiles of the coefficient in
samples of the networks, drawn with replacement.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import InvalidRequest

Values: TypeAlias = npt.NDArray[np.float64]
Method = Literal["Pearson", "Spearman"]

#: Fewer networks have a coefficient that says nothing.
FEWEST: Final = 3

#: Fewer networks have no interval of Fisher's: its standard error is infinite.
FEWEST_FOR_FISHER: Final = 4

#: Fewer networks have no bootstrap: there are too few different samples of them.
FEWEST_FOR_BOOTSTRAP: Final = 8

#: Numbers that an array of the bootstrap has at most, so that many networks don't fill the memory.
_STEP: Final = 2_000_000


@dataclass(frozen=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Resampling:
    """How intervals are made."""

    confidence: float = 0.95
    """Of the intervals, between 0 and 1."""
    samples: int = 10_000
    """Of the bootstrap."""
    seed: int = 0
    """Of the bootstrap: the same numbers every time."""

    def __post_init__(self) -> None:
        """Refuses what makes no interval."""
        if not 0 < self.confidence < 1:
            raise InvalidRequest(f"the confidence is between 0 and 1, as 0.95 is, not {self.confidence}")
        if self.samples < 100:
            raise InvalidRequest(f"a bootstrap has 100 samples or more, not {self.samples}")
        if self.seed < 0:
            raise InvalidRequest(f"the bootstrap's seed is 0 or more, not {self.seed}")


@dataclass(frozen=True)
class Correlation:
    """How one panel's scores go with accuracy, in a group of networks."""

    panel: str
    group: str
    method: Method
    count: int
    """Networks in the group with an accuracy and a score."""
    coefficient: float | None
    """None: too few networks, or all with the same accuracy or score."""
    fisher: Interval | None
    """None: fewer than four networks, or the coefficient is 1 or -1."""
    bootstrap: Interval | None
    """None: fewer than eight networks."""


def correlate(
    panel: str, group: str, accuracies: Values, scores: Values, resampling: Resampling
) -> Iterator[Correlation]:
    """Pearson's and Spearman's correlation."""
    for method in _TRANSFORMATIONS:
        yield _correlate(panel, group, method, accuracies, scores, resampling)


def _correlate(
    panel: str, group: str, method: Method, accuracies: Values, scores: Values, resampling: Resampling
) -> Correlation:
    count = len(accuracies)
    coefficient = None
    fisher = bootstrap = None
    if count >= FEWEST:
        found = float(_coefficients(method, accuracies[np.newaxis], scores[np.newaxis])[0])
        coefficient = None if math.isnan(found) else found
    if coefficient is not None and count >= FEWEST_FOR_FISHER:
        fisher = fisher_interval(method, coefficient, count, resampling.confidence)
    if coefficient is not None and count >= FEWEST_FOR_BOOTSTRAP:
        bootstrap = bootstrap_interval(method, accuracies, scores, resampling)
    return Correlation(panel, group, method, count, coefficient, fisher, bootstrap)


def fisher_interval(method: Method, coefficient: float, count: int, confidence: float) -> Interval | None:
    """By Fisher's transformation, of four networks or more; none of 1 and -1, whose transform is infinite."""
    if abs(coefficient) > 1 - 1e-12:
        return None
    variance = 1 if method == "Pearson" else 1 + coefficient**2 / 2
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt(variance / (count - 3))
    centre = math.atanh(coefficient)
    return Interval(math.tanh(centre - reach), math.tanh(centre + reach))


def bootstrap_interval(
    method: Method, accuracies: Values, scores: Values, resampling: Resampling
) -> Interval:
    """Percentiles of the coefficient in samples of the networks."""
    count = len(accuracies)
    generator = np.random.default_rng(resampling.seed)
    step = max(1, _STEP // count)
    found = []
    for first in range(0, resampling.samples, step):
        drawn = generator.integers(0, count, (min(step, resampling.samples - first), count))
        found.append(_coefficients(method, accuracies[drawn], scores[drawn]))
    # Samples of one network, many times over, have no coefficient.
    low, high = np.nanquantile(
        np.concatenate(found), [(1 - resampling.confidence) / 2, (1 + resampling.confidence) / 2]
    )
    return Interval(float(low), float(high))


def _coefficients(method: Method, accuracies: Values, scores: Values) -> Values:
    """Of many samples, `[samples, networks]`; NaN where all accuracies or scores of a sample are equal."""
    transform = _TRANSFORMATIONS[method]
    one, other = _standardised(transform(accuracies)), _standardised(transform(scores))
    found: Values = np.clip((one * other).sum(-1), -1, 1)
    return found


def _standardised(values: Values) -> Values:
    """With mean 0 and length 1; NaN where all values are equal, which rounding errors don't hide."""
    centred = values - values.mean(-1, keepdims=True)
    length = np.linalg.norm(centred, axis=-1, keepdims=True)
    length[np.ptp(values, axis=-1) == 0] = np.nan
    standardised: Values = centred / length
    return standardised


def ranks(values: Values) -> Values:
    """Ranks along the last axis, counted from 1; equal values share their mean rank."""
    different, dense = np.unique(values, return_inverse=True)
    dense = dense.reshape(-1, values.shape[-1])
    places = dense + len(different) * np.arange(len(dense))[:, np.newaxis]
    counts = np.bincount(places.ravel(), minlength=len(dense) * len(different)).reshape(len(dense), -1)
    means = counts.cumsum(-1) - (counts - 1) / 2
    found: Values = np.take_along_axis(means, dense, -1).reshape(values.shape)
    return found


def _as_they_are(values: Values) -> Values:
    return values


_TRANSFORMATIONS: Final[dict[Method, Callable[[Values], Values]]] = {
    "Pearson": _as_they_are,
    "Spearman": ranks,
}
