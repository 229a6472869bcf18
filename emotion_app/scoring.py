"""Figures of merit from plain arrays: confusion counts in, UAR, WA, F1, calibration and their intervals out.

Every figure is a function of counts that add up over clips, with any leading dimensions: an interval over speakers is
the figure of 1000 sums of randomly drawn speakers, computed at once.

Sources: UAR and WA as in Schuller, Steidl, Batliner, "The INTERSPEECH 2009 Emotion Challenge" (UAR is the mean
recall of the classes that occur, WA the share of right answers) and in EmoBox (Ma et al., Interspeech 2024);
calibration error of the best class in equal bins: Naeini et al., AAAI 2015, and Guo et al., ICML 2017 (15 bins);
intervals by drawing whole clusters with replacement: Davison and Hinkley, "Bootstrap Methods and their Application",
section 3.8.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emotion_app.labels import INDEX, N_EMOTIONS

Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
Metric = Callable[[Doubles], Doubles]

NEUTRAL = INDEX["neutral"]
NEUTRAL_SHARE = 0.85  # of a neutral-heavy mix: everyday speech is mostly neutral, corpora of actors are not
BINS = 15  # of confidence
DRAWS = 1000  # of a bootstrap
LEVEL = 0.95  # of an interval


@dataclass(frozen=True)
class Figure:
    """A value with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


def confusion(truth: Ints, answer: Ints, weights: Doubles | None = None) -> Doubles:
    """(9, 9) counts: rows are the labels, columns the answers.

    >>> confusion(np.array([3, 3, 6]), np.array([3, 6, 6]))[[3, 3, 6], [3, 6, 6]].tolist()
    [1.0, 1.0, 1.0]
    """
    counts = np.zeros((N_EMOTIONS, N_EMOTIONS))
    np.add.at(counts, (truth, answer), 1.0 if weights is None else weights)
    return counts


def recalls(counts: Doubles) -> Doubles:
    """(..., 9) recall of each class; NaN for a class that does not occur."""
    return _share(np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(axis=-1))


def precisions(counts: Doubles) -> Doubles:
    """(..., 9) precision of each class; NaN for a class that is never answered."""
    return _share(np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(axis=-2))


def f1s(counts: Doubles) -> Doubles:
    """(..., 9) F1 of each class that occurs, 0 when no answer of it is right; NaN for a class that does not occur."""
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    actual = counts.sum(axis=-1)
    return np.where(actual > 0, _share(2 * hits, actual + counts.sum(axis=-2)), np.nan)


def uar(counts: Doubles) -> Doubles:
    """(...) unweighted average recall over the classes that occur (EmoBox: UA; scikit-learn: balanced accuracy)."""
    return _mean(recalls(counts))


def accuracy(counts: Doubles) -> Doubles:
    """(...) share of right answers (WA)."""
    return _share(np.trace(counts, axis1=-2, axis2=-1), counts.sum(axis=(-2, -1)))


def macro_f1(counts: Doubles) -> Doubles:
    """(...) mean F1 over the classes that occur."""
    return _mean(f1s(counts))


def neutral_heavy(counts: Doubles) -> Doubles:
    """(...) accuracy if NEUTRAL_SHARE of the clips were neutral and the other classes shared the rest evenly.

    NaN when there is no neutral clip, or nothing else.
    """
    each = recalls(counts)
    return NEUTRAL_SHARE * each[..., NEUTRAL] + (1 - NEUTRAL_SHARE) * _mean(np.delete(each, NEUTRAL, axis=-1))


def reliability(confidence: Doubles, right: NDArray[np.bool_], weights: Doubles | None = None) -> Doubles:
    """(BINS, 3) for each bin of confidence: clips, sum of their confidences, how many are right.

    >>> reliability(np.array([.5, .55, 1.0]), np.array([True, False, True]))[[7, 8, 14]].round(2).tolist()
    [[1.0, 0.5, 1.0], [1.0, 0.55, 0.0], [1.0, 1.0, 1.0]]
    """
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    once = np.ones(len(confidence)) if weights is None else weights
    table = np.zeros((BINS, 3))
    np.add.at(table, place, np.stack([once, once * confidence, once * right], axis=1))
    return table


def calibration_error(table: Doubles) -> Doubles:
    """(...) expected calibration error: mean distance between confidence and accuracy of the bins, by their clips."""
    return _share(np.abs(table[..., 1] - table[..., 2]).sum(axis=-1), table[..., 0].sum(axis=-1))


def restrict(scores: Doubles, classes: Sequence[int]) -> Doubles:
    """(n, 9) scores of ``classes`` alone, made to sum to 1 again; the others are 0.

    A row that gives these classes nothing at all is shared out evenly among them.
    """
    keep = np.asarray(sorted(classes))
    part = np.zeros_like(scores)
    part[:, keep] = np.maximum(scores[:, keep], 1e-300)
    return part / part.sum(axis=1, keepdims=True)


def interval(per_cluster: Doubles, metric: Metric, seed: int = 0, draws: int = DRAWS) -> Figure:
    """A figure over all clusters with its interval from drawing clusters with replacement.

    Args:
        per_cluster: (S, ...) counts of each speaker (or clip).
        metric: counts of any leading dimensions to values.
        seed: of the draws.
        draws: how many.
    """
    value = float(metric(per_cluster.sum(axis=0)))
    flat = per_cluster.reshape(len(per_cluster), -1)
    rng = np.random.default_rng(seed)
    times = rng.multinomial(len(flat), np.full(len(flat), 1 / len(flat)), size=draws)  # (draws, S)
    drawn = (times @ flat).reshape(draws, *per_cluster.shape[1:])
    values = metric(drawn)
    values = values[np.isfinite(values)]
    if not len(values):
        return Figure(value, float("nan"), float("nan"))
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Figure(value, float(low), float(high))


def _share(part: Doubles, whole: Doubles) -> Doubles:
    return np.divide(part, whole, out=np.full(np.broadcast(part, whole).shape, np.nan), where=whole > 0)


def _mean(values: Doubles) -> Doubles:
    there = np.isfinite(values)
    return _share(np.where(there, values, 0).sum(axis=-1), there.sum(axis=-1))
