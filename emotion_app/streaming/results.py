"""From a computed window or utterance to the events that tell it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from emotion_app.labels import KEYS
from emotion_app.streaming.events import EmotionResult, Event, FrameResult, Scores, SpanScores
from emotion_app.streaming.scoring import Scored, Smoother, frame_scores, pooled
from emotion_app.timeline import Pooled
from emotion_app.types import HOP_SAMPLES, SAMPLE_RATE, Floats, FrameOutput, Prediction, Result, Segment

DIGITS = 6  # of scores on the wire: the parity promise is 1e-4


@dataclass(eq=False)
class Utterance:
    """A stretch of speech while it runs and until its final answer.

    Attributes:
        number: counts up from 1.
        start: first sample; the frame grid begins here.
        told: frames below it were told, or are in ``holes``.
        holes: frame intervals that no window brought: their windows were late or replaced.
        last_due: end of the last window asked for.
    """

    number: int
    start: int
    smoother: Smoother
    told: int = 0
    holes: list[tuple[int, int]] = field(default_factory=list)
    last_due: int = 0


@dataclass(frozen=True, eq=False)
class Request:
    """Sound that the model is to answer.

    Attributes:
        number: counts up over the session; answers are told in this order.
        kind: ``window`` may be replaced by a newer one and may be late, ``final`` may not.
        utterance: whose sound.
        start, stop: its place in the timeline.
        samples: (stop - start,) float32.
        asked_at: when its last sample arrived, on the caller's clock.
    """

    number: int
    kind: Literal["window", "final"]
    utterance: Utterance
    start: int
    stop: int
    samples: Floats
    asked_at: float


@dataclass(frozen=True, eq=False)
class Answered:
    """What the model said, by name; a final answer comes with the Result that an upload of the same sound gives."""

    output: FrameOutput
    model: str
    at: float
    result: Result | None = None


def window_events(request: Request, answered: Answered, scored: Scored, frames: bool) -> tuple[list[Event], Prediction]:
    """Events of a window, and its smoothed scores for the alert rules."""
    utterance = request.utterance
    first = (request.start - utterance.start) // HOP_SAMPLES
    events: list[Event] = []
    new = max(utterance.told, first)
    last = first + len(scored.plain)
    if first > utterance.told:
        utterance.holes.append((utterance.told, first))
    if last > new:
        utterance.told = last
        if frames:
            events.append(frame_event(utterance, new, last, scored, first))
    smoothed = utterance.smoother.add(scored.shown)
    stop = request.stop
    events.append(
        EmotionResult.of(
            request.start,
            stop,
            trigger="interval",
            final=False,
            utterance=utterance.number,
            emotion=smoothed.label,
            confidence=round(smoothed.confidence, DIGITS),
            scores=wire_scores(pooled(scored.plain)),
            adjusted=None if scored.adjusted is None else wire_scores(pooled(scored.adjusted)),
            smoothed=wire_scores(smoothed),
            shown="scores" if scored.adjusted is None else "adjusted",
            baseline_clips=scored.baseline_clips,
            model=answered.model,
            timestamp=stop / SAMPLE_RATE,
            latency_ms=latency_ms(request, answered),
        )
    )
    return events, smoothed


def final_events(request: Request, answered: Answered, scored: Scored, frames: bool) -> tuple[list[Event], Prediction]:
    """Events of a whole utterance: frames that were not told yet, then the result."""
    utterance, result = request.utterance, answered.result
    events: list[Event] = []
    if frames:
        untold = [*utterance.holes, (utterance.told, len(scored.plain))]
        events += [
            frame_event(utterance, a, min(b, len(scored.plain)), scored, 0)
            for a, b in untold
            if a < min(b, len(scored.plain))
        ]
    plain = pooled(scored.plain) if result is None else result.prediction
    shown = plain if scored.adjusted is None else pooled(scored.adjusted)
    segments = tuple(
        SpanScores(
            start_sample=request.start + round(s.start_s * SAMPLE_RATE),
            stop_sample=request.start + round(s.end_s * SAMPLE_RATE),
            emotion=s.prediction.label,
            confidence=round(s.prediction.confidence, DIGITS),
        )
        for s in ([] if result is None else _segments(result, scored))
    )
    events.append(
        EmotionResult.of(
            request.start,
            request.stop,
            trigger="speech_ended",
            final=True,
            utterance=utterance.number,
            emotion=shown.label,
            confidence=round(shown.confidence, DIGITS),
            scores=wire_scores(plain),
            adjusted=None if scored.adjusted is None else wire_scores(shown),
            shown="scores" if scored.adjusted is None else "adjusted",
            baseline_clips=scored.baseline_clips,
            segments=segments,
            notes=() if result is None else tuple(note.code for note in result.notes),
            model=answered.model,
            timestamp=request.stop / SAMPLE_RATE,
            latency_ms=latency_ms(request, answered),
        )
    )
    return events, shown


def _segments(result: Result, scored: Scored) -> tuple[Segment, ...]:
    """Of the scores that are shown."""
    if scored.adjusted is None or result.timeline is None:
        return result.segments
    frames = Pooled(scored.adjusted)
    return frames.segments(frames.smoothed(result.timeline.window_s), result.waveform.duration_s)


def frame_event(utterance: Utterance, first: int, last: int, scored: Scored, offset: int) -> FrameResult:
    """Frames ``[first, last)`` of the utterance; row 0 of ``scored`` is its frame ``offset``."""
    rows = slice(first - offset, last - offset)
    start = utterance.start + first * HOP_SAMPLES
    return FrameResult.of(
        start,
        utterance.start + last * HOP_SAMPLES,
        utterance=utterance.number,
        emotions=tuple(KEYS[i] for i in np.argmax(scored.shown[rows], axis=1)),
        scores=_rows(scored.plain[rows]),
        adjusted=None if scored.adjusted is None else _rows(scored.adjusted[rows]),
        timestamp=start / SAMPLE_RATE,
    )


def merge_frames(old: Event, new: Event) -> FrameResult | None:
    """One event for two that follow on each other, or None when they do not."""
    if not (isinstance(old, FrameResult) and isinstance(new, FrameResult)):
        return None
    fits = old.utterance == new.utterance and old.stop_sample == new.start_sample
    if not fits or (old.adjusted is None) != (new.adjusted is None):
        return None
    adjusted = None if old.adjusted is None or new.adjusted is None else old.adjusted + new.adjusted
    return FrameResult.of(
        old.start_sample,
        new.stop_sample,
        utterance=old.utterance,
        emotions=old.emotions + new.emotions,
        scores=old.scores + new.scores,
        adjusted=adjusted,
        timestamp=old.timestamp,
    )


def wire_scores(prediction: Prediction) -> Scores:
    """Scores by key, rounded."""
    return {key: round(score, DIGITS) for key, score in prediction.as_dict().items()}


def latency_ms(request: Request, answered: Answered) -> float:
    """From the arrival of the last sample to now."""
    return round(1000 * max(0.0, answered.at - request.asked_at), 1)


def _rows(logits: Floats) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in frame_scores(logits).round(DIGITS).tolist())
