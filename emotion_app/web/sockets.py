"""The two live doors: ``/ws/emotion`` (the main contract, ``docs/protocol.md``) and Socket.IO with the same events.

Neither computes anything: bytes and JSON go to a ``Conversation``, events come back through a ``Link``. Host, origin
and token are the guard's, in front of both; Socket.IO's own same-origin rule stays on as well.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import socketio
from fastapi import FastAPI, WebSocket
from starlette.responses import JSONResponse
from starlette.types import ASGIApp
from starlette.websockets import WebSocketDisconnect

from emotion_app.analyzer import Analyzer
from emotion_app.errors import AudioError, BusyError, EmotionError, RequestError
from emotion_app.metrics import Metrics
from emotion_app.settings import Limits
from emotion_app.streaming.conversation import Conversation
from emotion_app.streaming.events import Event, error_event
from emotion_app.streaming.live import CLOSE_BUSY, CLOSE_DONE, LinkLost, close_link
from emotion_app.streaming.manager import StreamManager
from emotion_app.streaming.protocol import decode_base64, parse_data
from emotion_app.streaming.wavchunk import unwrap

log = logging.getLogger(__name__)

WS_PATH = "/ws/emotion"
SOCKETIO_PATH = "/socket.io"
LEFT_ON_PURPOSE = (1000, 1001)  # close codes of a client that ends, and of a page that goes away
RESUME_GRACE_S = 5.0  # with every place taken, a new connection has this long to say which session it resumes
CONNECTIONS_PER_SESSION = 2  # connections at the most, per session: one may be replacing another
SIO_QUEUE = 8  # events handed to a Socket.IO connection before it is waited for; the library's queue has no bound
SIO_LOOK_S = 0.05  # how often that queue is looked at while it is full


def add_sockets(app: FastAPI, analyzer: Analyzer, metrics: Metrics | None = None) -> StreamManager:
    """Put both doors on ``app``; call ``await manager.close()`` when it ends.

    Args:
        app: where ``/ws/emotion`` and ``/socket.io`` go.
        analyzer: models, queue and settings.
        metrics: where events are counted.
    """
    manager = StreamManager(analyzer, metrics)
    door = NativeDoor(manager, analyzer.settings.limits)
    app.add_api_websocket_route(WS_PATH, door.serve)
    app.mount(SOCKETIO_PATH, SocketIoDoor(manager, analyzer.settings.limits).app)
    return manager


# -- native WebSocket ---------------------------------------------------------------------------------------------


class WebSocketLink:
    """Events as JSON text."""

    def __init__(self, ws: WebSocket) -> None:
        self._ws = ws

    async def send(self, event: Event) -> None:
        """See ``Link``."""
        try:
            await self._ws.send_text(event.model_dump_json(exclude_none=True))
        except (WebSocketDisconnect, RuntimeError, OSError) as error:
            raise LinkLost from error

    async def close(self, code: int, reason: str) -> None:
        """See ``Link``."""
        try:
            await self._ws.close(code, reason)
        except (WebSocketDisconnect, RuntimeError, OSError):
            log.debug("the connection was closed already")


class NativeDoor:
    """``/ws/emotion``.

    Args:
        manager: the sessions.
        limits: bounds.
    """

    def __init__(self, manager: StreamManager, limits: Limits) -> None:
        self._manager = manager
        self._limits = limits
        self._connections = 0

    async def serve(self, ws: WebSocket) -> None:
        """One connection, until it is closed."""
        if self._connections >= CONNECTIONS_PER_SESSION * self._limits.stream_sessions:
            error = self._manager.refusal()
            body = {"error": {"code": error.code, "en": error.text("en"), "zh": error.text("zh")}}
            await ws.send_denial_response(JSONResponse(body, status_code=error.problem.http))
            return
        self._connections += 1
        link = WebSocketLink(ws)
        talk = Conversation(self._manager, link)
        code = CLOSE_DONE
        try:
            await ws.accept()
            if self._manager.full and not await self._may_resume(ws, link, talk):
                return
            code = await self._listen(ws, link, talk)
        except (LinkLost, WebSocketDisconnect) as error:
            code = getattr(error, "code", 1006)
        finally:
            self._connections -= 1
            talk.leave(meant=code in LEFT_ON_PURPOSE)

    async def _listen(self, ws: WebSocket, link: WebSocketLink, talk: Conversation) -> int:
        """Follow messages; the close code at the end."""
        while True:
            try:  # with a session, idleness is the session's affair
                wait_s = None if talk.live is not None else self._limits.stream_idle_s
                message = await asyncio.wait_for(ws.receive(), wait_s)
            except asyncio.TimeoutError:
                error = BusyError("SESSION_IDLE", limit_s=self._limits.stream_idle_s)
                await link.send(error_event(error, fatal=True))
                await close_link(link, CLOSE_DONE, error.code)
                return CLOSE_DONE
            if message["type"] == "websocket.disconnect":
                return int(message.get("code") or 1006)
            await self._follow(message, talk)

    async def _follow(self, message: dict[str, Any], talk: Conversation) -> None:
        data, text = message.get("bytes"), message.get("text")
        most = self._limits.stream_message_kb * 1024
        if len(data or text or "") > most:
            await talk.refuse(AudioError("MESSAGE_TOO_LARGE", limit_kb=self._limits.stream_message_kb))
        elif data is not None:
            await talk.pcm(data)
        else:
            await talk.text(text or "")

    async def _may_resume(self, ws: WebSocket, link: WebSocketLink, talk: Conversation) -> bool:
        """Every place is taken: said at once; only the client of an existing session may go on."""
        error = self._manager.refusal()
        await link.send(error_event(error, fatal=True))
        try:
            message = await asyncio.wait_for(ws.receive(), RESUME_GRACE_S)
            if message["type"] == "websocket.receive" and '"session.resume"' in (message.get("text") or ""):
                await self._follow(message, talk)
        except asyncio.TimeoutError:
            pass
        if talk.live is None:
            await close_link(link, CLOSE_BUSY, error.code)
        return talk.live is not None


# -- Socket.IO ----------------------------------------------------------------------------------------------------


class SocketIoLink:
    """Events by their type as the event's name, to one connection's own room."""

    def __init__(self, server: socketio.AsyncServer, sid: str) -> None:
        self._server = server
        self._sid = sid
        self.client_name: str | int | None = None  # what the client calls its session: given back, never believed

    async def send(self, event: Event) -> None:
        """See ``Link``; waits while the library's queue for this client is long."""
        while self._queued() > SIO_QUEUE:
            await asyncio.sleep(SIO_LOOK_S)
        named = event.model_copy(update={"client_session_id": self.client_name})
        body = named.model_dump(mode="json", exclude_none=True)
        await self._server.emit(body["type"], body, to=self._sid)

    async def close(self, code: int, reason: str) -> None:
        """See ``Link``."""
        await self._server.disconnect(self._sid)

    def _queued(self) -> int:
        transport = self._server.manager.eio_sid_from_sid(self._sid, "/")
        socket = self._server.eio.sockets.get(transport)
        if socket is None:
            raise LinkLost
        return int(socket.queue.qsize())


class SocketIoDoor:
    """``/socket.io``: ``audio_stream {chunk, session_id}`` and every message of the native protocol by its type.

    Args:
        manager: the sessions.
        limits: bounds.

    Attributes:
        app: to be mounted.
    """

    def __init__(self, manager: StreamManager, limits: Limits) -> None:
        self._manager = manager
        self._limits = limits
        self._talks: dict[str, tuple[Conversation, SocketIoLink]] = {}
        self._server = socketio.AsyncServer(
            async_mode="asgi",
            async_handlers=False,  # one client's messages in their order
            cors_allowed_origins=None,  # same origin only
            max_http_buffer_size=2 * limits.stream_message_kb * 1024,  # base64 and an envelope around a full message
        )
        self._server.on("connect", self._connect)
        self._server.on("disconnect", self._disconnect)
        self._server.on("audio_stream", self._guarded(self._audio))
        self._server.on("*", self._other)
        self.app: ASGIApp = socketio.ASGIApp(self._server, socketio_path=None)

    async def _connect(self, sid: str, environ: dict[str, Any], auth: object) -> None:
        self._forget_idle()
        if len(self._talks) >= CONNECTIONS_PER_SESSION * self._limits.stream_sessions:
            raise _refused(self._manager.refusal())
        link = SocketIoLink(self._server, sid)
        talk = Conversation(self._manager, link)
        resumes = isinstance(auth, dict) and "session_id" in auth and "secret" in auth
        if self._manager.full and not resumes:
            raise _refused(self._manager.refusal())
        self._talks[sid] = (talk, link)
        if resumes:
            known = ("session_id", "secret", "last_event_id")
            fields = {key: value for key, value in auth.items() if key in known} if isinstance(auth, dict) else {}
            try:
                await talk.message(parse_data({"type": "session.resume", **fields}))
            except EmotionError as error:
                del self._talks[sid]
                raise _refused(error) from error
            if talk.live is None:
                del self._talks[sid]
                raise _refused(RequestError("SESSION_UNKNOWN"))

    async def _disconnect(self, sid: str, reason: str) -> None:
        found = self._talks.pop(sid, None)
        if found is not None:
            found[0].leave(meant=reason == self._server.reason.CLIENT_DISCONNECT)

    async def _audio(self, talk: Conversation, link: SocketIoLink, data: object) -> dict[str, object]:
        """The article's event. ``chunk``: WAV or bare PCM, binary or base64 (a ``data:`` address too)."""
        fields: dict[str, object] = data if isinstance(data, dict) else {"chunk": data}
        chunk, position = fields.get("chunk"), fields.get("position")
        name = fields.get("session_id")
        link.client_name = name if isinstance(name, str | int) else None
        if isinstance(chunk, str):
            chunk = decode_base64(chunk.partition("base64,")[2] if chunk.startswith("data:") else chunk)
        if not isinstance(chunk, bytes) or not (position is None or isinstance(position, int)):
            raise RequestError("BAD_MESSAGE", reason="audio_stream wants {chunk: bytes or base64, position?: int}")
        if len(chunk) > self._limits.stream_message_kb * 1024:
            raise AudioError("MESSAGE_TOO_LARGE", limit_kb=self._limits.stream_message_kb)
        sound = unwrap(chunk)
        declared = fields.get("sample_rate")
        rate = sound.rate if sound.rate is not None else declared if isinstance(declared, int) else None
        error = await talk.pcm(sound.pcm, position, rate)
        live = talk.live
        if error is not None:
            return {"error": error.code}
        return {"received": live.session.received_input if live else 0, "session_id": live.name if live else None}

    async def _other(self, event: str, sid: str, data: object = None) -> object:
        async def follow(talk: Conversation, link: SocketIoLink, data: object) -> dict[str, object]:
            fields = data if isinstance(data, dict) else {}
            alias = event == "message" and "is_speaking" in fields
            error = await talk.message(parse_data(fields if alias else {**fields, "type": event}))
            return {} if error is None else {"error": error.code}

        return await self._guarded(follow)(sid, data)

    def _guarded(
        self, handler: Callable[[Conversation, SocketIoLink, object], Awaitable[object]]
    ) -> Callable[..., Awaitable[object]]:
        """A handler whose errors become error events."""

        async def handle(sid: str, data: object = None) -> object:
            found = self._talks.get(sid)
            if found is None:
                return None
            talk, link = found
            try:
                return await handler(talk, link, data)
            except EmotionError as error:
                await talk.refuse(error)
                return {"error": error.code}

        return handle

    def _forget_idle(self) -> None:
        """Connections that never began a session do not stay: looked at when the next one comes."""
        now = time.monotonic()
        for talk, link in list(self._talks.values()):
            if talk.live is None and now - talk.heard_at > self._limits.stream_idle_s:
                task = asyncio.ensure_future(close_link(link, CLOSE_DONE, "SESSION_IDLE"))
                task.add_done_callback(_done)


def _done(task: asyncio.Future[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.debug("an idle connection did not close", exc_info=task.exception())


def _refused(error: EmotionError) -> socketio.exceptions.ConnectionRefusedError:
    return socketio.exceptions.ConnectionRefusedError(
        error.text("en"), {"code": error.code, "en": error.text("en"), "zh": error.text("zh")}
    )
