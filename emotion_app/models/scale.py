"""Whole-clip normalisation as two numbers, so that no second copy of an hour of sound is needed for it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from emotion_app.types import Floats

BLOCK = 1 << 20  # samples looked at together: 8 MB in float64
LAYER_NORM_EPS = 1e-5  # torch's


class Scale(NamedTuple):
    """``(samples - offset) * gain``.

    >>> Scale(1.0, 2.0)(np.array([1, 3], np.float32)).tolist()
    [0.0, 4.0]
    """

    offset: float = 0.0
    gain: float = 1.0

    def __call__(self, samples: Floats) -> Floats:
        """The samples, or a part of them, scaled: (n,) -> (n,) float32."""
        if self == (0.0, 1.0):
            return samples
        return (samples - np.float32(self.offset)) * np.float32(self.gain)


class Scaled:
    """A model that needs two numbers of the whole clip."""

    def scale(self, samples: Floats) -> Scale:
        """The normalisation that ``samples`` (n,), a whole clip, want."""
        raise NotImplementedError

    def prepare(self, samples: Floats) -> Floats:
        """A whole clip, normalised: (n,) -> (n,)."""
        return self.scale(samples)(samples)


def standardise(samples: Floats) -> Scale:
    """Mean 0 and variance 1, as ``torch.nn.functional.layer_norm`` over the whole clip has it.

    >>> standardise(np.array([1, 3], np.float32))
    Scale(offset=2.0, gain=0.9999950000374997)
    """
    total = squares = 0.0
    for at in range(0, len(samples), BLOCK):
        block = samples[at : at + BLOCK].astype(np.float64)
        total += block.sum()
        squares += np.dot(block, block)
    mean = total / len(samples)
    variance = max(0.0, squares / len(samples) - mean * mean)
    return Scale(float(mean), float(1 / np.sqrt(variance + LAYER_NORM_EPS)))
