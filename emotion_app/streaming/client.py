"""A client of ``/ws/emotion``: streams a file or standard input, comes back after a drop, gives typed events.

For ``emotion-app stream`` and for the benchmark; ``examples/clients`` has clients without this package.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from emotion_app import audio
from emotion_app.errors import AccessError, BusyError, EmotionError, RequestError
from emotion_app.settings import Limits
from emotion_app.streaming.events import SERVER_EVENTS, ErrorEvent, Event, SessionCreated, SessionEnded, SessionResumed
from emotion_app.types import SAMPLE_RATE

URL = "ws://127.0.0.1:7860/ws/emotion"
MESSAGE_S = 0.1  # sound in one message
KEEP_S = 30.0  # sound kept for sending again after a drop
RETRY_S = (0.2, 0.5, 1.0, 2.0, 5.0)  # waits between attempts to come back; the last one repeats


@dataclass
class Tape:
    """Sound on its way, by byte offset from the start; the newest ``KEEP_S`` seconds can be sent again."""

    rate: int
    start: int = 0
    data: bytearray = field(default_factory=bytearray)

    @property
    def stop(self) -> int:
        """End of what was recorded."""
        return self.start + len(self.data)

    def add(self, piece: bytes) -> None:
        """Append, and forget what is too old."""
        self.data += piece
        extra = len(self.data) - int(KEEP_S * 2 * self.rate)
        if extra > self.rate:  # now and then, not with every piece
            extra -= extra % 2
            del self.data[:extra]
            self.start += extra

    def since(self, offset: int) -> bytes:
        """What was recorded from ``offset`` on, as far as it is kept."""
        return bytes(self.data[max(0, offset - self.start) :])


def stream(
    source: str | Path,
    *,
    url: str = URL,
    token: str | None = None,
    sample_rate: int = SAMPLE_RATE,
    speed: float = 1.0,
    config: dict[str, Any] | None = None,
    tell: Callable[[Event], None],
) -> SessionEnded:
    """Stream ``source`` and return the session's last event.

    Args:
        source: a sound file of any kind, or ``-``: 16-bit mono PCM from standard input, at the pace at which it comes.
        url: the server.
        token: where one is needed.
        sample_rate: of standard input, in Hz.
        speed: of a file: 1 is real time; the server accepts 1.5.
        config: fields of ``session.start``.
        tell: called with every event, in order.

    Raises:
        RequestError: NO_SERVER, and whatever fatal error the server tells.
        AccessError: UNAUTHORIZED.
        AudioError: the file cannot be read.
    """
    if str(source) == "-":
        pieces = read_pipe(sys.stdin.buffer, sample_rate)
    else:
        samples = audio.load(source, limits=Limits()).samples
        pieces = paced((samples * 32_767).round().astype("<i2").tobytes(), SAMPLE_RATE, speed)
        sample_rate = SAMPLE_RATE
    return asyncio.run(Streamer(url, token, {**(config or {}), "sample_rate": sample_rate}, tell).run(pieces))


class Streamer:
    """One session from its start to ``session.ended``, over as many connections as it takes.

    Args:
        url: the server.
        token: where one is needed.
        config: fields of ``session.start``.
        tell: called with every event, in order.
    """

    def __init__(self, url: str, token: str | None, config: dict[str, Any], tell: Callable[[Event], None]) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._config = config
        self._tell = tell
        self._tape = Tape(int(config.get("sample_rate", SAMPLE_RATE)))
        self._created: SessionCreated | None = None
        self._ended: SessionEnded | None = None
        self._error: ErrorEvent | None = None
        self._last_id = 0
        self._last_at = 0.0
        self._news = asyncio.Event()
        self._said_all = False

    async def run(self, pieces: AsyncIterator[bytes]) -> SessionEnded:
        """Stream ``pieces``.

        Raises:
            EmotionError: see ``stream``.
        """
        recording = asyncio.create_task(self._record(pieces))
        try:
            ended = await self._keep_talking()
            if recording.done():
                recording.result()  # a source that failed is told, after the answer to what it gave
            return ended
        finally:
            recording.cancel()
            await asyncio.gather(recording, return_exceptions=True)

    async def _keep_talking(self) -> SessionEnded:
        """Connection after connection until the session has ended."""
        attempt, lost_at = 0, time.monotonic()
        while True:
            try:
                async with connect(self._url, additional_headers=self._headers, max_size=None, proxy=None) as ws:
                    await self._talk(ws)
                    attempt, lost_at = 0, time.monotonic()
            except (OSError, ConnectionClosed, InvalidHandshake) as error:
                if self._created is not None and self._last_at > lost_at:
                    attempt, lost_at = 0, self._last_at
                if time.monotonic() - lost_at >= (self._created.resume_s if self._created else 0.0):
                    raise self._failure(error) from error
            if self._ended is not None:
                return self._ended
            if self._error is not None and self._error.fatal:
                raise self._failure(None)
            await asyncio.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])
            attempt += 1

    async def _record(self, pieces: AsyncIterator[bytes]) -> None:
        """Sound does not wait for the connection: it goes to the tape."""
        try:
            async for piece in pieces:
                self._tape.add(piece)
                self._news.set()
        finally:
            self._said_all = True
            self._news.set()

    async def _talk(self, ws: ClientConnection) -> None:
        """One connection: speak and listen until it ends."""
        offset = 0
        if self._created is None:
            await ws.send(json.dumps({"type": "session.start", **self._config}))
        else:
            await ws.send(
                json.dumps(
                    {
                        "type": "session.resume",
                        "session_id": self._created.session_id,
                        "secret": self._created.secret,
                        "last_event_id": self._last_id,
                    }
                )
            )
            event = self._hear(await ws.recv())
            while not isinstance(event, SessionResumed):
                if isinstance(event, ErrorEvent):
                    self._error = event.model_copy(update={"fatal": event.code != "AT_CAPACITY"})
                    if self._error.fatal:
                        return
                event = self._hear(await ws.recv())
            offset = 2 * event.received_input
        speaking = asyncio.create_task(self._speak(ws, offset))
        try:
            async for text in ws:
                self._hear(text)
                if self._ended is not None:
                    return
        finally:
            speaking.cancel()
            await asyncio.gather(speaking, return_exceptions=True)

    async def _speak(self, ws: ClientConnection, offset: int) -> None:
        """Send the tape from byte ``offset`` on; what is no longer on it is declared as a gap."""
        step = 2 * round(10 * MESSAGE_S * self._tape.rate)
        while True:
            if offset < self._tape.start:
                await ws.send(json.dumps({"type": "audio.gap", "samples": (self._tape.start - offset) // 2}))
                offset = self._tape.start
            self._news.clear()
            if piece := self._tape.since(offset)[:step]:
                await ws.send(piece)
                offset += len(piece)
            elif self._said_all:
                await ws.send('{"type": "session.end"}')
                return
            else:
                await self._news.wait()

    def _hear(self, text: str | bytes) -> Event:
        event = SERVER_EVENTS.validate_json(text)
        self._last_id, self._last_at = event.event_id or self._last_id, time.monotonic()
        if isinstance(event, SessionCreated):
            self._created = event
        elif isinstance(event, SessionEnded):
            self._ended = event
        elif isinstance(event, ErrorEvent):
            self._error = event
        self._tell(event)
        return event

    def _failure(self, cause: Exception | None) -> EmotionError:
        if self._error is not None and self._error.fatal:
            return BusyError(self._error.code)
        if "403" in str(cause) or "401" in str(cause):
            return AccessError("UNAUTHORIZED")
        return RequestError("NO_SERVER", url=self._url, reason=str(cause)[:120])


async def paced(data: bytes, rate: int, speed: float) -> AsyncIterator[bytes]:
    """``data`` in messages, ``speed`` times as fast as it was spoken."""
    step = max(2, int(MESSAGE_S * rate) * 2)
    began = time.monotonic()
    for at in range(0, len(data), step):
        yield data[at : at + step]
        wait_s = began + (at + step) / 2 / rate / speed - time.monotonic()
        await asyncio.sleep(max(0.0, wait_s))


async def read_pipe(pipe: BinaryIO, rate: int) -> AsyncIterator[bytes]:
    """What comes through a pipe, as it comes."""
    step = max(2, int(MESSAGE_S * rate) * 2)
    while piece := await asyncio.to_thread(pipe.read1 if hasattr(pipe, "read1") else pipe.read, step):
        yield piece
