"""Models: prepared waveform in, frame features and frame logits out, 50 a second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from emotion_app.models.scale import Scale
from emotion_app.types import BaselineRule, Floats, ModelInfo


class FrameArrays(NamedTuple):
    """One clip (or window) as the network answers it.

    ``features`` (T, D), ``logits`` (T, 9) in the order of ``labels.EMOTIONS``, ``reference_logits`` (T, 9) of a
    second head made for speaker baselines, or None. All float32; T is ``types.n_frames(len(wave))``.
    """

    features: Floats
    logits: Floats
    reference_logits: Floats | None = None


@dataclass(frozen=True)
class WindowPlan:
    """How a clip too long for one pass is cut: ``body_s`` is kept of each window, ``context_s`` on each side is not.

    A clip of at most ``whole_s`` is computed in one piece.
    """

    whole_s: float
    body_s: float
    context_s: float


class FrameModel(Protocol):
    """What the engine needs of a model; it is only ever called from one thread.

    A model that knows the numbers for speaker baselines has a ``baseline_rule`` too: read it with ``rule_of``.
    """

    info: ModelInfo
    plan: WindowPlan

    def scale(self, samples: Floats) -> Scale:
        """Whole-clip normalisation of (n,) samples: found once, before any cutting into windows."""
        ...

    def forward(self, waves: Sequence[Floats]) -> list[FrameArrays]:
        """Frames of several scaled waves of at least 400 samples, each as if it were alone (fp32: to 1e-6)."""
        ...

    def batch_limit(self, n_samples: int) -> int:
        """How many clips of about ``n_samples`` to compute together because that is faster on this device; >= 1."""
        ...


def rule_of(model: FrameModel) -> BaselineRule | None:
    """The model's own rule for speaker baselines, or None: then one may have been fitted (``baseline_files``)."""
    rule: BaselineRule | None = getattr(model, "baseline_rule", None)
    return rule
