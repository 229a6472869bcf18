"""Settings and Limits: flags > EMOTION_* environment > TOML file > defaults. Passed around, never a global."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from emotion_app.errors import ConfigError


class Limits(BaseModel):
    """Every bound of the program; the text of each says what happens at it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    upload_mb: float = Field(50, gt=0, description="Bytes of one file; larger -> TOO_LARGE (413).")
    clip_s: float = Field(
        600, gt=0, description="Seconds of one clip in page and REST; longer -> TOO_LONG, never cut silently."
    )
    batch_clip_s: float = Field(4 * 3600, gt=0, description="The same for the command line, the library and batches.")
    rate_min_hz: int = Field(
        4_000, gt=0, description="Lower sampling rates -> BAD_FORMAT (a 1 Hz header would expand 16,000 times)."
    )
    rate_max_hz: int = Field(384_000, gt=0, description="Higher sampling rates -> BAD_FORMAT.")
    channels_max: int = Field(32, gt=0, description="More channels -> BAD_FORMAT.")
    decode_wall_s: float = Field(30, gt=0, description="Wall seconds to decode an upload; more -> DECODE_LIMIT.")
    decode_memory_mb: int = Field(
        512, gt=0, description="Memory of the decoder process beyond the clip itself; more -> DECODE_LIMIT."
    )
    decode_workers: int = Field(
        2, gt=0, description="Decoder processes of the server; further uploads wait their turn."
    )
    name_bytes: int = Field(200, gt=0, description="Shown file name; the rest is cut with an ellipsis. Never a path.")
    queue_requests: int = Field(64, gt=0, description="Requests waiting for the model; more -> BUSY with a retry time.")
    queue_audio_s: float = Field(
        1200, gt=0, description="Seconds of audio waiting; more -> BUSY, but one clip is always accepted when idle."
    )
    batch_clips: int = Field(8, gt=0, description="Clips computed together at the most.")
    batch_wait_ms: float = Field(2.0, ge=0, description="How long the model thread waits for company for a short clip.")
    deadline_s: float = Field(
        30.0, gt=0, description="Seconds a page or REST request may WAIT in the queue; later -> INFERENCE_TIMEOUT."
    )
    stream_deadline_s: float = Field(
        1.0, gt=0, description="The same for a live window: late work is dropped and reported."
    )
    cache_mb: float = Field(
        64, ge=0, description="Memory of the result cache; the least recently used goes first. 0 switches it off."
    )
    results_max: int = Field(
        10_000, gt=0, description="Result folders kept; the oldest go first, never one younger than 1 h."
    )
    results_gb: float = Field(20, gt=0, description="Size of all result folders; the same rule.")
    disk_free_mb: float = Field(500, ge=0, description="Less free space -> DISK_FULL before any work starts.")
    ui_clients: int = Field(
        32, gt=0, description="Requests waiting in the page's own queue; more are told that it is full."
    )
    ui_running: int = Field(
        8, gt=0, description="Page requests being decoded or computed at once; the others wait in the page's own queue."
    )
    stream_sessions: int = Field(32, gt=0, description="Live sessions, those waiting to be resumed included; one more -> AT_CAPACITY at once.")
    stream_message_kb: int = Field(256, gt=0, description="Size of one live message; larger -> MESSAGE_TOO_LARGE, the session goes on.")
    stream_rate_factor: float = Field(1.5, gt=1, description="Live audio faster than this times real time over stream_burst_s -> RATE_LIMIT, the excess is declared as a gap.")
    stream_burst_s: float = Field(10, gt=0, description="Over how many seconds that is counted.")
    stream_utterance_s: float = Field(60, ge=2, description="Longest live utterance; then it gets its final answer by force and the next one begins.")
    stream_events: int = Field(256, ge=16, description="Unsent events of a session, and sent ones kept for resuming; partial ones merge, more than that many others -> SLOW_CLIENT.")
    stream_slow_s: float = Field(10, gt=0, description="A client that takes no event for so long is closed with SLOW_CLIENT; it may resume.")
    stream_idle_s: float = Field(60, gt=0, description="A connected session without any message for so long is ended with SESSION_IDLE.")
    stream_resume_s: float = Field(120, gt=0, description="How long a session waits for its client to come back; then it is ended.")
    stream_session_s: float = Field(7200, gt=0, description="Longest session; then it is ended with SESSION_LIMIT.")
    stream_alerts: int = Field(16, ge=0, description="Alert rules of a session; more -> BAD_OPTION.")
    webhook_queue: int = Field(64, gt=0, description="Alerts waiting for the webhook; then the oldest is dropped and counted.")
    webhook_timeout_s: float = Field(5, gt=0, description="Seconds for one webhook call; it is not repeated.")


class Settings(BaseSettings):
    """How this process runs.

    ``EMOTION_PORT=8000``, ``EMOTION_LIMITS__CLIP_S=1200``; a TOML file is named by ``EMOTION_CONFIG`` (default
    ``emotion.toml`` in the working directory, if there is one).
    """

    model_config = SettingsConfigDict(env_prefix="EMOTION_", env_nested_delimiter="__", frozen=True, extra="ignore")

    host: str = Field("127.0.0.1", description="Address to listen on; beyond loopback a token is demanded.")
    port: int = Field(7860, ge=0, le=65535)
    token: SecretStr | None = Field(None, description="Bearer token for every door; none is needed on loopback.")
    allowed_hosts: tuple[str, ...] = Field(("localhost", "127.0.0.1", "[::1]"), description="Accepted Host headers.")
    model: str = Field("auto", description="auto, lite, a known name, a directory, or a hub id.")
    engine: Literal["torch", "funasr", "onnx"] = "torch"
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = "auto"
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1 ...")
    threads: int = Field(0, ge=0, description="CPU threads of the model; 0 = the cores this process may use.")
    hub: Literal["modelscope", "huggingface"] = Field("modelscope", description="The hub that is asked first.")
    offline: bool = Field(False, description="Never ask a hub.")
    hub_connect_s: float = Field(3.0, gt=0, description="Seconds to wait for a hub to answer at all.")
    preload: bool = Field(False, description="Load the model at start instead of at the first request.")
    models_dir: Path = Field(Path("~/.cache/emotion-app").expanduser(), description="Converted weights and downloads.")
    baselines_dir: Path = Field(
        Path("~/.local/share/emotion-app/baselines"), description="Named speaker baselines; ~ is your home folder."
    )
    outputs_dir: Path = Path("outputs")
    window_s: float = Field(1.0, gt=0, le=30, description="Smoothing of the timeline.")
    allowed_origins: tuple[str, ...] = Field((), description="Other sites whose pages may open live sessions (wss).")
    alerts: tuple[str, ...] = Field((), description='Alert rules of every live session, e.g. "angry >= 0.7 for 2 s".')
    webhook_url: str = Field("", description="Where alerts are posted; empty: nowhere.")
    webhook_hosts: tuple[str, ...] = Field((), description="Hosts that webhook_url may name; empty: none.")
    webhook_secret: SecretStr | None = Field(None, description="Key of the webhook's signature; demanded with webhook_url.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    limits: Limits = Limits()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order of precedence: arguments, environment, file."""
        path = Path(os.environ.get("EMOTION_CONFIG", "emotion.toml"))
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, path)


def read_settings(**flags: Any) -> Settings:
    """Settings with the flags that were given (None means not given).

    Raises:
        ConfigError: BAD_SETTING with the field and the reason.
    """
    try:
        return Settings(**{key: value for key, value in flags.items() if value is not None})
    except (ValidationError, ValueError, OSError) as error:
        reason = (
            "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            if isinstance(error, ValidationError)
            else str(error)
        )
        raise ConfigError("BAD_SETTING", reason=reason) from error
