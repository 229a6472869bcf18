"""One log line for each request and socket, with an id that the client gets back; no names, no queries, no bodies."""

from __future__ import annotations

import logging
import time
import uuid

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from emotion_app import logs

log = logging.getLogger(__name__)
SHOWN_PARTS = 3  # of a path: deeper parts can hold the name of an uploaded file
QUIET = (
    "/healthz", "/readyz", "/metrics", "/app-", "/assets", "/static", "/gradio_api", "/theme.css", "/config",
    "/socket.io",
)  # fmt: skip


class RequestLog:
    """ASGI middleware, outermost.

    Args:
        app: what it wraps.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        request_id, began, status = uuid.uuid4().hex[:12], time.monotonic(), 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            elif message["type"] == "websocket.accept":
                status = 101
            await send(message)

        logs.bind(request=request_id)
        try:
            await self._app(scope, receive, answer)
        finally:
            level = logging.DEBUG if scope["path"].startswith(QUIET) else logging.INFO
            took_ms = round(1000 * (time.monotonic() - began))
            log.log(level, "%s %s %d %d ms", scope.get("method", "WS"), _shown(scope["path"]), status, took_ms)
            logs.unbind("request")


def _shown(path: str) -> str:
    parts = [part.split("=", 1)[0] for part in path.split("/") if part]
    return "/" + "/".join(parts[:SHOWN_PARTS])
