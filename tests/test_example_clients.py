"""The clients in examples/clients, each run as a user would, against a running server."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from emotion_app import audio
from emotion_app.settings import Settings
from emotion_app.types import Waveform
from tests.live_server import LiveServer, Wire
from tests.streaming.sound import FAST, dialogue

CLIENTS = Path(__file__).parents[1] / "examples" / "clients"
CHROMIUM = next(
    (p for p in ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome") if os.path.exists(p)), None
)


@pytest.fixture(scope="module")
def pages() -> Iterator[int]:
    handler = functools.partial(
        type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None}), directory=str(CLIENTS)
    )
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield http.server_address[1]
        http.shutdown()


@pytest.fixture(scope="module")
def server(pages: int) -> Iterator[LiveServer]:
    settings = Settings(model="lite", offline=True, limits=FAST, allowed_origins=(f"http://127.0.0.1:{pages}",))
    with LiveServer(settings) as running:
        yield running


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("speech") / "speech.wav"
    audio.write_wav(path, Waveform(np.clip(dialogue(1), -1, 1)))
    return path


def run(script: str, *args: object) -> str:
    done = subprocess.run(
        [sys.executable, str(CLIENTS / script), *map(str, args)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_python_client(server: LiveServer, speech: Path) -> None:
    said = run("python_client.py", speech, "--url", server.url)
    assert re.search(r"^=> +\d+\.\d\d - +\d+\.\d\d s  \w+ +\d+%$", said, re.MULTILINE), said
    assert re.search(r"^end: \d+\.\d s heard", said, re.MULTILINE)


def test_socketio_client(server: LiveServer, speech: Path) -> None:
    said = run("socketio_client.py", speech, "--url", server.http)
    assert re.search(r"^=> +\d+\.\d\d s  \w+ +\d+%$", said, re.MULTILINE), said


def test_clients_say_when_nobody_answers() -> None:
    for script, url in (
        ("python_client.py", "ws://127.0.0.1:9/ws/emotion"),
        ("socketio_client.py", "http://127.0.0.1:9"),
    ):
        wav = CLIENTS.parent / "clips" / "none.wav"
        done = subprocess.run(
            [sys.executable, str(CLIENTS / script), str(wav), "--url", url], capture_output=True, text=True
        )
        assert done.returncode != 0


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_browser_page_hears_the_microphone_and_comes_back(server: LiveServer, pages: int, speech: Path) -> None:
    from playwright.sync_api import sync_playwright

    wire = Wire(server.port)
    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream",
                "--no-sandbox",
                f"--use-file-for-fake-audio-capture={speech}%noloop",
            ],
        )
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{pages}/browser.html?url=ws://127.0.0.1:{wire.port}/ws/emotion")
        page.click("#go")
        page.wait_for_function("window.events.some(e => e.type === 'emotion_result')", timeout=20_000)
        wire.cut()
        page.wait_for_function("window.events.some(e => e.type === 'session.resumed')", timeout=10_000)
        page.wait_for_function("window.events.some(e => e.final)", timeout=20_000)
        page.click("#go")
        page.wait_for_function("window.events.some(e => e.type === 'session.ended')", timeout=20_000)
        events = page.evaluate("window.events")
        browser.close()
    wire.close()
    ids = [e["event_id"] for e in events if "event_id" in e]
    assert ids == list(range(1, len(ids) + 1))
    stats = events[-1]["stats"]
    assert stats["declared_dropped"] == 0 and stats["analysed"] > 16_000 and stats["repeated_input"] == 0
