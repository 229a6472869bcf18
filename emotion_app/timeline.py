"""From frame logits to scores: utterance, any interval, smoothed timeline, segments.

The head of the model is linear, so every answer about an interval is ``softmax(mean of its frame logits)``. ``Pooled``
keeps the cumulative sums once; after that each interval costs the same, whatever its length.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emotion_app.errors import ModelError
from emotion_app.labels import N_EMOTIONS
from emotion_app.types import FRAME_RATE, HOP_S, Floats, FrameOutput, Prediction, Segment, Timeline

MIN_SEGMENT_S = 0.4  # a shorter stretch is joined to a neighbour: two syllables, below it labels only flicker
Doubles = NDArray[np.float64]


def softmax(logits: ArrayLike) -> Doubles:
    """Softmax over the last axis in float64; a class with EXCLUDED_LOGIT gets exactly 0.

    >>> softmax([0.0, 0.0, -1e9]).tolist()
    [0.5, 0.5, 0.0]
    """
    scores = np.array(logits, dtype=np.float64)
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores


@dataclass(frozen=True, eq=False)
class Pooled:
    """Frame logits of one clip, ready to be asked about any interval.

    Args:
        logits: (T, 9), T >= 1: ``FrameOutput.logits``, ``.reference_logits``, or those of an adapted head.

    Attributes:
        sums: (T + 1, 9) float64, ``sums[t]`` is the sum of the first ``t`` frames. EXCLUDED_LOGIT stays exact in it
            (1e9 x 720,000 frames is below 2**53), and ordinary logits are right to 1e-9 after 4 h.

    Raises:
        ModelError: INFERENCE_FAILED when a logit is not a number.

    >>> pooled = Pooled(np.eye(9, dtype=np.float32)[[3, 3, 6]] * 5)
    >>> pooled.pool(0, 2).label, pooled.pool(2, 3).label, pooled.whole().label, pooled.n_frames
    ('happy', 'sad', 'happy', 3)
    """

    logits: Floats
    sums: Doubles = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.logits.ndim != 2 or self.logits.shape[1] != N_EMOTIONS or not len(self.logits):
            raise ValueError(f"logits want (T >= 1, {N_EMOTIONS}), got {self.logits.shape}")
        sums = np.zeros((len(self.logits) + 1, N_EMOTIONS))
        np.cumsum(self.logits, axis=0, dtype=np.float64, out=sums[1:])
        if not np.isfinite(sums[-1]).all():  # one bad frame shows in the last sum
            raise ModelError("INFERENCE_FAILED", reason="the model gave scores that are not numbers")
        object.__setattr__(self, "sums", sums)

    @property
    def n_frames(self) -> int:
        """T."""
        return len(self.logits)

    def means(self, starts: ArrayLike, stops: ArrayLike) -> Doubles:
        """Mean logits of the frame intervals ``[start, stop)``: (k,) and (k,) -> (k, 9), or ints -> (9,).

        Raises:
            ValueError: an interval is empty or leaves the clip.
        """
        first, last = np.asarray(starts), np.asarray(stops)
        if np.any(first < 0) or np.any(last > self.n_frames) or np.any(first >= last):
            raise ValueError(f"frame intervals must be inside [0, {self.n_frames}] and not empty")
        return np.asarray((self.sums[last] - self.sums[first]) / np.expand_dims(last - first, -1))

    def pool(self, start_frame: int, stop_frame: int) -> Prediction:
        """Scores of the frames ``[start_frame, stop_frame)``."""
        return Prediction(softmax(self.means(start_frame, stop_frame)))

    def whole(self) -> Prediction:
        """The utterance: all frames."""
        return self.pool(0, self.n_frames)

    def frames_of(self, start_s: float, end_s: float) -> tuple[int, int]:
        """The frames ``(start, stop)`` nearest to an interval in seconds: inside the clip and at least one."""
        start = min(max(round(start_s * FRAME_RATE), 0), self.n_frames - 1)
        return start, min(max(round(end_s * FRAME_RATE), start + 1), self.n_frames)

    def raw(self) -> Timeline:
        """Scores of each frame by itself: (T, 9) at 50 Hz."""
        return Timeline(softmax(self.logits).astype(np.float32))

    def smoothed(self, window_s: float) -> Timeline:
        """Softmax of a centred moving mean of the logits; at the edges the window holds only what there is.

        Args:
            window_s: width in seconds; an even number of frames is made odd, so that the window has a centre.
        """
        if window_s < 0:
            raise ValueError(f"window_s must not be negative, got {window_s}")
        half = round(window_s * FRAME_RATE) // 2
        at = np.arange(self.n_frames)
        means = self.means(np.maximum(at - half, 0), np.minimum(at + half + 1, self.n_frames))
        return Timeline(softmax(means).astype(np.float32), window_s=window_s)

    def segments(self, smoothed: Timeline, duration_s: float, min_s: float = MIN_SEGMENT_S) -> tuple[Segment, ...]:
        """Stretches of one emotion that tile ``[0, duration_s]``.

        Runs of equal smoothed label are the start; then the shortest stretch below ``min_s`` joins, again and again,
        the neighbour whose emotion scores higher in it. A stretch's label is that of its own frames, pooled, so two
        neighbours never have the same one.

        Args:
            smoothed: the timeline of the same clip.
            duration_s: where the last segment ends: the clip is up to 25 ms longer than its frames.
            min_s: no segment is shorter, unless the clip is.
        """
        if duration_s <= (self.n_frames - 1) * HOP_S:
            raise ValueError(f"{self.n_frames} frames do not fit into {duration_s} s")
        best = np.argmax(smoothed.scores, axis=1)
        starts = [0, *(np.flatnonzero(np.diff(best)) + 1).tolist(), self.n_frames]
        bounds = _join(self.sums, starts, round(min_s * FRAME_RATE))
        ends_s = [stop / FRAME_RATE for stop in bounds[1:-1]] + [duration_s]
        return tuple(
            Segment(start / FRAME_RATE, end_s, self.pool(start, stop))
            for start, stop, end_s in zip(bounds[:-1], bounds[1:], ends_s, strict=True)
        )


def _join(sums: Doubles, bounds: list[int], min_frames: int) -> list[int]:
    """Take bounds away until neighbours differ in label and no stretch is below ``min_frames``.

    Sums stand in for mean logits: within one stretch they order the classes alike, and they simply add up on joining.
    """
    edges = np.asarray(bounds)
    parts = sums[edges[1:]] - sums[edges[:-1]]  # (R, 9)
    labels: list[int] = np.argmax(parts, axis=1).tolist()
    starts, stops = bounds[:-1], bounds[1:]
    n = len(starts)
    left, right = list(range(-1, n - 1)), [*range(1, n), -1]
    alive = [True] * n

    def absorb(i: int, j: int) -> None:
        """Stretch ``j``, to the right of ``i``, becomes part of it."""
        parts[i] += parts[j]
        labels[i] = int(parts[i].argmax())
        stops[i], alive[j] = stops[j], False
        right[i] = right[j]
        if right[j] >= 0:
            left[right[j]] = i

    def settle(i: int) -> int:
        """Join ``i`` with neighbours that now have the same label; the index it lives on under."""
        while right[i] >= 0 and labels[right[i]] == labels[i]:
            absorb(i, right[i])
        while left[i] >= 0 and labels[left[i]] == labels[i]:
            i, j = left[i], i
            absorb(i, j)
        return i

    for i in range(n):
        if alive[i]:
            settle(i)
    short = [(stops[i] - starts[i], i) for i in range(n) if alive[i] and stops[i] - starts[i] < min_frames]
    heapq.heapify(short)  # shortest first, then earliest: the outcome does not depend on chance
    while short:
        length, i = heapq.heappop(short)
        if not alive[i] or length != stops[i] - starts[i] or (left[i] < 0 and right[i] < 0):
            continue
        before, after = left[i], right[i]
        if before >= 0 and (after < 0 or parts[i][labels[before]] >= parts[i][labels[after]]):
            absorb(before, i)
            i = before
        else:
            absorb(i, after)
        i = settle(i)
        if stops[i] - starts[i] < min_frames:
            heapq.heappush(short, (stops[i] - starts[i], i))
    return [starts[i] for i in range(n) if alive[i]] + [bounds[-1]]


class Built(NamedTuple):
    """What frame granularity adds to a ``Result``, under the same names."""

    prediction: Prediction
    frames: Timeline
    timeline: Timeline
    segments: tuple[Segment, ...]


def build(frames: FrameOutput, duration_s: float, window_s: float) -> Built:
    """Everything about a clip in one call.

    Args:
        frames: what the engine answered.
        duration_s: length of the waveform; the segments tile it.
        window_s: smoothing of the timeline.

    >>> logits = np.repeat(np.eye(9, dtype=np.float32)[[4, 3]] * 6, 100, axis=0)
    >>> built = build(FrameOutput(logits, np.zeros(2, np.float32)), duration_s=4.005, window_s=1.0)
    >>> [(s.start_s, s.end_s, s.prediction.label) for s in built.segments]
    [(0.0, 2.0, 'neutral'), (2.0, 4.005, 'happy')]
    """
    pooled = Pooled(frames.logits)
    smoothed = pooled.smoothed(window_s)
    return Built(pooled.whole(), pooled.raw(), smoothed, pooled.segments(smoothed, duration_s))
