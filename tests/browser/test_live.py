"""The Live page in a real browser with a fake microphone: exact scores, breaks, refusals, both languages, phone width.

The microphone plays a wav of two example clips with silence around them (Chromium resamples it, starts it a little
late and may stretch it by a few samples). What is exact: the sound that the page sent, cut at the positions of a final
result and uploaded, gives that result to 1e-4. What is near: the same stretch of the original clips gives the same
label and scores within a few hundredths.
"""

import json
import re
import time
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soxr
from playwright.sync_api import Browser, expect
from websockets.sync.client import connect

from emotion_app.audio import load
from emotion_app.labels import EMOTIONS
from emotion_app.settings import Limits
from tests.browser.cable import Cable
from tests.browser.live_visit import RATE, Visit, as_wav, delay, differ, executable, upload
from tests.browser.test_look import CONTRAST, WIDE, chinese_in, english_in
from tests.served import Served, served

MIC_RATE = 48_000
STYLES = ("zh_female_cheerful", "zh_male_angry_fast_loud")
FOREIGN_NAME = "emotion.test"  # a name that is neither localhost nor HTTPS: no secure context
SESSIONS = 2
EXACT, NEAR = 1e-4, 5e-2
NAMED_ZH = re.compile("|".join(e.zh for e in EMOTIONS))


@pytest.fixture(scope="module")
def spoken(clips: list[Path]) -> np.ndarray:
    """What the microphone hears, 16 kHz: a second of silence, then each clip and a pause."""
    parts = [np.zeros(RATE, np.float32)]
    for style in STYLES:
        path = next(p for p in clips if style in p.name)
        parts += [load(path, limits=Limits()).samples, np.zeros(3 * RATE // 2, np.float32)]
    return np.concatenate(parts)


@pytest.fixture(scope="module")
def browser(chromium: Browser, spoken: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    path = tmp_path_factory.mktemp("live") / "voice.wav"
    path.write_bytes(as_wav(np.round(soxr.resample(spoken, RATE, MIC_RATE) * 32767), MIC_RATE))
    launched = chromium.browser_type.launch(
        executable_path=executable(),
        args=[
            "--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
            f"--use-file-for-fake-audio-capture={path}%noloop", f"--host-resolver-rules=MAP {FOREIGN_NAME} 127.0.0.1",
        ],
    )  # fmt: skip
    yield launched
    launched.close()


@pytest.fixture(scope="module")
def live_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    env = {
        "EMOTION_ALLOWED_HOSTS": json.dumps(["127.0.0.1", FOREIGN_NAME]), "EMOTION_PRELOAD": "true",
        "EMOTION_LIMITS__STREAM_SESSIONS": str(SESSIONS), "EMOTION_LIMITS__STREAM_DEADLINE_S": "10",
    }  # fmt: skip
    with served(tmp_path_factory.mktemp("live-site"), **env) as running:
        yield running


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """Opens the Live page; at the end: nothing was asked of other hosts, no error was thrown."""
    contexts, visits = [], []

    def open_(
        url: str,
        lang: str = "en-US",
        width: int = 1280,
        scheme: str = "light",
        with_: Browser = browser,
        allowed: bool = True,
    ) -> Visit:
        context = with_.new_context(
            locale=lang,
            viewport={"width": width, "height": 844},
            color_scheme=scheme,
            permissions=["microphone"] if allowed else [],
        )
        contexts.append(context)
        visits.append(Visit(context, url))
        return visits[-1]

    yield open_
    for context in contexts:
        context.close()
    for one in visits:
        assert not one.foreign, one.foreign
        assert not one.wrong, one.wrong


def test_final_results_equal_uploads_and_only_save_keeps(
    visit: Callable[..., Visit], live_site: Served, spoken: np.ndarray, shots: Path
) -> None:
    seen = visit(live_site.url, "zh-CN")
    page = seen.page
    page.click(".ser-live-rules input >> nth=1")  # negative emotions
    page.locator(".ser-live-options summary").click()
    page.locator("[data-rule=who]").select_option("angry")
    page.locator("[data-rule=much]").select_option("30")
    page.locator("[data-rule=how]").select_option("hold 1")
    page.click(".ser-live-add")
    expect(page.locator(".ser-live-rules li")).to_have_count(3)
    before = set(live_site.outputs.glob("*"))
    seen.start()
    seen.says("已连接，正在聆听")
    seen.until("speech_started")
    expect(page.locator(".ser-live-vad")).to_have_text("有人说话")
    seen.until("emotion_result", final=False)
    expect(page.locator(".ser-live-now h2")).to_have_text(NAMED_ZH)  # a tie is not told: maybe a window later
    page.screenshot(path=shots / "live_speaking_zh-CN_1280.png", full_page=True)
    seen.until("emotion_result", len(STYLES), final=True)
    page.wait_for_timeout(300)
    page.screenshot(path=shots / "live_heard_zh-CN_1280.png", full_page=True)
    shown = page.inner_text(".ser-live-now h2")
    assert shown == next(e.zh for e in EMOTIONS if e.key == seen.finals()[-1]["emotion"])
    seen.stop()

    sent = np.frombuffer(seen.sent, "<i2")
    late = delay(sent / 32768, spoken)
    for final in seen.finals():
        a, b = final["start_sample"], final["stop_sample"]
        exact = upload(live_site, sent[a:b])
        assert exact["emotion"] == final["emotion"]
        assert differ(exact["scores"], final["scores"]) <= EXACT
        near = upload(live_site, np.round(32767 * spoken[max(0, a - late) : b - late]))
        assert near["emotion"] == final["emotion"]
        assert differ(near["scores"], final["scores"]) <= NEAR
    assert page.locator(".ser-live-list li").count() == len(seen.finals())
    ended = seen.of("session.ended")[0]["stats"]
    assert ended["received"] == len(sent) == ended["analysed"] + ended["silent"]
    if seen.of("alert"):
        expect(page.locator(".ser-live-alert")).to_contain_text("提醒")
    assert set(live_site.outputs.glob("*")) == before, "nothing is kept that nobody asked for"
    folder = seen.save(live_site)
    page.screenshot(path=shots / "live_saved_zh-CN_1280.png", full_page=True)
    with wave.open(str(folder / "processed_audio.wav")) as file:
        kept = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    assert np.array_equal(kept, sent)
    assert set(live_site.outputs.glob("*")) - before == {folder}
    with page.expect_download() as download:
        page.click(".ser-live-csv")
    table = Path(download.value.path()).read_text("utf-8-sig").splitlines()
    assert len(table) == 1 + len(seen.finals())
    page.click(".ser-live-drop")
    seen.state("idle")


def test_phone_dark_space_key_and_both_languages(visit: Callable[..., Visit], live_site: Served, shots: Path) -> None:
    seen = visit(live_site.url, "en-US", 390, "dark")
    page = seen.page
    page.screenshot(path=shots / "live_idle_en-US_390_dark.png", full_page=True)
    assert page.evaluate(CONTRAST) == []
    page.locator("h2").first.focus()
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Space")
    seen.state("live")
    seen.until("emotion_result", final=False)
    page.screenshot(path=shots / "live_speaking_en-US_390_dark.png", full_page=True)
    assert page.evaluate(WIDE) == []
    assert page.evaluate(CONTRAST) == []
    assert not chinese_in(page.inner_text("#ser-live"))
    page.click("#ser-lang label:nth-of-type(1)")  # in the middle of a session
    expect(page.locator(".ser-live-start")).to_contain_text("停止")
    page.wait_for_timeout(300)
    assert not english_in(page.inner_text("#ser-live"))
    expect(page.locator(".ser-live-now h2")).to_have_text(NAMED_ZH)
    seen.until("emotion_result", final=True)
    page.screenshot(path=shots / "live_heard_zh-CN_390_dark.png", full_page=True)
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Space")
    seen.state("ended")
    assert page.evaluate(WIDE) == []
    assert page.evaluate(CONTRAST) == []
    assert not english_in(page.inner_text("#ser-live").replace("CSV", ""))
    page.screenshot(path=shots / "live_ended_zh-CN_390_dark.png", full_page=True)
    box = page.locator(".ser-live-timeline canvas").bounding_box()
    first = seen.finals()[0]
    total = len(seen.sent) / 2 / RATE
    middle = (first["audio_start_ms"] + first["audio_end_ms"]) / 2000
    page.mouse.move(box["x"] + box["width"] * middle / total, box["y"] + 70)
    expect(page.locator(".ser-live-tip")).to_contain_text("%")


def test_a_break_is_bridged(visit: Callable[..., Visit], live_site: Served, shots: Path) -> None:
    """Cut while somebody speaks: the session goes on, no sample and no event is lost or repeated."""
    cable = Cable(live_site.port)
    try:
        seen = visit(cable.url)
        seen.start()
        seen.until("speech_started")
        cable.cut()
        seen.state("lost")
        seen.says("Connection lost")
        seen.page.wait_for_timeout(300)
        seen.page.screenshot(path=shots / "live_lost_en-US_1280.png", full_page=True)
        cable.mend()
        seen.says("Connected again, nothing was lost")
        seen.until("emotion_result", len(STYLES), final=True)
        seen.stop()
        folder = seen.save(live_site)
    finally:
        cable.close()
    assert len({e["session_id"] for e in seen.events}) == 1
    numbers = [e["event_id"] for e in seen.events if e.get("event_id")]
    assert numbers == list(range(1, len(numbers) + 1))
    assert not seen.of("audio_gap")
    with wave.open(str(folder / "processed_audio.wav")) as file:
        kept = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    stats = seen.of("session.ended")[0]["stats"]
    assert stats["received"] == len(kept)
    assert stats["declared_dropped"] == 0
    for final in seen.finals():
        exact = upload(live_site, kept[final["start_sample"] : final["stop_sample"]])
        assert differ(exact["scores"], final["scores"]) <= EXACT


def test_a_new_program_takes_over(visit: Callable[..., Visit], live_site: Served, site: Served) -> None:
    """The session is gone with its server: a new one goes on from the running utterance."""
    cable = Cable(live_site.port)
    try:
        seen = visit(cable.url)
        seen.start()
        seen.until("speech_started")
        cable.cut()
        seen.state("lost")
        cable.mend(site.port)
        seen.says("with a new session")
        seen.until("session.ready", 2)
        second = seen.of("session.created")[1]["session_id"]
        seen.until("emotion_result", len(STYLES), final=True, session_id=second)
        seen.stop()
    finally:
        cable.close()
    assert seen.page.locator(".ser-live-list li").count() == len(seen.finals())
    times = seen.page.locator(".ser-live-list em").all_inner_texts()
    assert times == sorted(times), "one timeline over both sessions"


def test_not_reachable_and_token(visit: Callable[..., Visit], live_site: Served) -> None:
    cable = Cable(live_site.port)
    try:
        seen = visit(cable.url)
        cable.cut()
        seen.start()
        seen.says("cannot be reached")
        expect(seen.page.locator(".ser-live-trouble button")).to_have_text("Try again")
        seen.page.route("**/api/v1/models", lambda route: route.fulfill(status=401, body="{}"))
        seen.page.click(".ser-live-trouble button")
        seen.says("asks for its token")
        seen.state("idle")
        seen.page.unroute("**/api/v1/models")
        cable.mend()
        seen.open()
        seen.start()
        seen.state("live")
        seen.stop()
    finally:
        cable.close()


def test_at_capacity(visit: Callable[..., Visit], live_site: Served) -> None:
    url = f"ws://127.0.0.1:{live_site.port}/ws/emotion"
    seen = visit(live_site.url, "zh-CN")
    others = []
    try:
        end = time.monotonic() + 30
        while len(others) < SESSIONS and time.monotonic() < end:
            ws = connect(url, proxy=None)
            ws.send('{"type": "session.start"}')
            if json.loads(ws.recv(10))["type"] == "session.created":
                others.append(ws)
            else:  # an earlier test's session is still ending
                time.sleep(0.2)
        seen.start()
        seen.says(f"全部 {SESSIONS} 个实时会话已占用")
        seen.state("idle")
    finally:
        for ws in others:
            ws.close()
    seen.page.click(".ser-live-trouble button")
    seen.state("live")
    seen.stop()


def test_refusals_in_words(visit: Callable[..., Visit], chromium: Browser, live_site: Served, shots: Path) -> None:
    strange = visit(f"http://{FOREIGN_NAME}:{live_site.port}", allowed=False)
    strange.start()
    strange.says("only on localhost or over HTTPS")
    bare = chromium.browser_type.launch(executable_path=executable(), args=["--no-sandbox"])
    try:
        none = visit(live_site.url, with_=bare)
        none.start()
        none.says("No microphone was found")
    finally:
        bare.close()
    shy = chromium.browser_type.launch(
        executable_path=executable(), args=["--no-sandbox", "--use-fake-device-for-media-stream"]
    )
    try:
        denied = visit(live_site.url, "zh-CN", 390, with_=shy, allowed=False)
        denied.start()
        denied.says("浏览器不允许使用麦克风")
        denied.state("idle")
        denied.page.screenshot(path=shots / "live_denied_zh-CN_390.png", full_page=True)
    finally:
        shy.close()
