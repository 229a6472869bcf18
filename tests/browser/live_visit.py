"""A visitor of the Live page who keeps everything that went over the WebSocket, and arithmetic on sound."""

import json
import shutil
import time
import wave
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
from playwright.sync_api import BrowserContext, Page, WebSocket, expect

from emotion_app.labels import EMOTIONS
from tests.browser.conftest import NAMES
from tests.served import Served

RATE = 16_000


class Visit:
    """A page with everything that went over its WebSocket."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.page: Page = context.new_page()
        self.page.set_default_timeout(60_000)
        self.events: list[dict] = []
        self.sent = b""
        self.foreign: list[str] = []
        self.wrong: list[str] = []
        self.page.on("websocket", self._listen)
        self.page.on("pageerror", lambda e: self.wrong.append(str(e)))
        own = (url.split("?")[0], "blob:", "data:")
        self.page.on("request", lambda r: None if r.url.startswith(own) else self.foreign.append(r.url))
        self._url = url
        self.open()

    def open(self) -> None:
        self.page.goto(self._url)
        self.page.wait_for_selector("html:not(.ser-wait) #ser-analyze")
        self.page.click("#ser-live-tab-button")
        self.page.wait_for_selector(".ser-live-start")

    def _listen(self, ws: WebSocket) -> None:
        if "/ws/emotion" not in ws.url:
            return
        ws.on("framereceived", lambda frame: self.events.append(json.loads(frame)))
        ws.on("framesent", self._sent)

    def _sent(self, frame: str | bytes) -> None:
        if isinstance(frame, bytes):
            self.sent += frame

    def of(self, kind: str, **fields: object) -> list[dict]:
        return [e for e in self.events if e["type"] == kind and all(e.get(k) == v for k, v in fields.items())]

    def until(self, kind: str, n: int = 1, **fields: object) -> dict:
        """Wait until ``n`` such events came; the last one."""
        end = time.monotonic() + 60
        while len(found := self.of(kind, **fields)) < n:
            assert time.monotonic() < end, (kind, [e["type"] for e in self.events], self.page.inner_text("#ser-live"))
            self.page.wait_for_timeout(50)
        return found[-1]

    def finals(self) -> list[dict]:
        return self.of("emotion_result", final=True)

    def start(self) -> None:
        self.page.click(".ser-live-start")

    def stop(self) -> None:
        self.page.click(".ser-live-start")
        self.state("ended")

    def state(self, name: str) -> None:
        expect(self.page.locator(".ser-live")).to_have_attribute("data-state", name)

    def says(self, text: str) -> None:
        expect(self.page.locator(".ser-live-go")).to_contain_text(text)

    def save(self, site: Served) -> Path:
        self.page.click(".ser-live-save")
        link = self.page.wait_for_selector(".ser-live-summary .ser-zip")
        return site.outputs / (link.get_attribute("download") or "").removesuffix(".zip")


def executable() -> str:
    return next(found for name in NAMES if (found := shutil.which(name)))


def as_wav(samples: np.ndarray, rate: int = RATE) -> bytes:
    """16-bit wav of numbers in the range of int16."""
    target = BytesIO()
    with wave.open(target, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return target.getvalue()


def upload(site: Served, samples: np.ndarray) -> dict:
    answer = httpx.post(f"{site.url}/api/v1/analyze", files={"file": ("stretch.wav", as_wav(samples))}, timeout=60)
    answer.raise_for_status()
    return answer.json()


def differ(a: dict[str, float], b: dict[str, float]) -> float:
    return max(abs(a[e.key] - b[e.key]) for e in EMOTIONS)


def delay(heard: np.ndarray, spoken: np.ndarray) -> int:
    """Samples by which ``heard`` is late against ``spoken``: the peak of their correlation."""
    n = 1 << (len(heard) + len(spoken)).bit_length()
    match = np.fft.irfft(np.fft.rfft(heard, n) * np.conj(np.fft.rfft(spoken, n)), n)
    at = int(np.argmax(match))
    return at if at < n // 2 else at - n
