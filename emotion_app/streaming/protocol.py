"""Every message of a live session, typed: what a client may say, and what it is told. ``docs/protocol.md`` explains each.

Positions are sample numbers of the session's 16 kHz timeline, counted from its start; ``audio_start_ms`` and
``audio_end_ms`` say the same in milliseconds. ``event_id`` counts up by one for all that is told about a session.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Annotated, Any, Literal, TypeVar, Union

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator

from emotion_app.errors import EmotionError, RequestError
from emotion_app.labels import INDEX
from emotion_app.types import HOP_SAMPLES, SAMPLE_RATE

FRAME_MS = 20  # windows and hops are whole frames of the model
SMOOTHING = 0.5  # weight of the past in the smoothed scores: a change shows in full after about three results
Scores = dict[str, float]
AnyEvent = TypeVar("AnyEvent", bound="Event")


class Wire(BaseModel):
    """Base of all messages: unknown fields are refused, so that a misspelt one is not silently without effect."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# -- what a session can be told to do -----------------------------------------------------------------------------


class VadConfig(Wire):
    """When speech begins and ends; see ``vad.Endpointing``."""

    enabled: bool = Field(True, description="False: everything is speech until the end mark or the longest utterance.")
    threshold: float = Field(0.5, gt=0, lt=1, description="Probability from which a window of 32 ms is speech.")
    min_speech_ms: int = Field(200, ge=32, le=2000, description="Less voiced sound than this is no utterance.")
    hang_over_ms: int = Field(600, ge=100, le=5000, description="Silence that ends an utterance.")
    pad_ms: int = Field(200, ge=0, le=1000, description="Sound kept before and after the voiced part.")

    @model_validator(mode="after")
    def _pad_fits(self) -> VadConfig:
        if self.pad_ms > self.hang_over_ms:
            raise ValueError("pad_ms may not be longer than hang_over_ms")
        return self


class AlertRule(Wire):
    """A rule that watches a session. As text: ``angry >= 0.7 for 2 s`` or ``negative > 50 % of 60 s``.

    ``hold``: the smoothed score of the emotion (the sum, for several) stays at or above ``threshold`` for ``for_s``
    seconds of speech. ``share``: among the speech of the last ``for_s`` seconds, more than the share ``threshold``
    had one of the emotions as its answer, and there was at least ``min_speech_s`` of speech.
    """

    name: str = Field("", max_length=80)
    kind: Literal["hold", "share"]
    emotions: tuple[str, ...] = Field(min_length=1)
    threshold: float = Field(gt=0, le=1)
    for_s: float = Field(gt=0, le=3600)
    min_speech_s: float = Field(5.0, ge=0, le=3600)
    cooldown_s: float = Field(30.0, ge=0, le=3600, description="The same rule is silent for so long after an alert.")

    @field_validator("emotions")
    @classmethod
    def _known(cls, emotions: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [e for e in emotions if e not in INDEX]:
            raise ValueError(f"unknown emotion {wrong[0]}")
        return emotions


class Config(Wire):
    """How a session listens; everything has a default."""

    sample_rate: int = Field(SAMPLE_RATE, description="Hz of the audio that will come; fixed once audio has come.")
    window_s: float = Field(3.0, ge=0.5, le=10, description="Sound behind one interval result.")
    hop_s: float = Field(0.5, ge=0.1, le=10, description="Seconds of speech between two interval results.")
    smoothing: float = Field(SMOOTHING, ge=0, lt=1, description="Weight of the past in the smoothed scores; 0: off.")
    frames: bool = Field(True, description="Send frame_result events.")
    stats_s: float = Field(10.0, ge=0, le=3600, description="Seconds between session.stats events; 0: only on request.")
    model: str | None = Field(None, max_length=100, description="A known model that is on the server; null: its own.")
    vad: VadConfig = VadConfig()
    alerts: tuple[AlertRule | str, ...] = ()

    @field_validator("window_s", "hop_s")
    @classmethod
    def _whole_frames(cls, seconds: float) -> float:
        return round(seconds * 1000 / FRAME_MS) * FRAME_MS / 1000

    def updated(self, update: SessionUpdate) -> Config:
        """This configuration with the fields that ``update`` names.

        Raises:
            RequestError: BAD_MESSAGE.
        """
        changes = update.model_dump(exclude_unset=True, exclude={"type"})
        merged = self.model_dump() | changes
        if "vad" in changes:
            merged["vad"] = self.vad.model_dump() | changes["vad"]
        return _validated(TypeAdapter(Config), merged)


# -- client to server ---------------------------------------------------------------------------------------------


class SessionStart(Config):
    """Begin a session; sending audio at once begins one with the defaults."""

    type: Literal["session.start"]

    def config(self) -> Config:
        """The configuration alone."""
        return Config.model_validate(self.model_dump(exclude={"type"}))


class SessionResume(Wire):
    """Go on with a session whose connection was lost."""

    type: Literal["session.resume"]
    session_id: str = Field(max_length=100)
    secret: str = Field(max_length=100)
    last_event_id: int = Field(0, ge=0, description="The last event that arrived.")


class SessionUpdate(Wire):
    """Change some settings; the others stay."""

    type: Literal["session.update"]
    sample_rate: int = SAMPLE_RATE
    window_s: float = 3.0
    hop_s: float = 0.5
    smoothing: float = SMOOTHING
    frames: bool = True
    stats_s: float = 10.0
    model: str | None = None
    vad: dict[str, bool | int | float] = Field(default_factory=dict)
    alerts: tuple[AlertRule | str, ...] = ()


class Audio(Wire):
    """Sound as base64: 16-bit little-endian mono PCM. Binary messages carry the same without the base64."""

    type: Literal["audio"]
    audio: str
    position: int | None = Field(None, ge=0, description="Number of its first sample at the declared rate: finds gaps and repeats.")

    def pcm(self) -> bytes:
        """The bytes.

        Raises:
            RequestError: BAD_MESSAGE.
        """
        return decode_base64(self.audio)


class AudioGap(Wire):
    """The client could not send this many samples (at the declared rate)."""

    type: Literal["audio.gap"]
    samples: int = Field(gt=0, le=1 << 40)


class AudioEnd(Wire):
    """End mark: what is running gets its final answer now. More audio may follow."""

    type: Literal["audio.end"]


class StatsRequest(Wire):
    """Ask for a session.stats event."""

    type: Literal["session.stats"]


class SessionEnd(Wire):
    """End the session: final answers, then session.ended, then the connection is closed."""

    type: Literal["session.end"]


ClientMessage = Annotated[
    Union[SessionStart, SessionResume, SessionUpdate, Audio, AudioGap, AudioEnd, StatsRequest, SessionEnd],  # noqa: UP007
    Field(discriminator="type"),
]
_CLIENT: TypeAdapter[ClientMessage] = TypeAdapter(ClientMessage)


def parse(text: str) -> ClientMessage:
    """A text message of a client; FunASR's ``{"is_speaking": false}`` is an end mark.

    Raises:
        RequestError: BAD_MESSAGE with what is wrong.

    >>> parse('{"is_speaking": false}').type
    'audio.end'
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError("BAD_MESSAGE", reason="not JSON") from error
    return parse_data(data)


def parse_data(data: object) -> ClientMessage:
    """The same, of a message that is no text any more.

    Raises:
        RequestError: BAD_MESSAGE.
    """
    if isinstance(data, dict) and "type" not in data and isinstance(data.get("is_speaking"), bool):
        if data["is_speaking"]:
            return SessionUpdate(type="session.update")
        return AudioEnd(type="audio.end")
    found: ClientMessage = _validated(_CLIENT, data)
    return found


def decode_base64(text: str) -> bytes:
    """Bytes of strict base64.

    Raises:
        RequestError: BAD_MESSAGE.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError("BAD_MESSAGE", reason="the audio is not base64") from error


def _validated(adapter: TypeAdapter[Any], data: object) -> Any:
    try:
        return adapter.validate_python(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RequestError("BAD_MESSAGE", reason=f"{where}: {first['msg']}"[:300].lstrip(": ")) from error


# -- server to client ---------------------------------------------------------------------------------------------


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
        return cls(start_sample=start, stop_sample=stop, audio_start_ms=start * 1000 / SAMPLE_RATE,
                   audio_end_ms=stop * 1000 / SAMPLE_RATE, **fields)


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
    """The model is loaded; ``notes`` say when another one answers than was asked for, or in another precision."""

    type: Literal["session.ready"] = "session.ready"
    model: str
    precision: str
    device: str
    embedded: bool
    notes: tuple[str, ...] = ()
    notes_zh: tuple[str, ...] = ()


class SessionUpdated(Event):
    """The configuration as it is now."""

    type: Literal["session.updated"] = "session.updated"
    config: Config


class SessionResumed(Event):
    """Going on. Send audio from sample ``received_input`` (at the declared rate); events after ``last_event_id`` follow."""

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
    Union[SessionCreated, SessionReady, SessionUpdated, SessionResumed, SpeechStarted, SpeechStopped, FrameResult,  # noqa: UP007
          EmotionResult, Alert, AudioGapped, ErrorEvent, SessionStats, SessionEnded],
    Field(discriminator="type"),
]
SERVER_EVENTS: TypeAdapter[ServerEvent] = TypeAdapter(ServerEvent)


def error_event(error: EmotionError, *, fatal: bool = False, start: int | None = None, stop: int | None = None) -> ErrorEvent:
    """An EmotionError as an event."""
    retry = error.facts.get("retry_after_s")
    return ErrorEvent(code=error.code, message=error.text("en"), message_zh=error.text("zh"), fatal=fatal,
                      retry_after_s=float(retry) if isinstance(retry, int | float) else None,
                      start_sample=start, stop_sample=stop)
