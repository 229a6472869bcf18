"""Everything that a client may say, typed, and how a session is configured; see ``docs/protocol.md``."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator

from emotion_app.errors import RequestError
from emotion_app.labels import INDEX
from emotion_app.types import SAMPLE_RATE

FRAME_MS = 20  # windows and hops are whole frames of the model
SMOOTHING = 0.5  # weight of the past in the smoothed scores: a change shows in full after about three results


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
    baseline: str = Field(
        "off",
        min_length=1,
        max_length=40,
        description="off; auto: the session's own, from the third utterance; or the name of a saved baseline.",
    )
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
    baseline: str = "off"
    vad: dict[str, bool | int | float] = Field(default_factory=dict)
    alerts: tuple[AlertRule | str, ...] = ()


class Audio(Wire):
    """Sound as base64: 16-bit little-endian mono PCM. Binary messages carry the same without the base64."""

    type: Literal["audio"]
    audio: str
    position: int | None = Field(
        None, ge=0, description="Number of its first sample at the declared rate: finds gaps and repeats."
    )

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


class BaselineReset(Wire):
    """Another speaker or microphone: the session's own baseline begins anew."""

    type: Literal["baseline.reset"]


class StatsRequest(Wire):
    """Ask for a session.stats event."""

    type: Literal["session.stats"]


class SessionEnd(Wire):
    """End the session: final answers, then session.ended, then the connection is closed."""

    type: Literal["session.end"]


ClientMessage = Annotated[
    SessionStart
    | SessionResume
    | SessionUpdate
    | Audio
    | AudioGap
    | AudioEnd
    | BaselineReset
    | StatsRequest
    | SessionEnd,
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
