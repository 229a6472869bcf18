"""Speech-like clips made on the spot: moving pitch and formants, pauses, noise."""

from __future__ import annotations

import numpy as np

from emotion_app.types import SAMPLE_RATE, Floats


def voice(seconds: float, seed: int = 0) -> Floats:
    """(n,) float32 at 16 kHz; the same for the same arguments."""
    dice = np.random.default_rng(seed)
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    pitch = dice.uniform(90, 260) * (1 + 0.3 * np.sin(2 * np.pi * dice.uniform(0.3, 1.2) * t + dice.uniform(0, 6)))
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    sound = sum(np.sin(h * phase + dice.uniform(0, 6)) * dice.uniform(0.2, 1) / h for h in range(1, 14))
    syllables = np.clip(np.sin(2 * np.pi * dice.uniform(2, 6) * t) + 0.5, 0, None)
    return (0.08 * sound * syllables + 0.004 * dice.standard_normal(len(t))).astype(np.float32)
