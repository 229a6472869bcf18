"""Everything that a client is told, typed; see ``docs/protocol.md``.

Positions are sample numbers of the session's 16 kHz timeline, counted from its start; ``audio_start_ms`` and
``audio_end_ms`` say the same in milliseconds. ``event_id`` counts up by one for all that is told about a session.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, TypeAdapter

from emotion_app.errors import EmotionError
from emotion_app.streaming.protocol import Config, Wire
from emotion_app.types import HOP_SAMPLES, SAMPLE_RATE

Scores = dict[str, float]
AnyEvent = TypeVar("AnyEvent", bound="Event")


class Event(Wire):
    """Base of everything that is told.

    Attributes:
        session_id: the server's name of the session.
        event_id: counts up by one; none for what belongs to a connection, not to the session.
        client_session_id: what a Socket.IO client calls its session, given back to it.
    """

    session_id: str = ""
    event_id: int | None = None
    client_session_id: str | int | None = None


class Stretch(Event):
    """An event about the sound ``[start_sample, stop_sample)``."""

    start_sample: int
    stop_sample: int
    audio_start_ms: float
    audio_end_ms: float

    @classmethod
    def of(cls: type[AnyEvent], start: int, stop: int, **fields: Any) -> AnyEvent:
        """The event with its milliseconds worked out."""
        return cls(
            start_sample=start,
            stop_sample=stop,
            audio_start_ms=start * 1000 / SAMPLE_RATE,
            audio_end_ms=stop * 1000 / SAMPLE_RATE,
            **fields,
        )


class SessionCreated(Event):
    """The session is there. Keep ``secret``: with it the session can be resumed."""

    type: Literal["session.created"] = "session.created"
    secret: str
    config: Config
    labels: tuple[str, ...]
    resume_s: float
    idle_s: float
    session_s: float


class SessionReady(Event):
    """The model is loaded; ``notes`` say when another one answers than was asked for, or in another precision.

    ``window_precision`` is that of interval results: the embedded model computes them in bf16 where that is faster.
    Final results are always in ``precision``.
    """

    type: Literal["session.ready"] = "session.ready"
    model: str
    precision: str
    window_precision: str
    device: str
    embedded: bool
    notes: tuple[str, ...] = ()
    notes_zh: tuple[str, ...] = ()


class SessionUpdated(Event):
    """The configuration as it is now."""

    type: Literal["session.updated"] = "session.updated"
    config: Config


class SessionResumed(Event):
    """Going on: send audio from sample ``received_input`` (at the declared rate); the missed events follow."""

    type: Literal["session.resumed"] = "session.resumed"
    received_input: int
    replayed: int
    lost: int
    config: Config


class SpeechStarted(Event):
    """Speech was recognised; it began at ``start_sample``."""

    type: Literal["speech_started"] = "speech_started"
    utterance: int
    start_sample: int
    audio_start_ms: float


class SpeechStopped(Stretch):
    """An utterance is over; its final result follows."""

    type: Literal["speech_stopped"] = "speech_stopped"
    utterance: int
    cause: Literal["silence", "end", "max_length", "gap"]


class FrameResult(Stretch):
    """Scores of frames not told before: row ``i`` belongs to ``start_sample + i * hop_samples``."""

    type: Literal["frame_result"] = "frame_result"
    utterance: int
    hop_samples: int = HOP_SAMPLES
    emotions: tuple[str, ...]
    scores: tuple[tuple[float, ...], ...]
    adjusted: tuple[tuple[float, ...], ...] | None = None
    timestamp: float = Field(description="Seconds from the start of the session to the first frame.")


class SpanScores(Wire):
    """A stretch of one emotion within an utterance."""

    start_sample: int
    stop_sample: int
    emotion: str
    confidence: float


class EmotionResult(Stretch):
    """The emotion of a stretch: of the last window (``interval``), or of a whole utterance (``speech_ended``)."""

    type: Literal["emotion_result"] = "emotion_result"
    trigger: Literal["interval", "speech_ended"]
    final: bool
    utterance: int
    emotion: str
    confidence: float
    scores: Scores
    adjusted: Scores | None = None
    smoothed: Scores | None = None
    shown: Literal["scores", "adjusted"] = "scores"
    baseline_clips: int = 0
    segments: tuple[SpanScores, ...] = ()
    notes: tuple[str, ...] = ()
    model: str
    timestamp: float = Field(description="Seconds from the start of the session to the end of the stretch.")
    latency_ms: float = Field(description="From the arrival of its last sample at the server to this event.")


class Alert(Stretch):
    """A rule came true."""

    type: Literal["alert"] = "alert"
    rule: str
    kind: Literal["hold", "share"]
    value: float
    threshold: float


class AudioGapped(Stretch):
    """This stretch of the timeline was never analysed, and why."""

    type: Literal["audio_gap"] = "audio_gap"
    reason: Literal["declared", "position", "rate_limit", "not_analysed"]


class ErrorEvent(Event):
    """Something went wrong. The session lives on unless ``fatal``."""

    type: Literal["error"] = "error"
    code: str
    message: str
    message_zh: str
    fatal: bool = False
    retry_after_s: float | None = None
    start_sample: int | None = None
    stop_sample: int | None = None


class Stats(Wire):
    """Where every sample is: ``received = analysed + silent + declared_dropped + buffered``, always."""

    received: int
    analysed: int
    silent: int
    declared_dropped: int
    buffered: int
    utterances: int
    windows: int
    late: int
    replaced: int
    skipped: int
    alerts: int
    repeated_input: int


class SessionStats(Event):
    """The counters of the session."""

    type: Literal["session.stats"] = "session.stats"
    stats: Stats


class SessionEnded(Event):
    """The session is over; nothing follows."""

    type: Literal["session.ended"] = "session.ended"
    reason: str
    stats: Stats


ServerEvent = Annotated[
    SessionCreated
    | SessionReady
    | SessionUpdated
    | SessionResumed
    | SpeechStarted
    | SpeechStopped
    | FrameResult
    | EmotionResult
    | Alert
    | AudioGapped
    | ErrorEvent
    | SessionStats
    | SessionEnded,
    Field(discriminator="type"),
]
SERVER_EVENTS: TypeAdapter[ServerEvent] = TypeAdapter(ServerEvent)


def error_event(
    error: EmotionError, *, fatal: bool = False, start: int | None = None, stop: int | None = None
) -> ErrorEvent:
    """An EmotionError as an event."""
    retry = error.facts.get("retry_after_s")
    return ErrorEvent(
        code=error.code,
        message=error.text("en"),
        message_zh=error.text("zh"),
        fatal=fatal,
        retry_after_s=float(retry) if isinstance(retry, int | float) else None,
        start_sample=start,
        stop_sample=stop,
    )
