"""A real server in a process of its own, on a free port of 127.0.0.1, as ``app.py`` starts it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

ROOT = Path(__file__).parents[1]
START_S = 90.0


@dataclass(frozen=True)
class Served:
    """Where a running server is."""

    url: str
    port: int
    process: subprocess.Popen[bytes]
    outputs: Path
    log: Path


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serving(folder: Path, **env: str) -> Iterator[Served]:
    """Start the app with results under ``folder``; EMOTION_* settings as keywords, e.g. ``EMOTION_TOKEN="x"``."""
    port = free_port()
    settings = {
        "EMOTION_PORT": str(port),
        "EMOTION_OUTPUTS_DIR": str(folder / "outputs"),
        "EMOTION_MODELS_DIR": str(folder / "models"),
        "EMOTION_OFFLINE": "true",
        "EMOTION_MODEL": "auto",
        **env,
    }
    log = folder / "server.log"
    with log.open("wb") as target:
        process = subprocess.Popen(
            [sys.executable, "app.py"], cwd=ROOT, env={**os.environ, **settings}, stdout=target, stderr=target
        )
    served = Served(f"http://127.0.0.1:{port}", port, process, folder / "outputs", log)
    try:
        _wait(served)
        yield served
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(served: Served) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if served.process.poll() is not None:
            raise AssertionError(f"the server ended:\n{served.log.read_text()}")
        try:
            with urllib.request.urlopen(f"{served.url}/healthz", timeout=2):
                return
        except (URLError, OSError):
            time.sleep(0.1)
    raise AssertionError(f"no server after {START_S} s:\n{served.log.read_text()}")
