"""``emotion-app stream``: a file or standard input through a running server, events as they come."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from emotion_app.cli.common import lang, out
from emotion_app.labels import EMOTIONS, INDEX

if TYPE_CHECKING:
    from emotion_app.streaming.events import EmotionResult, Event


def stream(
    source: Annotated[str, typer.Argument(help="A sound file, or - for 16-bit mono PCM from standard input.")],
    url: Annotated[str, typer.Option(help="Where the server listens.")] = "ws://127.0.0.1:7860/ws/emotion",
    token: Annotated[str | None, typer.Option(help="The server's token (better: EMOTION_TOKEN).")] = None,
    rate: Annotated[int, typer.Option(help="Sampling rate of standard input in Hz.")] = 16_000,
    speed: Annotated[float, typer.Option(help="Pace of a file; 1 is real time, the server accepts 1.5.")] = 1.0,
    window_s: Annotated[float, typer.Option(help="Sound behind one interval result.")] = 3.0,
    hop_s: Annotated[float, typer.Option(help="Seconds of speech between two interval results.")] = 0.5,
    alert: Annotated[list[str] | None, typer.Option(help='A rule, e.g. "angry >= 0.7 for 2 s".')] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Every event as one JSON object a line.")] = False,
) -> None:
    """Live emotion of a file or of standard input, from a running server."""
    from emotion_app.streaming.client import stream as run

    config = {"window_s": window_s, "hop_s": hop_s, "alerts": alert or [], "frames": as_json}
    tell = _as_json if as_json else _as_line
    token = token or os.environ.get("EMOTION_TOKEN")
    run(source, url=url, token=token, sample_rate=rate, speed=speed, config=config, tell=tell)


def _as_json(event: Event) -> None:
    document = event.model_copy(update={"secret": "..."}) if hasattr(event, "secret") else event
    sys.stdout.write(document.model_dump_json(exclude_none=True) + "\n")
    sys.stdout.flush()


def _as_line(event: Event) -> None:
    """One line for what a person wants to know; other events are passed over."""
    if event.type == "emotion_result":
        _result(event)  # type: ignore[arg-type]
    elif event.type in ("alert", "error", "audio_gap", "session.ready"):
        facts = event.model_dump(exclude_none=True, exclude={"type", "session_id", "event_id", "notes", "notes_zh"})
        out.print(f"[yellow]{event.type}[/yellow] {facts}", highlight=False)


def _result(event: EmotionResult) -> None:
    emotion = EMOTIONS[INDEX[event.emotion]]
    start_s, end_s = event.audio_start_ms / 1000, event.audio_end_ms / 1000
    text = f"{start_s:7.2f} - {end_s:7.2f} s  {emotion.emoji} {emotion.name(lang())} {100 * event.confidence:.1f} %"
    out.print(f"[bold]{text}[/bold]" if event.final else f"[dim]{text}[/dim]", highlight=False)
