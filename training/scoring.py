"""Figures: UAR, accuracy, macro F1 with bootstrap intervals, accuracy at a neutral-heavy mix, calibration error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emotion_app.labels import INDEX, N_EMOTIONS

Scores = NDArray[np.float64]
Ints = NDArray[np.int64]
NEUTRAL, UNKNOWN = INDEX["neutral"], INDEX["unknown"]
NEUTRAL_SHARE = 0.85  # of everyday speech, the mix that accuracy is also told for
DRAWS = 1000  # of every bootstrap


@dataclass(frozen=True)
class Figure:
    """A value with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} [{100 * self.low:.0f}, {100 * self.high:.0f}]"


def recalls(truth: Ints, answer: Ints) -> Scores:
    """(9,) recall of each class; NaN where there is no clip."""
    counts = np.bincount(truth, minlength=N_EMOTIONS)
    right = np.bincount(truth[truth == answer], minlength=N_EMOTIONS)
    return np.where(counts > 0, right / np.maximum(counts, 1), np.nan)


def uar(truth: Ints, answer: Ints) -> float:
    """Unweighted average recall over the classes that occur."""
    return float(np.nanmean(recalls(truth, answer)))


def accuracy(truth: Ints, answer: Ints) -> float:
    """Share of right answers (WA)."""
    return float(np.mean(truth == answer))


def macro_f1(truth: Ints, answer: Ints) -> float:
    """Mean F1 over the classes that occur."""
    values = []
    for c in np.unique(truth):
        hit = np.sum((truth == c) & (answer == c))
        values.append(2 * hit / max(np.sum(truth == c) + np.sum(answer == c), 1))
    return float(np.mean(values))


def neutral_heavy(truth: Ints, answer: Ints) -> float:
    """Accuracy if NEUTRAL_SHARE of the clips were neutral and the rest spread evenly; NaN without neutral clips."""
    each = recalls(truth, answer)
    others = np.delete(each, NEUTRAL)
    return float(NEUTRAL_SHARE * each[NEUTRAL] + (1 - NEUTRAL_SHARE) * np.nanmean(others))


def bootstrap(
    metric: Callable[[Ints, Ints], float], truth: Ints, answer: Ints, group: Sequence[str] | None = None, seed: int = 0
) -> Figure:
    """Interval by drawing clips, or whole groups (speakers) when ``group`` names one for each clip."""
    rng = np.random.default_rng(seed)
    if group is None:
        draws = (rng.integers(0, len(truth), len(truth)) for _ in range(DRAWS))
    else:
        names = np.asarray(group)
        members = [np.flatnonzero(names == name) for name in np.unique(names)]
        draws = (
            np.concatenate([members[i] for i in rng.integers(0, len(members), len(members))]) for _ in range(DRAWS)
        )
    values = [metric(truth[rows], answer[rows]) for rows in draws]
    return Figure(metric(truth, answer), *(float(q) for q in np.nanquantile(values, [0.025, 0.975])))


def restricted(scores: Scores, classes: Sequence[int]) -> Ints:
    """Best class among ``classes``: what a corpus without surprise may be answered."""
    order = np.asarray(sorted(classes))
    return order[np.argmax(scores[:, order], axis=1)]


def calibration_error(scores: Scores, truth: Ints, classes: Sequence[int] | None = None, bins: int = 15) -> float:
    """Expected calibration error of the best class; over ``classes`` renormalised when given."""
    if classes is not None:
        keep = np.asarray(sorted(classes))
        part = np.zeros_like(scores)
        part[:, keep] = scores[:, keep]
        scores = part / part.sum(1, keepdims=True)
    confidence, right = scores.max(1), scores.argmax(1) == truth
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(confidence[place == b].mean() - right[place == b].mean()) * np.mean(place == b) for b in np.unique(place)
    ]
    return float(np.sum(gaps))


def softmax(logits: NDArray[np.floating]) -> Scores:
    """Rows to scores."""
    e = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)
