"""What the result column can show, without any language: so that a switch of language draws it again."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emotion_app.errors import EmotionError
from emotion_app.labels import INDEX
from emotion_app.notes import Note
from emotion_app.store import SavedResult
from emotion_app.types import (
    Adjusted,
    Granularity,
    ModelInfo,
    Origin,
    Prediction,
    Result,
    Segment,
    Timeline,
    n_frames,
)

N_BARS = 180  # bars of the drawn waveform: about 4 px each on a wide page, 2 px on a phone
N_TRACK = 1500  # caption points sent to the browser; a 30 s clip keeps every frame
N_RIVER = 160  # columns of the score chart


@dataclass(frozen=True)
class Step:
    """A line of the processing log.

    Attributes:
        name: ``decode``, ``download``, ``load``, ``queue``, ``infer`` or ``save``.
        fraction: 0..1; 1 when it is done.
        seconds: how long it took, or has taken so far.
    """

    name: str
    fraction: float
    seconds: float


@dataclass(frozen=True)
class Empty:
    """Nothing was asked yet."""


@dataclass(frozen=True)
class Running:
    """An analysis is under way."""

    source: str
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, eq=False)
class Failed:
    """An analysis ended without an answer. ``model`` is what had been chosen."""

    error: EmotionError
    model: str = "auto"
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True)
class Track:
    """Captions: in ``[i * hop_s, (i + 1) * hop_s)`` the segment's class is ``labels[i]``, its score ``percent[i]``."""

    hop_s: float
    labels: tuple[int, ...]
    percent: tuple[int, ...]


@dataclass(frozen=True)
class Judged:
    """Which personal baseline the shown answer was adjusted to, and the answer without it."""

    baseline: str
    count: int
    plain: Prediction


@dataclass(frozen=True, eq=False)
class Done:
    """An answer, reduced to what is drawn (the sound itself stays in the folder).

    Attributes:
        source: display name of the clip; untrusted, to be escaped.
        peaks: N_BARS heights 0..1 of the waveform.
        bar_labels: index of the emotion under each bar.
        track: captions, in frame mode.
        river: (<= N_RIVER, 9) scores over time, in frame mode.
        folder: name of the result folder; empty while it is being written.
        files: names and sizes in bytes of what can be downloaded.
        judged: by which baseline, when the shown scores are adjusted ones.
    """

    source: str
    origin: Origin
    duration_s: float
    prediction: Prediction
    granularity: Granularity
    segments: tuple[Segment, ...]
    notes: tuple[Note, ...]
    model: ModelInfo
    n_frames: int
    steps: tuple[Step, ...]
    peaks: tuple[float, ...]
    bar_labels: tuple[int, ...]
    track: Track | None
    river: NDArray[np.float32] | None
    folder: str
    files: tuple[tuple[str, int], ...]
    judged: Judged | None = None


View = Empty | Running | Failed | Done


def view_of(result: Result, saved: SavedResult | None, steps: tuple[Step, ...]) -> Done:
    """Reduce a result to what the page draws.

    Args:
        result: the answer.
        saved: its folder; None while it is being written.
        steps: the processing log.
    """
    duration_s, seen, by = result.waveform.duration_s, result.view, result.adjusted
    return Done(
        source=result.waveform.name,
        origin=result.waveform.origin,
        duration_s=duration_s,
        prediction=seen.prediction,
        granularity=result.granularity,
        segments=seen.segments,
        notes=result.notes,
        model=result.model,
        n_frames=n_frames(len(result.waveform.samples)),
        steps=steps,
        peaks=_peaks(result.waveform.samples),
        bar_labels=_bar_labels(seen, duration_s),
        track=_track(seen, seen.timeline) if seen.timeline else None,
        river=_thin(seen.timeline.scores, N_RIVER) if seen.timeline else None,
        folder=saved.name if saved else "",
        files=tuple((path.name, path.stat().st_size) for path in saved.files) if saved else (),
        judged=Judged(by.baseline, by.count, result.prediction) if by else None,
    )


def _peaks(samples: NDArray[np.float32]) -> tuple[float, ...]:
    """RMS of N_BARS stretches, scaled so that the loudest is 1."""
    edges = np.linspace(0, len(samples), N_BARS + 1).astype(int)
    levels = np.array(
        [float(np.sqrt(np.mean(np.square(samples[a:b])))) if b > a else 0.0 for a, b in itertools.pairwise(edges)]
    )
    top = float(levels.max())
    return tuple(round(float(level), 3) for level in (levels / top if top > 0 else levels))


def _bar_labels(result: Result | Adjusted, duration_s: float) -> tuple[int, ...]:
    return tuple(_label_at(result, (i + 0.5) / N_BARS * duration_s) for i in range(N_BARS))


def _label_at(result: Result | Adjusted, at_s: float) -> int:
    """Class of the segment at a time; captions, strip and waveform must say the same."""
    for segment in result.segments:
        if at_s < segment.end_s:
            return INDEX[segment.prediction.label]
    return INDEX[(result.segments[-1].prediction if result.segments else result.prediction).label]


def _track(result: Result | Adjusted, timeline: Timeline) -> Track:
    scores = _thin(timeline.scores, N_TRACK)
    hop_s = (timeline.end_s - timeline.start_s) / len(scores)
    labels = tuple(_label_at(result, timeline.start_s + (i + 0.5) * hop_s) for i in range(len(scores)))
    return Track(
        hop_s, labels, tuple(round(100 * float(row[label])) for row, label in zip(scores, labels, strict=True))
    )


def _thin(scores: NDArray[np.float32], n: int) -> NDArray[np.float32]:
    """At most ``n`` rows: means of equal stretches."""
    if len(scores) <= n:
        return scores
    edges = np.linspace(0, len(scores), n + 1).astype(int)
    return np.stack([scores[a:b].mean(axis=0) for a, b in itertools.pairwise(edges)])
