"""The numbers of the baseline rule for any model, from labelled clips: g, d and b of ``types.BaselineRule``.

For a model that was not trained with a second head (emotion2vec) the rule works on its plain logits. Nothing of the
network changes: 27 numbers are estimated.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from emotion_app.errors import RequestError
from emotion_app.labels import INDEX, N_EMOTIONS
from emotion_app.types import BaselineRule, Floats

Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
MIN_SPEAKERS = 2  # with fewer, the training mean would be one voice
MIN_CLASSES = 2
PULL = 1e-3  # of b towards its start, so that a class that is always right does not run away
STEPS = 50  # of Newton's method; it needs about 6
NEUTRAL = INDEX["neutral"]


def fit(reference: Floats, emotions: Ints, speakers: Sequence[str], source: str) -> BaselineRule:
    """Estimate the rule.

    Args:
        reference: (n, 9) pooled reference logits of the clips (plain ones for a model without a reference head).
        emotions: (n,) labels as indices; clips of ``unknown`` must not be among them.
        speakers: (n,) who speaks; a speaker counts when it has at least two emotions, neutral among them.
        source: where the clips come from.

    Raises:
        RequestError: BAD_MANIFEST when there are too few speakers or emotions.
    """
    names = np.asarray(speakers)
    logits = np.asarray(reference, np.float64)
    means, lifts, rows = [], [], []
    for name in np.unique(names):
        mine = np.flatnonzero(names == name)
        present = np.unique(emotions[mine])
        if len(present) < MIN_CLASSES or NEUTRAL not in present:
            continue
        by_class = np.stack([logits[mine[emotions[mine] == c]].mean(axis=0) for c in present])
        means.append(by_class.mean(axis=0))
        lifts.append(by_class[np.flatnonzero(present == NEUTRAL)[0]] - means[-1])
        rows.append((mine, means[-1]))
    if len(means) < MIN_SPEAKERS:
        reason = f"{len(means)} speakers with neutral and another emotion; {MIN_SPEAKERS} are needed"
        raise RequestError("BAD_MANIFEST", name=source, reason=reason)
    g = np.mean(means, axis=0)
    centred = np.concatenate([logits[mine] - mean for mine, mean in rows])
    labels = np.concatenate([emotions[mine] for mine, _ in rows])
    b = fit_bias(centred, labels, g)
    return BaselineRule(
        g.astype(np.float32), np.mean(lifts, axis=0).astype(np.float32), b.astype(np.float32), source=source
    )


def fit_bias(centred: Doubles, emotions: Ints, start: Doubles) -> Doubles:
    """(9,) b that makes ``softmax(centred + b)`` fit the labels best, every class counting alike.

    Class-balanced cross-entropy over the classes that occur, convex in b, by Newton's method. A class that does not
    occur is moved with the others, so that it keeps its place among them.

    Args:
        centred: (n, 9) logits minus their speaker's mean.
        emotions: (n,) labels.
        start: (9,) where b is pulled to: g, with which the rule changes nothing on average.
    """
    present = np.unique(emotions)
    counts = np.bincount(emotions, minlength=N_EMOTIONS)
    weights = 1 / (counts[emotions] * len(present))  # (n,), sums to 1
    target = (emotions[:, None] == present).astype(float)
    x, origin = centred[:, present], start[present]
    b = origin.copy()
    for _ in range(STEPS):
        z = x + b
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        gradient = weights @ (p - target) + PULL * (b - origin)
        curve = np.diag(weights @ p) - (p * weights[:, None]).T @ p + PULL * np.eye(len(present))
        step = np.linalg.solve(curve, gradient)
        b -= step * min(1.0, 5.0 / max(np.abs(step).max(), 1e-12))  # far from the answer the curve is flat: short steps
        if np.abs(step).max() < 1e-8:
            break
    out = start + (b - origin).mean()
    out[present] = b
    return out
