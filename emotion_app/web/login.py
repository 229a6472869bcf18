"""Token check: a bearer header for programs, a cookie from the login page for browsers."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import html
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, RedirectResponse, Response

from emotion_app.web.i18n import lang_of_header, load_words

COOKIE = "emotion_access"
COOKIE_S = 30 * 24 * 3600
WRONG_TOKEN_WAIT_S = 0.5  # slows guessing; the token itself is expected to be long
_FORM_BYTES = 4096


class Access:
    """Knows the token, if there is one. The cookie holds a keyed hash of it, never the token.

    Args:
        token: ``Settings.token``.
    """

    def __init__(self, token: SecretStr | None) -> None:
        self._token = token.get_secret_value().encode() if token else None
        self._pass = hmac.new(self._token, b"emotion-app login", hashlib.sha256).hexdigest() if self._token else ""

    def granted(self, headers: Headers) -> bool:
        """True when no token is needed, or the request has the header or the cookie."""
        if self._token is None:
            return True
        scheme, _, value = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.matches(value.strip()):
            return True
        return hmac.compare_digest(_cookie(headers).encode(), self._pass.encode())

    def matches(self, token: str) -> bool:
        """Compare in constant time."""
        return self._token is not None and hmac.compare_digest(token.encode(), self._token)

    def cookie(self) -> str:
        """Value of the cookie."""
        return self._pass


def login_router(access: Access) -> APIRouter:
    """``GET /login`` and ``POST /login`` (form field ``token``)."""
    router = APIRouter(include_in_schema=False)

    @router.get("/login")
    async def show(request: Request) -> Response:
        return login_response(request.headers, status=200)

    @router.post("/login")
    async def check(request: Request) -> Response:
        body = await request.body()
        fields = parse_qs(body[:_FORM_BYTES].decode("utf-8", "replace"))
        if not access.matches(fields.get("token", [""])[0].strip()):
            await asyncio.sleep(WRONG_TOKEN_WAIT_S)
            return login_response(request.headers, wrong=True)
        response = RedirectResponse("./", status_code=303)
        response.set_cookie(
            COOKIE,
            access.cookie(),
            max_age=COOKIE_S,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return response

    return router


def login_response(headers: Headers, *, wrong: bool = False, status: int = 401) -> HTMLResponse:
    """The login page in the browser's language."""
    words = load_words()[lang_of_header(headers.get("accept-language", ""))]
    message = f'<p class="wrong" role="alert">{html.escape(words("ser_login_wrong"))}</p>' if wrong else ""
    page = f"""<!doctype html><html lang="{words.lang}"><meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1"><title>{html.escape(words("ser_title"))}</title>
<link rel="stylesheet" href="app-static/login.css">
<main><h1>{html.escape(words("ser_title"))}</h1><p>{html.escape(words("ser_login_why"))}</p>{message}
<form method="post" action="login"><label for="token">{html.escape(words("ser_login_token"))}</label>
<input id="token" name="token" type="password" autocomplete="current-password" autofocus required>
<button>{html.escape(words("ser_login_enter"))}</button></form></main></html>"""
    return HTMLResponse(page, status_code=status)


def _cookie(headers: Headers) -> str:
    jar: SimpleCookie = SimpleCookie()
    try:
        jar.load(headers.get("cookie", ""))
    except CookieError:
        return ""
    return jar[COOKIE].value if COOKIE in jar else ""
