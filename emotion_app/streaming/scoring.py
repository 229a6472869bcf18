"""From a model's frames to the scores that a session tells: the one place where a personal baseline comes in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from emotion_app.timeline import Doubles, Pooled, softmax
from emotion_app.types import Floats, FrameOutput, Prediction


@dataclass(frozen=True, eq=False)
class Scored:
    """Frame logits of a stretch, plain and (where a baseline applies) adjusted.

    Attributes:
        plain: (T, 9) logits of the model.
        adjusted: (T, 9) logits less the speaker's baseline, or None.
    """

    plain: Floats
    adjusted: Floats | None = None

    @property
    def shown(self) -> Floats:
        """What the headline is taken from."""
        return self.plain if self.adjusted is None else self.adjusted


Scorer = Callable[[FrameOutput, bool], Scored]
"""Takes the frames of a window or (True) of a whole utterance; may keep a baseline between calls."""


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
