"""From a model's frames to the scores that a session tells: the one place where a personal baseline comes in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from emotion_app.baseline import Baseline, adjusted
from emotion_app.timeline import Doubles, Pooled, softmax
from emotion_app.types import FRAME_RATE, SHORT_S, BaselineRule, Floats, FrameOutput, Prediction


@dataclass(frozen=True, eq=False)
class Scored:
    """Frame logits of a stretch, plain and (where a baseline applies) adjusted.

    Attributes:
        plain: (T, 9) logits of the model.
        adjusted: (T, 9) logits by the speaker's baseline, or None.
        baseline_clips: how many earlier clips that is of.
    """

    plain: Floats
    adjusted: Floats | None = None
    baseline_clips: int = 0

    @property
    def shown(self) -> Floats:
        """What the headline is taken from."""
        return self.plain if self.adjusted is None else self.adjusted


Scorer = Callable[[FrameOutput, bool], Scored]
"""Takes the frames of a window or (True) of a whole utterance; may keep a baseline between calls."""


class Running:
    """Scores by a baseline: a saved one, or the session's own that grows with each utterance.

    Args:
        rule: of the model that answers.
        baseline: to begin with.
        learns: whether utterances join it.
    """

    def __init__(self, rule: BaselineRule, baseline: Baseline, *, learns: bool) -> None:
        self._rule, self._learns = rule, learns
        self.baseline = baseline

    def __call__(self, output: FrameOutput, final: bool) -> Scored:
        """Both scores; plain ones alone while the baseline has too few clips. An utterance never judges itself."""
        count, enough = self.baseline.count, self.baseline.count >= self._rule.min_clips
        after = adjusted(output, self.baseline, self._rule).logits if enough else None
        if final and self._learns and output.n_frames >= SHORT_S * FRAME_RATE:
            self.baseline = self.baseline.add(output)
        return Scored(output.logits, after, count if enough else 0)


def plain(output: FrameOutput, final: bool) -> Scored:
    """Scores without a baseline."""
    return Scored(output.logits)


def pooled(logits: Floats) -> Prediction:
    """Scores of the whole stretch: the same road as an upload's."""
    return Pooled(logits).whole()


def frame_scores(logits: Floats) -> Doubles:
    """Scores of each frame by itself, (T, 9)."""
    return softmax(logits)


@dataclass
class Smoother:
    """Running mean of the windows' mean logits within one utterance.

    Args:
        weight: share of the past in each new value.
    """

    weight: float
    mean: Doubles | None = None

    def add(self, logits: Floats) -> Prediction:
        """Scores after one more window."""
        now = np.asarray(logits, np.float64).mean(axis=0)
        self.mean = now if self.mean is None else self.weight * self.mean + (1 - self.weight) * now
        return Prediction(softmax(self.mean))
