"""The real program as a process of its own, for tests that need a port."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_S = 90.0  # a busy two-core machine


@dataclass
class Served:
    """A running server."""

    url: str
    port: int
    outputs: Path
    process: subprocess.Popen
    log: Path

    def stop(self) -> float:
        """SIGTERM; seconds until the process was gone."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=20)
        return time.monotonic() - began


def free_port() -> int:
    """A port that nobody uses right now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextmanager
def served(folder: Path, port: int = 0, **env: str) -> Iterator[Served]:
    """Start the server with results and models in ``folder`` and without a hub; it is killed at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    port, outputs, log = port or free_port(), folder / "outputs", folder / "server.log"
    settings = {
        "EMOTION_PORT": str(port), "EMOTION_OUTPUTS_DIR": str(outputs), "EMOTION_MODELS_DIR": str(folder / "models"),
        "EMOTION_BASELINES_DIR": str(folder / "baselines"), "EMOTION_OFFLINE": "true", "TMPDIR": str(folder),
        "PYTHONUNBUFFERED": "1", **env,
    }  # fmt: skip
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "emotion_app", "serve"], env={**os.environ, **settings}, stdout=out, stderr=out
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_up(url, process, log)
        yield Served(url, port, outputs, process, log)
    finally:
        process.kill()
        process.wait()


def wait_until_up(url: str, process: subprocess.Popen, log: Path) -> None:
    """Wait for ``/healthz``."""
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}:\n{log.read_text()}")
        try:
            urllib.request.urlopen(f"{url}/healthz", timeout=2).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"no answer after {START_S} s:\n{log.read_text()}")
