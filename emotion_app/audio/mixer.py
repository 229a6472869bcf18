"""Blocks of any rate and channel count in, one mono 16 kHz float32 array out, with what was seen on the way.

Everything runs over blocks, so a clip of hours costs its result (64 kB a second) and one block. Lengths and rates are
counted here, never read from a header.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import soxr
from numpy.typing import NDArray

from emotion_app.audio.caps import Caps
from emotion_app.errors import AudioError
from emotion_app.types import SAMPLE_RATE, Floats

CLIP_LEVEL = 0.9995  # |sample| from here on counts as clipped: the top 16 steps of 16-bit sound
PLAUSIBLE = 2.0**32  # beyond: not sound. Float files that hold 32-bit integers reach 2**31; squares stay finite
NON_FINITE_SHARE = 1e-3  # up to this share of NaN and Inf is set to 0 with a note; more -> NOT_FINITE
CANCEL_RATIO = 0.01  # mean power below 1 % of the channels' power: they cancel (one of 32 channels alone gives 3 %)
_FIRST_SAMPLES = 30 * SAMPLE_RATE  # first size of the result: most clips are one utterance
_STEP_SAMPLES = 16 * 1024 * 1024  # it grows by half, by 64 MiB at the most


@dataclass(frozen=True, eq=False)
class Sound:
    """A decoded source.

    Attributes:
        samples: (n,) float32, 16 kHz, finite; n = round(source samples * 16000 / rate).
        rate: sampling rate of the source (of its first block) in Hz.
        channels: channel count of the source (of its first block).
        peak: largest absolute sample of the source, all channels.
        clipped_share: share of source samples at CLIP_LEVEL or above.
        non_finite: source samples that were NaN, infinite or absurd, set to 0.
        cancels: the mean of the channels has almost none of their power.
        loudest: index of the channel with the most power.
    """

    samples: Floats
    rate: int
    channels: int
    peak: float
    clipped_share: float
    non_finite: int
    cancels: bool
    loudest: int


class Mixer:
    """Takes blocks with ``push`` and gives the ``Sound`` with ``finish``.

    Args:
        caps: bounds, checked before anything is resampled.
        channel: take this channel instead of the mean of all.

    >>> caps = Caps(max_s=10, rate_min_hz=4000, rate_max_hz=384000, channels_max=32, name_bytes=200)
    >>> mixer = Mixer(caps)
    >>> mixer.push(np.zeros((2, 44_100), np.float32), 44_100)
    >>> mixer.finish().samples.shape
    (16000,)
    """

    def __init__(self, caps: Caps, channel: int | None = None) -> None:
        self._caps = caps
        self._channel = channel
        self._out = _Growing()
        self._stream: _Stream | None = None
        self._format: tuple[int, int] | None = None  # rate, channels of the first block
        self._source_s = 0.0  # of finished streams
        self._peak = 0.0
        self._clipped = self._non_finite = self._total = 0
        self._power = np.zeros(0)  # (channels,) sum of squares
        self._mean_power = 0.0

    @property
    def decoded_s(self) -> float:
        """Seconds of source taken so far."""
        return self._source_s + (self._stream.source_s if self._stream else 0.0)

    def check(self, channels: int, rate: int) -> None:
        """Refuse a format before any of it is taken.

        Raises:
            AudioError: BAD_FORMAT.
        """
        caps = self._caps
        if not caps.rate_min_hz <= rate <= caps.rate_max_hz:
            raise AudioError("BAD_FORMAT", what="Hz", value=rate, low=caps.rate_min_hz, high=caps.rate_max_hz)
        if not 1 <= channels <= caps.channels_max:
            raise AudioError("BAD_FORMAT", what="channels", value=channels, low=1, high=caps.channels_max)

    def push(self, block: Floats, rate: int) -> None:
        """Take ``block`` (channels, n) float32; it is changed in place where it is not finite.

        Raises:
            AudioError: BAD_FORMAT, TOO_LONG.
        """
        self.check(block.shape[0], rate)
        if self._stream is None or self._stream.rate != rate:  # chained Ogg and AAC may change in mid-file
            self._end_stream()
            self._stream = _Stream(rate)
        self._stream.taken += block.shape[1]
        if self.decoded_s > self._caps.max_s:
            raise AudioError("TOO_LONG", limit_s=self._caps.max_s)
        if self._format is None:
            self._format = (rate, len(block))
        self._measure(block)
        if self._channel is not None:
            mono = block[min(self._channel, len(block) - 1)]
        else:
            mono = block[0] if len(block) == 1 else block.mean(axis=0, dtype=np.float64).astype(np.float32)
        self._mean_power += float(np.einsum("i,i->", mono, mono, dtype=np.float64))
        self._out.append(self._stream.resample(mono))

    def finish(self) -> Sound:
        """Flush and return everything.

        Raises:
            AudioError: NOT_FINITE.
        """
        self._end_stream()
        if self._non_finite > NON_FINITE_SHARE * self._total:
            raise AudioError("NOT_FINITE", count=self._non_finite, total=self._total)
        rate, channels = self._format or (SAMPLE_RATE, 1)
        average = float(self._power.mean()) if len(self._power) else 0.0
        return Sound(
            samples=self._out.take(),
            rate=rate,
            channels=channels,
            peak=self._peak,
            clipped_share=self._clipped / max(1, self._total),
            non_finite=self._non_finite,
            cancels=len(self._power) > 1 and average > 0 and self._mean_power < CANCEL_RATIO * average,
            loudest=int(np.argmax(self._power)) if len(self._power) else 0,
        )

    def _measure(self, block: Floats) -> None:
        size = np.abs(block)
        bad = ~(size <= PLAUSIBLE)  # written so that NaN is bad too
        if bad.any():
            self._non_finite += int(bad.sum())
            block[bad] = size[bad] = 0
        self._total += block.size
        self._peak = max(self._peak, float(size.max(initial=0)))
        self._clipped += int((size >= CLIP_LEVEL).sum())
        power = np.einsum("ci,ci->c", block, block, dtype=np.float64)
        if len(power) > len(self._power):
            self._power = np.pad(self._power, (0, len(power) - len(self._power)))
        self._power[: len(power)] += power

    def _end_stream(self) -> None:
        if self._stream is None:
            return
        self._out.append(self._stream.flush())
        self._source_s += self._stream.source_s
        self._stream = None


class _Stream:
    """One resampler for as long as the rate stays the same; at 16 kHz samples pass through untouched."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.taken = 0
        self._given = 0
        self._soxr = None if rate == SAMPLE_RATE else soxr.ResampleStream(rate, SAMPLE_RATE, 1, "float32", "HQ")

    @property
    def source_s(self) -> float:
        return self.taken / self.rate

    def resample(self, mono: Floats) -> Floats:
        if self._soxr is None:
            return mono
        out = self._soxr.resample_chunk(np.ascontiguousarray(mono), last=False)
        self._given += len(out)
        return out

    def flush(self) -> Floats:
        """The tail, so that the whole has exactly round(taken * 16000 / rate) samples."""
        if self._soxr is None:
            return np.zeros(0, np.float32)
        tail = self._soxr.resample_chunk(np.zeros(0, np.float32), last=True)
        missing = round(self.taken * SAMPLE_RATE / self.rate) - self._given
        return np.pad(tail, (0, max(0, missing - len(tail))))[: max(0, missing)]


class _Growing:
    """An array that grows by ``realloc`` (for large ones the kernel moves pages, nothing is copied)."""

    def __init__(self) -> None:
        self._data: NDArray[np.float32] = np.empty(_FIRST_SAMPLES, np.float32)
        self._used = 0

    def append(self, part: Floats) -> None:
        need = self._used + len(part)
        if need > len(self._data):
            step = min(len(self._data) // 2, _STEP_SAMPLES)
            self._data.resize(max(need, len(self._data) + step), refcheck=False)
        self._data[self._used : need] = part
        self._used = need

    def take(self) -> Floats:
        self._data.resize(self._used, refcheck=False)
        return self._data
