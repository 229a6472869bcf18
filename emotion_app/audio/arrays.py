"""Sound that is already an array: orientation, integer scale, rate."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion_app.audio.caps import Caps
from emotion_app.audio.mixer import Mixer, Sound
from emotion_app.errors import AudioError
from emotion_app.types import Floats

_BLOCK = 65_536  # samples of each channel taken at a time


def from_array(array: NDArray[Any], rate: float, caps: Caps) -> tuple[Sound, bool]:
    """Mono 16 kHz from ``array``, and whether its channels cancelled (then the loudest one was used).

    Args:
        array: (n,), (n, channels) or (channels, n); the shorter axis holds the channels. Floats are full scale at 1,
            signed integers at their type's range, unsigned ones around its middle. It is not changed.
        rate: its sampling rate in Hz, a whole number.
        caps: bounds.

    Raises:
        AudioError: BAD_ARRAY, EMPTY, BAD_FORMAT, TOO_LONG, NOT_FINITE.
    """
    channels_first = _oriented(array, caps)
    hertz = _whole_rate(rate)
    sound = _mix(channels_first, hertz, caps, None)
    if not sound.cancels:
        return sound, False
    return _mix(channels_first, hertz, caps, sound.loudest), True


def is_float(dtype: np.dtype[Any]) -> bool:
    """True when full scale is a convention (1.0) and not the type's range."""
    return dtype.kind == "f"


def to_float(block: NDArray[Any]) -> Floats:
    """A new float32 array with full scale at 1; float64 beyond float32 becomes infinite and is counted as such.

    >>> to_float(np.array([-32768, 16384], np.int16)), to_float(np.array([0, 128], np.uint8))
    (array([-1. ,  0.5], dtype=float32), array([-1.,  0.], dtype=float32))
    """
    if is_float(block.dtype):
        with np.errstate(over="ignore"):
            return np.array(block, np.float32)
    half = 2.0 ** (8 * block.dtype.itemsize - 1)
    middle = half if block.dtype.kind == "u" else 0.0
    wide = block.astype(np.float32 if block.dtype.itemsize <= 2 else np.float64)
    return ((wide - middle) / half).astype(np.float32, copy=False)


def _mix(array: NDArray[Any], rate: int, caps: Caps, channel: int | None) -> Sound:
    mixer = Mixer(caps, channel)
    for start in range(0, array.shape[1], _BLOCK):
        mixer.push(to_float(array[:, start : start + _BLOCK]), rate)
    return mixer.finish()


def _oriented(array: NDArray[Any], caps: Caps) -> NDArray[Any]:
    if array.dtype.kind not in "iuf" or array.dtype.itemsize > 8:
        raise AudioError("BAD_ARRAY", reason=f"type {array.dtype} (give float, int16, int32 or uint8)")
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8:
        raise AudioError("BAD_ARRAY", reason=f"{array.dtype} has no agreed full scale (give float, int16 or int32)")
    if array.ndim not in (1, 2):
        raise AudioError("BAD_ARRAY", reason=f"shape {array.shape} (give (n,), (n, channels) or (channels, n))")
    if array.size == 0:
        raise AudioError("EMPTY")
    if array.ndim == 1:
        return array[None]
    if min(array.shape) > caps.channels_max:
        raise AudioError("BAD_ARRAY", reason=f"shape {array.shape}: more than {caps.channels_max} channels either way")
    return array if array.shape[0] <= array.shape[1] else array.T


def _whole_rate(rate: float) -> int:
    number = isinstance(rate, (int, float, np.integer, np.floating)) and not isinstance(rate, bool)
    if not number or not np.isfinite(rate) or rate != int(rate):
        raise AudioError("BAD_ARRAY", reason=f"sampling rate {rate!r} is not a whole number of Hz")
    return int(rate)
