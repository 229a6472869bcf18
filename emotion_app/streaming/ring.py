"""The last stretch of a stream by absolute sample numbers: a sliding buffer that grows to a bound and shrinks again."""

from __future__ import annotations

import numpy as np

from emotion_app.types import SAMPLE_RATE, Floats

REST_SAMPLES = 10 * SAMPLE_RATE  # size at rest, 640 kB: a session that hears short sentences never grows beyond it


class Ring:
    """Samples ``[start, stop)`` of a stream.

    ``push`` copies each sample once; when the end of the array is reached, what is kept moves to its front, or the
    array doubles. Both are paid for by the samples that came before, so a sample costs the same however long the
    stream is. A kept minute (3.8 MB) needs an array of 5.1 MB.

    >>> ring = Ring()
    >>> ring.push(np.arange(5, dtype=np.float32)); ring.discard(2); ring.start, ring.stop, ring.read(3, 5).tolist()
    (2, 5, [3.0, 4.0])
    """

    def __init__(self, start: int = 0) -> None:
        self._data = np.empty(REST_SAMPLES, np.float32)
        self._base = start  # number of the sample in _data[0]
        self.start = start
        self.stop = start

    @property
    def n_bytes(self) -> int:
        """Memory held."""
        return self._data.nbytes

    def push(self, samples: Floats) -> None:
        """Append."""
        need = self.stop - self._base + len(samples)
        if need > len(self._data):
            self._make_room(self.stop - self.start + len(samples))
        at = self.stop - self._base
        self._data[at : at + len(samples)] = samples
        self.stop += len(samples)

    def read(self, start: int, stop: int) -> Floats:
        """A copy of ``[start, stop)``.

        Raises:
            ValueError: a part of it is not there.
        """
        if not self.start <= start <= stop <= self.stop:
            raise ValueError(f"[{start}, {stop}) is not within [{self.start}, {self.stop})")
        return self._data[start - self._base : stop - self._base].copy()

    def discard(self, before: int) -> None:
        """Forget samples below ``before``."""
        self.start = min(max(self.start, before), self.stop)

    def jump(self, position: int) -> None:
        """Forget everything; the next sample has the number ``position``."""
        self.start = self.stop = self._base = position
        if len(self._data) > REST_SAMPLES:
            self._data = np.empty(REST_SAMPLES, np.float32)

    def _make_room(self, kept: int) -> None:
        """Move what is kept to the front of an array that has a quarter of it free."""
        size = REST_SAMPLES
        while size < 1.25 * kept:
            size *= 2
        live = self._data[self.start - self._base : self.stop - self._base]
        if size != len(self._data):
            self._data = np.empty(size, np.float32)
        self._data[: len(live)] = live  # numpy sees to overlaps
        self._base = self.start
