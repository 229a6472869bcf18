"""Models on the page: fetching the large one in sight, a hub that hangs, a start without any name look-up."""

import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from emotion_app.testing import write_checkpoint
from tests.models.fake_hub import FakeHub, serve
from tests.served import served

OpenPage = Callable[..., Page]
LARGE = "iic/emotion2vec_plus_large"


def ask_large(page: Page) -> None:
    page.click(".ser-example >> nth=0")
    page.click("#ser-model label:nth-of-type(2)")
    page.click("#ser-analyze")


def test_the_large_model_is_fetched_in_sight(open_page: OpenPage, tmp_path: Path) -> None:
    """A tiny stand-in at the large model's address; the line goes dead half way, then the download is continued."""
    hub = FakeHub(write_checkpoint(tmp_path / "hub"), LARGE)
    hub.cut_after = (tmp_path / "hub" / "model.pt").stat().st_size // 2
    online = {"EMOTION_OFFLINE": "false", "HOME": str(tmp_path / "home"), "EMOTION_PRECISION": "fp32"}
    with serve(hub) as url, served(tmp_path, MODELSCOPE_ENDPOINT=url, **online) as site:
        page = open_page("en-US", url=site.url)
        expect(page.locator(".ser-chip-lite")).to_contain_text("Large can be downloaded")
        ask_large(page)
        expect(page.locator(".ser-now h2")).to_have_text("Downloading the model …")
        expect(page.locator(".ser-progress")).to_have_attribute("aria-valuenow", re.compile(r"^[1-9]\d?$"))
        expect(page.locator(".ser-chip-busy")).to_contain_text(re.compile(r"Downloading Emotion2Vec\+ Large · \d+ %"))
        page.click("#ser-lang label:nth-of-type(1)")  # the page is alive
        expect(page.locator("#ser-stop")).to_have_text("停止")
        expect(page.locator(".ser-now h2")).to_have_text("正在下载模型…")
        page.click("#ser-stop")
        expect(page.locator(".ser-empty")).to_contain_text("后台继续下载")
        page.click("#ser-analyze")  # waits for the same download
        expect(page.locator(".ser-progress")).to_have_attribute("aria-valuenow", re.compile(r"^[1-9]\d?$"))
        hub.cut_after = None
        hub.released.set()
        page.wait_for_selector(".ser-zip")
        expect(page.locator(".ser-chip-ready")).to_contain_text("Emotion2Vec+ Large · 就绪")
        assert not page.locator(".ser-notes").get_by_text("内置").count()
        ranges = [r for method, path, r in hub.requests if "model.pt" in path and r and method == "GET"]
        assert ranges, "the second download continues the first"
        page.context.close()  # before the server goes


def test_a_hub_that_hangs(open_page: OpenPage, tmp_path: Path) -> None:
    with socket.socket() as deaf:  # takes connections and never says a word
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(64)
        address = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        with served(
            tmp_path, EMOTION_OFFLINE="false", MODELSCOPE_ENDPOINT=address, HF_ENDPOINT=address, HOME=str(tmp_path),
            EMOTION_HUB_CONNECT_S="1",
        ) as site:  # fmt: skip
            page = open_page("zh-CN", url=site.url)
            page.click(".ser-example >> nth=0")
            page.click("#ser-analyze")  # auto: no hub is asked
            page.wait_for_selector(".ser-zip")
            began = time.monotonic()
            ask_large(page)
            expect(page.locator(".ser-failed")).to_contain_text("没有响应")
            assert time.monotonic() - began < 20
            page.click(".ser-act")
            page.wait_for_selector(".ser-hero")
            page.context.close()


def test_no_name_is_looked_up(tmp_path: Path) -> None:
    """Starting, showing the page and analyzing ask no name server for anything but this machine."""
    code = f"""
import socket, sys
asked, real = [], socket.getaddrinfo
def spy(host, *rest, **more):
    asked.append(host)
    return real(host, *rest, **more) if host in ("127.0.0.1", "localhost", None) else 1 / 0
socket.getaddrinfo = spy
from pathlib import Path
from starlette.testclient import TestClient
from emotion_app.analyzer import Analyzer
from emotion_app.settings import Settings
from emotion_app.store import Store
from emotion_app.web.server import create_app
s = Settings(outputs_dir=Path({str(tmp_path)!r}), models_dir=Path({str(tmp_path)!r}) / "models")
with TestClient(create_app(s, Analyzer(s), Store(s.outputs_dir, s.limits)), base_url="http://127.0.0.1") as client:
    assert client.get("/").status_code == 200
    clip = next(Path("examples/clips").glob("*.flac")).read_bytes()
    assert client.post("/api/v1/analyze", files={{"file": ("a.flac", clip)}}).status_code == 200
print(sorted({{str(a) for a in asked}} - {{"127.0.0.1", "localhost", "None"}}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=120
    )
    assert done.stdout.strip().endswith("[]"), done.stdout + done.stderr


@pytest.mark.parametrize("lang", ["zh-CN", "en-US"])
def test_with_a_token_the_browser_logs_in(open_page: OpenPage, chromium, tmp_path: Path, lang: str) -> None:
    with served(tmp_path, EMOTION_TOKEN="a long enough token") as site:
        context = chromium.new_context(locale=lang)
        page = context.new_page()
        page.goto(site.url)
        page.fill("#token", "wrong")
        page.click("button")
        expect(page.locator(".wrong")).to_be_visible()
        page.fill("#token", "a long enough token")
        page.click("button")
        page.wait_for_selector("html:not(.ser-wait) #ser-analyze")
        page.click(".ser-example >> nth=0")
        page.click("#ser-analyze")
        page.wait_for_selector(".ser-zip", timeout=60_000)
        context.close()


@pytest.mark.parametrize("lang", ["zh-CN", "en-US"])
def test_a_program_that_ends_is_said_and_a_new_one_is_found(chromium, tmp_path: Path, lang: str) -> None:
    words = "程序没有响应" if lang == "zh-CN" else "does not answer"
    with served(tmp_path / "a") as site:
        page = chromium.new_context(locale=lang).new_page()
        page.goto(site.url)
        page.wait_for_selector("html:not(.ser-wait) #ser-analyze")
        site.stop()
        expect(page.locator("#ser-lost")).to_contain_text(words)
        assert not page.locator(".toast-body").is_visible()
        with served(tmp_path / "b", port=site.port):
            expect(page.locator("#ser-lost")).to_be_hidden()
            page.wait_for_selector("html:not(.ser-wait) #ser-analyze")
        page.context.close()
