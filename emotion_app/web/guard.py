"""What stands before every route: Host and Origin, token, size of the body, routes that are never served.

Measured without it (issue A): a cross-site form post to 127.0.0.1 was executed, ``Host: evil.example`` was answered
(DNS rebinding), and Gradio's file route forwards to any public address.
"""

from __future__ import annotations

import contextlib
import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from emotion_app.errors import AccessError, AudioError, EmotionError
from emotion_app.settings import Settings
from emotion_app.web.login import Access, login_response
from emotion_app.web.problems import problem_response

UPLOADS = ("/gradio_api/upload", "/api/")  # routes that take files
FORM_BYTES = 1 << 20  # multipart borders and fields beside the file
MESSAGE_BYTES = 4 << 20  # any other body: options and JSON
OPEN_PATHS = ("/healthz", "/readyz", "/login", "/app-static/login.css")  # without a token
_SAFE = ("GET", "HEAD", "OPTIONS")
_CLOSED = (
    "/gradio_api/proxy=",
    "/gradio_api/process_recording",
    "/gradio_api/run-history",
    "/gradio_api/dev",
    "/gradio_api/vibe",
    "/gradio_api/undo-vibe",
    "/proxy=",
    "/monitoring",
)  # Gradio routes that nothing here needs
_REMOTE_FILE = ("http:", "https:", "ftp:", "//")
SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    # Nothing from elsewhere, whatever a file name or a bug puts into the page; Gradio evaluates its templates.
    "content-security-policy": "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; "
    "frame-ancestors 'self'; form-action 'self'; base-uri 'self'; object-src 'none'",
}


@dataclass(frozen=True)
class Bounds:
    """Largest bodies in bytes."""

    upload: int
    message: int = MESSAGE_BYTES


class Guard:
    """ASGI middleware; the order of checks is host, origin, closed routes, token, size.

    Args:
        app: what it protects.
        settings: hosts, token, upload limit.
        access: token check and login.
    """

    def __init__(self, app: ASGIApp, settings: Settings, access: Access) -> None:
        self._app = app
        self._access = access
        self._hosts = frozenset(
            {*(h.lower().strip("[]") for h in settings.allowed_hosts), settings.host.lower().strip("[]")}
        )
        self._origins = frozenset(origin.lower().rstrip("/") for origin in settings.allowed_origins)
        self._upload_mb = settings.limits.upload_mb
        self._bounds = Bounds(int(settings.limits.upload_mb * 1e6) + FORM_BYTES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            self._check_host(headers)
            self._check_origin(scope, headers)
            self._check_path(scope["path"])
            if not self._allowed(scope, headers):
                await self._ask_for_token(scope, headers, receive, send)
                return
            limit = self._limit(scope)
            if int(headers.get("content-length") or 0) > limit:
                raise self._too_large()
        except ValueError:
            await _refuse(AccessError("FORBIDDEN_ORIGIN"), scope, receive, send)
        except EmotionError as error:
            await _refuse(error, scope, receive, send)
        else:
            await self._pass(scope, receive, send, limit)

    def _check_host(self, headers: Headers) -> None:
        """Names must be ours: a rebound DNS name is not. An address cannot be rebound, so it passes."""
        host = _host_of(headers.get("host", ""))
        if "*" not in self._hosts and host not in self._hosts and not _is_address(host):
            raise AccessError("FORBIDDEN_ORIGIN")

    def _check_origin(self, scope: Scope, headers: Headers) -> None:
        """A page of another site may neither post nor open a socket; programs send no Origin and pass."""
        if scope["type"] == "http" and scope["method"] in _SAFE:
            return
        origin = headers.get("origin")
        if origin is not None:
            if scope["type"] == "websocket" and origin.lower() in self._origins:
                return
            if urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
                raise AccessError("FORBIDDEN_ORIGIN")
        elif headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise AccessError("FORBIDDEN_ORIGIN")

    def _check_path(self, path: str) -> None:
        if path.startswith(_CLOSED):
            raise AccessError("FORBIDDEN_PATH")
        for start in ("/gradio_api/file=", "/gradio_api/file/", "/file="):
            if path.startswith(start) and path[len(start) :].strip().lower().startswith(_REMOTE_FILE):
                raise AccessError("FORBIDDEN_PATH")

    def _allowed(self, scope: Scope, headers: Headers) -> bool:
        return scope["path"] in OPEN_PATHS or self._access.granted(headers)

    async def _ask_for_token(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
            await login_response(headers)(scope, receive, send)
        else:
            await _refuse(AccessError("UNAUTHORIZED"), scope, receive, send)

    def _limit(self, scope: Scope) -> int:
        return self._bounds.upload if scope["path"].startswith(UPLOADS) else self._bounds.message

    def _too_large(self) -> AudioError:
        return AudioError("TOO_LARGE", limit_mb=self._upload_mb)

    async def _pass(self, scope: Scope, receive: Receive, send: Send, limit: int) -> None:
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        body = _CountedBody(receive, limit)
        started = False

        async def answer(message: Message) -> None:
            nonlocal started
            if body.exceeded and not started:
                return  # the refusal below takes its place
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        with contextlib.suppress(_BodyTooLargeError):
            await self._app(scope, body, answer)
        if body.exceeded and not started:
            await problem_response(self._too_large())(scope, receive, send)


class _BodyTooLargeError(Exception):
    """Ends the reading of a body that has no length, or a false one."""


class _CountedBody:
    """``receive`` that stops at ``limit`` bytes."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._left = limit
        self.exceeded = False

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            if self._left < 0:
                self.exceeded = True
                raise _BodyTooLargeError
        return message


async def _refuse(error: EmotionError, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()  # websocket.connect; closing before accept is a 403 for the client
        await send({"type": "websocket.close", "code": 1008, "reason": error.code})
        return
    await problem_response(error)(scope, receive, send)


def _host_of(value: str) -> str:
    """Host name of a Host header, without the port."""
    return (urlsplit(f"//{value}").hostname or "").lower()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
