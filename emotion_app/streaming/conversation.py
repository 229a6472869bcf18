"""What a connected client says, one message after the other, whichever door it came through."""

from __future__ import annotations

import logging
import time

from emotion_app.errors import BusyError, EmotionError, RequestError
from emotion_app.streaming.events import SessionStats, error_event
from emotion_app.streaming.live import CLOSE_BUSY, Link, LinkLost, Live, close_link
from emotion_app.streaming.manager import StreamManager
from emotion_app.streaming.protocol import (
    Audio,
    AudioEnd,
    AudioGap,
    BaselineReset,
    ClientMessage,
    Config,
    SessionEnd,
    SessionResume,
    SessionStart,
    SessionUpdate,
    parse,
)

log = logging.getLogger(__name__)


class Conversation:
    """One connection. Audio or any message that needs a session begins one with the defaults.

    A message that cannot be followed gets an error event; the session lives on.

    Args:
        manager: the sessions.
        link: the connection.

    Attributes:
        live: its session, once there is one.
        heard_at: when the last message came (monotonic).
    """

    def __init__(self, manager: StreamManager, link: Link) -> None:
        self._manager = manager
        self._link = link
        self.live: Live | None = None
        self.heard_at = time.monotonic()

    async def text(self, text: str) -> EmotionError | None:
        """A JSON message; the error that the client was told, if any."""
        try:
            message = parse(text)
        except EmotionError as error:
            return await self.refuse(error)
        return await self.message(message)

    async def message(self, message: ClientMessage) -> EmotionError | None:
        """A typed message."""
        self._heard()
        try:
            await self._follow(message)
        except EmotionError as error:
            return await self.refuse(error)
        return None

    async def pcm(self, data: bytes, position: int | None = None, rate: int | None = None) -> EmotionError | None:
        """Sound; ``rate`` declares its sampling rate where the message itself carries one."""
        self._heard()
        try:
            live = await self._session(Config() if rate is None else Config(sample_rate=rate))
            if rate is not None and rate != live.session.config.sample_rate:
                self._manager.update(live, SessionUpdate(type="session.update", sample_rate=rate))
            await live.feed(self._link, data, position)
        except EmotionError as error:
            return await self.refuse(error)
        return None

    async def refuse(self, error: EmotionError) -> EmotionError:
        """Tell an error; one that leaves no session closes the connection."""
        if self.live is not None:
            self.live.fail(error)
            return error
        hopeless = isinstance(error, BusyError)
        try:
            await self._link.send(error_event(error, fatal=hopeless))
        except LinkLost:
            return error
        if hopeless:
            await close_link(self._link, CLOSE_BUSY, error.code)
        return error

    def leave(self, *, meant: bool) -> None:
        """The connection is gone: on purpose, or lost."""
        if self.live is not None:
            self._manager.leave(self.live, self._link, meant=meant)

    async def _follow(self, message: ClientMessage) -> None:
        now = time.monotonic()
        if isinstance(message, SessionResume):
            if self.live is not None:
                raise RequestError("BAD_MESSAGE", reason="this connection already has a session")
            self.live = self._manager.resume(message.session_id, message.secret, message.last_event_id, self._link)
            return
        if isinstance(message, SessionStart):
            if self.live is not None:
                raise RequestError("BAD_MESSAGE", reason="the session has begun; use session.update")
            await self._session(message.config())
            return
        live = await self._session(Config())
        if live.link is not self._link or live.ending:
            return  # a newer connection has taken over, and this one has been told; or it was the last word
        if isinstance(message, Audio):
            await live.feed(self._link, message.pcm(), message.position)
        elif isinstance(message, AudioGap):
            live.act(live.session.miss(message.samples, "declared", now))
        elif isinstance(message, AudioEnd):
            live.act(live.session.end(now))
        elif isinstance(message, BaselineReset):
            live.reset_baseline()
        elif isinstance(message, SessionUpdate):
            self._manager.update(live, message)
        elif isinstance(message, SessionEnd):
            live.end("ended by the client")
        else:
            live.tell(SessionStats(stats=live.session.stats()))

    async def _session(self, config: Config) -> Live:
        if self.live is None:
            self.live = await self._manager.start(config, self._link)
        return self.live

    def _heard(self) -> None:
        self.heard_at = time.monotonic()
        if self.live is not None and self.live.link is self._link:
            self.live.heard_at = self.heard_at
