"""A real Chromium on a real server: one of each for all browser tests."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from emotion_app.audio import load, write_wav
from emotion_app.settings import Limits
from tests.served import Served, served

playwright_api = pytest.importorskip("playwright.sync_api", reason="the dev set has it")
from playwright.sync_api import Browser, Page, expect, sync_playwright  # noqa: E402

PATIENCE_MS = 60_000  # the first answer loads the model, on two busy cores
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The server: no large model, no hub, so ``auto`` answers with the embedded one."""
    with served(tmp_path_factory.mktemp("site")) as running:
        yield running


@pytest.fixture(scope="session")
def shots() -> Path:
    """Where pictures of the page are left for people to look at."""
    folder = Path(tempfile.gettempdir()) / "emotion-app-screenshots"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="package")  # not longer: its event loop would stay in this thread for all later tests
def chromium(tmp_path_factory: pytest.TempPathFactory, clips: list[Path]) -> Iterator[Browser]:
    """Headless Chromium whose microphone says one of the clips, again and again."""
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        pytest.fail("no Chromium on this machine: install the system's package (./run.sh test does)")
    voice = tmp_path_factory.mktemp("microphone") / "voice.wav"
    write_wav(voice, load(clips[0], limits=Limits()))
    flags = [
        "--no-sandbox",
        "--autoplay-policy=no-user-gesture-required",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={voice}",
    ]
    expect.set_options(timeout=PATIENCE_MS / 2)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Browser, site: Served) -> Iterator[Callable[..., Page]]:
    """Opens the page as somebody would; every request, error and console message is watched.

    At the end of the test: nothing was asked of any other host, and nothing was wrong in the console.
    """
    contexts, foreign, wrong = [], [], []

    def open_(
        lang: str = "en-US", width: int = 1280, scheme: str = "light", query: str = "", url: str = site.url
    ) -> Page:
        context = chromium.new_context(
            locale=lang, viewport={"width": width, "height": 844}, color_scheme=scheme, permissions=["microphone"]
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("request", lambda r: foreign.append(r.url) if not r.url.startswith((url, "blob:", "data:")) else None)
        page.on("pageerror", lambda e: wrong.append(str(e)))
        page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
        page.goto(f"{url}/{query}")
        page.wait_for_selector("html:not(.ser-wait) #ser-analyze")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert not foreign, f"asked of other hosts: {foreign}"
    assert not wrong, f"in the console: {wrong}"
