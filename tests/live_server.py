"""The live doors on a server of their own: FastAPI behind the guard, uvicorn on a free port of 127.0.0.1."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI
from websockets.sync.client import ClientConnection, connect

from emotion_app.analyzer import Analyzer
from emotion_app.settings import Settings
from emotion_app.streaming.manager import StreamManager
from emotion_app.web.guard import Guard
from emotion_app.web.login import Access
from emotion_app.web.sockets import add_sockets


class LiveServer:
    """Serves from a thread; ``call`` runs a function on its event loop."""

    def __init__(self, settings: Settings, send_buffer: int | None = None) -> None:
        self.settings = settings
        self.analyzer = Analyzer(settings)

        @asynccontextmanager
        async def lifespan(app: FastAPI):
            self._loop = asyncio.get_running_loop()
            yield
            await self.manager.close()

        app = FastAPI(lifespan=lifespan)
        self.manager: StreamManager = add_sockets(app, self.analyzer)
        app.add_middleware(Guard, settings=settings, access=Access(settings.token))
        self._socket = socket.create_server(("127.0.0.1", 0))
        if send_buffer:  # accepted connections inherit it: a client that does not read is noticed sooner
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        self.port = self._socket.getsockname()[1]
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_level="warning",
                timeout_graceful_shutdown=1,
                ws_max_size=2 * 1024 * settings.limits.stream_message_kb,
            )
        )
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)

    def __enter__(self) -> LiveServer:
        self._thread.start()
        wait_for(lambda: self._server.started)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self.analyzer.close()

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws/emotion"

    def call(self, function: Callable[[], object]) -> object:
        async def run() -> object:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    def totals(self):
        return self.call(self.manager.totals)

    def client(self, **options: object) -> Client:
        return Client(connect(self.url, proxy=None, max_size=None, ping_interval=None, **options))


class Client:
    """A plain blocking WebSocket client that keeps every event."""

    def __init__(self, ws: ClientConnection) -> None:
        self.ws = ws
        self.events: list[dict] = []

    def send(self, kind: str, **fields: object) -> None:
        self.ws.send(json.dumps({"type": kind, **fields}))

    def sound(self, data: bytes, size: int = 3200, pace_s: float = 0.0) -> None:
        for at in range(0, len(data), size):
            self.ws.send(data[at : at + size])
            if pace_s:
                time.sleep(pace_s)

    def next(self, timeout_s: float = 10) -> dict:
        event = json.loads(self.ws.recv(timeout_s))
        self.events.append(event)
        return event

    def until(self, kind: str, timeout_s: float = 20, **fields: object) -> dict:
        end = time.monotonic() + timeout_s
        while True:
            event = self.next(max(0.01, end - time.monotonic()))
            if event["type"] == kind and all(event.get(k) == v for k, v in fields.items()):
                return event

    def of(self, kind: str) -> list[dict]:
        return [e for e in self.events if e["type"] == kind]

    def finish(self) -> dict:
        """End the session; its last event."""
        self.send("session.end")
        return self.until("session.ended")

    def vanish(self) -> None:
        """As when the cable is cut: no goodbye."""
        self.ws.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        self.ws.socket.shutdown(socket.SHUT_RDWR)
        self.ws.recv_events_thread.join(1)  # or it waits for ever on a descriptor that is closed under it
        self.ws.socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.ws.close()


class Wire:
    """A TCP relay that can be cut."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._pairs: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            self._pairs += [near, far]
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(a, b), daemon=True).start()

    @staticmethod
    def _pass(a: socket.socket, b: socket.socket) -> None:
        try:
            while data := a.recv(65536):
                b.sendall(data)
        except OSError:
            return

    def cut(self) -> None:
        for end in self._pairs:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            end.close()
        self._pairs.clear()

    def close(self) -> None:
        self._listener.close()
        self.cut()


def wait_for(condition: Callable[[], object], timeout_s: float = 10, what: str = "") -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, what or "it did not happen in time"
        time.sleep(0.02)
