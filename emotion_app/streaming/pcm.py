"""Bytes as they come, in any pieces, to 16 kHz samples: the same samples whatever the pieces were."""

from __future__ import annotations

import numpy as np
import soxr

from emotion_app.types import SAMPLE_RATE, Floats

_SAMPLE_BYTES = 2
_NOTHING = np.zeros(0, np.float32)


class PcmReader:
    """16-bit little-endian mono PCM at ``rate`` to float32 at 16 kHz.

    An odd byte is held over. The resampler is a stream of its own: no edges between pieces, and ``flush`` makes the
    whole exactly ``round(taken * 16000 / rate)`` samples, as for an uploaded file.

    Args:
        rate: sampling rate of the bytes in Hz.

    Attributes:
        taken: samples at ``rate`` since the start or the last flush.
        given: samples at 16 kHz since then.
    """

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.taken = 0
        self.given = 0
        self._odd = b""
        self._soxr = self._fresh()

    def push(self, data: bytes) -> Floats:
        """The samples that are complete now."""
        data = self._odd + data
        whole = len(data) - len(data) % _SAMPLE_BYTES
        self._odd = data[whole:]
        samples = np.frombuffer(data[:whole], "<i2").astype(np.float32) / np.float32(32_768)
        self.taken += len(samples)
        out = samples if self._soxr is None else self._soxr.resample_chunk(samples, last=False)
        self.given += len(out)
        return out

    def align(self) -> None:
        """Forget a held byte: the next bytes begin with a whole sample."""
        self._odd = b""

    def flush(self) -> Floats:
        """The tail that the resampler still holds; what comes next starts afresh. An odd byte is forgotten."""
        missing = self.length(self.taken) - self.given
        tail = _NOTHING
        if self._soxr is not None:
            tail = self._soxr.resample_chunk(_NOTHING, last=True)
            tail = np.pad(tail, (0, max(0, missing - len(tail))))[: max(0, missing)]
        self.taken = self.given = 0
        self._odd = b""
        self._soxr = self._fresh()
        return tail

    def length(self, samples: int) -> int:
        """Samples at 16 kHz of ``samples`` at ``rate``."""
        return round(samples * SAMPLE_RATE / self.rate)

    def _fresh(self) -> soxr.ResampleStream | None:
        return None if self.rate == SAMPLE_RATE else soxr.ResampleStream(self.rate, SAMPLE_RATE, 1, "float32", "HQ")
