"""Alerts to another program: one signed POST each, to an allow-listed host, off unless configured."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import logging
import ssl
import threading
import time
from collections import deque
from urllib.parse import urlsplit

from emotion_app.errors import ConfigError
from emotion_app.settings import Settings
from emotion_app.streaming.events import Alert

log = logging.getLogger(__name__)


class Webhook:
    """Posts alerts from a thread of its own; never repeats a call and never follows a redirect.

    The body is JSON; ``X-Emotion-Timestamp`` is the Unix time and ``X-Emotion-Signature`` is
    ``sha256=HMAC(secret, timestamp + "." + body)`` in hex.

    Args:
        settings: ``webhook_url``, ``webhook_hosts``, ``webhook_secret`` and the limits of both.

    Raises:
        ConfigError: BAD_SETTING: the host is not in the list, there is no secret, or the address is not http(s).

    Attributes:
        sent, failed, dropped: calls so far; dropped ones made room for newer alerts.
    """

    def __init__(self, settings: Settings) -> None:
        parts = urlsplit(settings.webhook_url)
        hosts = tuple(host.lower() for host in settings.webhook_hosts)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError("BAD_SETTING", reason="webhook_url must be an http or https address")
        if parts.hostname.lower() not in hosts:
            raise ConfigError(
                "BAD_SETTING", reason=f"webhook_url names {parts.hostname}, which webhook_hosts does not list"
            )
        if settings.webhook_secret is None:
            raise ConfigError("BAD_SETTING", reason="webhook_url needs webhook_secret")
        self._parts = parts
        self._secret = settings.webhook_secret.get_secret_value().encode()
        self._timeout_s = settings.limits.webhook_timeout_s
        self._most = settings.limits.webhook_queue
        self._waiting: deque[bytes] = deque()
        self._wake = threading.Condition()
        self._closed = False
        self.sent = self.failed = self.dropped = 0
        self._thread = threading.Thread(target=self._work, name="webhook", daemon=True)
        self._thread.start()

    def post(self, alert: Alert) -> None:
        """Queue one; returns at once."""
        body = json.dumps(alert.model_dump(mode="json"), ensure_ascii=False).encode()
        with self._wake:
            if len(self._waiting) >= self._most:
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append(body)
            self._wake.notify()

    def close(self) -> None:
        """Forget what waits and end the thread."""
        with self._wake:
            self._closed = True
            self._waiting.clear()
            self._wake.notify()
        self._thread.join(self._timeout_s + 1)

    def _work(self) -> None:
        while True:
            with self._wake:
                while not self._waiting and not self._closed:
                    self._wake.wait()
                if self._closed:
                    return
                body = self._waiting.popleft()
            try:
                status = self._call(body)
            except (OSError, http.client.HTTPException) as error:
                self.failed += 1
                log.warning("webhook failed: %s", error)
                continue
            if 200 <= status < 300:
                self.sent += 1
            else:
                self.failed += 1
                log.warning("webhook answered %d", status)

    def _call(self, body: bytes) -> int:
        parts, stamp = self._parts, str(int(time.time()))
        signature = hmac.new(self._secret, stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            connection = http.client.HTTPSConnection(
                parts.hostname or "", parts.port, timeout=self._timeout_s, context=ssl.create_default_context()
            )
        else:
            connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=self._timeout_s)
        try:
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request(
                "POST",
                path,
                body,
                {
                    "Content-Type": "application/json",
                    "X-Emotion-Timestamp": stamp,
                    "X-Emotion-Signature": f"sha256={signature}",
                },
            )
            return connection.getresponse().status
        finally:
            connection.close()
