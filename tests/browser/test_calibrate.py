"""Personal baselines in a real browser: say a few sentences, save, analyze with them, choose, replace, delete."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from playwright.sync_api import Page, expect

from emotion_app.testing import write_checkpoint
from tests.audio_files import encode
from tests.browser.test_look import CONTRAST, WIDE, chinese_in, english_in
from tests.served import Served, served

OpenPage = Callable[..., Page]
EVIL = "<img src=x onerror=alert(1)>.wav"
SEEN = "[...document.querySelectorAll('#ser-say, #ser-takes, #ser-told')].map((e) => e.innerText).join('\\n')"


@pytest.fixture(autouse=True)
def nothing_left(site: Served) -> Iterator[None]:
    """The next page opens without baselines."""
    yield
    for path in (site.outputs.parent / "baselines").glob("*.json"):
        path.unlink()


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory, clips: list[Path]) -> list[Path]:
    """Five short clips with speech, under names of their own."""
    folder = tmp_path_factory.mktemp("sentences")
    short = [clip for clip in clips if "changing" not in clip.name][:5]
    return [Path(shutil.copy(clip, folder / f"sentence_{n}.flac")) for n, clip in enumerate(short)]


def calibrate(page: Page) -> Page:
    page.click("#ser-calibrate-tab-button")
    page.wait_for_selector("#ser-sentence .ser-input[data-state=idle]")
    return page


def say(page: Page, *paths: Path) -> None:
    page.set_input_files("#ser-sentence input[type=file]", list(paths))


def accepted(page: Page, n: int) -> None:
    expect(page.locator(".ser-takes .ser-ok")).to_have_count(n)
    expect(page.locator("#ser-sentence .ser-input")).to_have_attribute("data-state", "idle")


def save(page: Page, name: str) -> None:
    page.fill("#ser-name :is(input, textarea)", name)
    page.click("#ser-save")


def analyze(page: Page, clip: Path) -> None:
    page.set_input_files("#ser-sound input[type=file]", clip)
    expect(page.locator("#ser-sound .ser-input")).to_have_attribute("data-state", "chosen")
    page.click("#ser-analyze")
    page.wait_for_selector(".ser-zip, .ser-failed")


def percent(score: float) -> str:
    return f"{100 * score:.1f} %"


@pytest.mark.parametrize("lang", ["zh-CN", "en-US"])
def test_the_whole_way(open_page: OpenPage, site: Served, sentences: list[Path], clips: list[Path], lang: str) -> None:
    """From the first sentence to both scores in page and folder, then chosen, kept, and deleted."""
    page = calibrate(open_page(lang))
    zh = lang == "zh-CN"
    foreign = english_in if zh else chinese_in
    expect(page.locator("#ser-save")).to_be_disabled()
    say(page, sentences[0])
    accepted(page, 1)
    expect(page.locator("#ser-told")).to_contain_text("2")
    say(page, *sentences[1:3])  # two at once
    accepted(page, 3)
    expect(page.locator(".ser-steps")).to_have_attribute("aria-valuenow", "3")
    assert not foreign(page.evaluate(SEEN))
    assert not list(site.outputs.parent.rglob("sentence_*.flac")), "the sound is not kept"

    save(page, "")
    expect(page.locator(".ser-told.ser-no")).to_be_visible()
    save(page, "../etc")
    expect(page.locator(".ser-told.ser-no")).to_contain_text("不能用作名称" if zh else "cannot be a name")
    save(page, " 小明 1 ")
    expect(page.locator(".ser-told.ser-ok")).to_contain_text("小明 1")
    kept = json.loads((site.outputs.parent / "baselines" / "小明 1.json").read_text("utf-8"))
    assert (kept["count"], kept["neutral_share"]) == (3, 0.85)
    row = page.locator("#ser-saved li")
    expect(row).to_contain_text("3 段 · lite" if zh else "3 clips · lite")
    expect(row).to_contain_text("85 %")
    expect(row.locator("[data-act=use]")).to_have_attribute("aria-pressed", "true")

    page.click("[data-act=go]")
    expect(page.locator(".ser-baseline select")).to_have_value("小明 1")
    page.click("#ser-granularity label:nth-of-type(2)")
    analyze(page, clips[-1])
    folder = site.outputs / (page.get_attribute(".ser-zip", "download") or "").removesuffix(".zip")
    result = json.loads((folder / "result.json").read_text("utf-8"))
    adjusted = result["adjusted"]
    assert (result["shown"], adjusted["baseline"], adjusted["count"]) == ("adjusted", "小明 1", 3)
    assert page.inner_text(".ser-score b") == percent(adjusted["confidence"])
    line = page.inner_text(".ser-judged")
    assert ("已按 小明 1 校准（3 段）" if zh else "adjusted to 小明 1 (3 clips)") in line
    assert percent(result["confidence"]) in line
    bars = page.locator(".ser-both .ser-bar")
    assert bars.locator("em").all_inner_texts() == [percent(s) for s in adjusted["scores"].values()]
    assert bars.locator("small").all_inner_texts() == [percent(s) for s in result["scores"].values()]
    assert page.locator(".ser-strip button").count() == len(result["adjusted_segments"])

    page.reload()
    expect(page.locator(".ser-baseline select")).to_have_value("小明 1")  # this browser remembers
    calibrate(page)
    page.click("#ser-saved [data-act=ask]")
    page.click("#ser-saved [data-act=keep]")
    expect(row).to_have_count(1)
    page.click("#ser-saved [data-act=ask]")
    page.click("#ser-saved [data-act=delete]")
    expect(row).to_have_count(0)
    page.locator("#ser-tabs [role=tab]").first.click()
    expect(page.locator(".ser-baseline select")).to_have_value("")
    assert page.evaluate("localStorage.getItem('ser_baseline')") is None
    analyze(page, clips[-1])
    assert not page.locator(".ser-judged").count()


def test_refused_in_words_and_the_switch(open_page: OpenPage, sentences: list[Path], tmp_path: Path) -> None:
    """Silence, a click and a file that is no sound: each is said, in the language of the moment; nothing counts."""
    rng = np.random.default_rng(0)
    click = 0.1 * rng.standard_normal((1, 6_000))
    sounds = {"silence.wav": np.zeros((1, 32_000)), "short.wav": click, EVIL: np.zeros((1, 20_000))}
    page = calibrate(open_page())
    for name, samples in sounds.items():
        (tmp_path / name).write_bytes(encode(samples.astype(np.float32), 16_000, "wav", "pcm_s16le"))
    (tmp_path / "text.wav").write_bytes(b"no sound")
    for n, (name, why) in enumerate((("silence.wav", "almost silent"), ("short.wav", "too short"),
                                     ("text.wav", "cannot be read"), (EVIL, "almost silent")), start=1):  # fmt: skip
        say(page, tmp_path / name)
        expect(page.locator(".ser-takes .ser-no")).to_have_count(n)
        expect(page.locator(".ser-takes li").first).to_contain_text(re.compile(why))
    expect(page.locator(".ser-steps")).to_have_attribute("aria-valuenow", "0")
    assert not page.locator(".ser-takes img").count()
    say(page, sentences[0])
    accepted(page, 1)
    page.click("#ser-lang label:nth-of-type(1)")
    expect(page.locator("#ser-say blockquote")).to_contain_text("桌子")
    expect(page.locator(".ser-takes .ser-ok")).to_contain_text("已采用")
    expect(page.locator(".ser-takes .ser-no").last).to_contain_text("几乎没有声音")
    page.click("#ser-takes [data-act=over]")
    expect(page.locator(".ser-takes li")).to_have_count(0)
    expect(page.locator(".ser-steps")).to_have_attribute("aria-valuenow", "0")


def test_record_a_sentence(open_page: OpenPage) -> None:
    page = calibrate(open_page())
    page.click("#ser-sentence .ser-rec")
    expect(page.locator("#ser-sentence .ser-clock")).to_have_text("0:04")
    page.click("#ser-sentence .ser-rec-stop")
    accepted(page, 1)


def test_a_name_that_is_taken(open_page: OpenPage, site: Served, sentences: list[Path]) -> None:
    page = calibrate(open_page())
    path = site.outputs.parent / "baselines" / "me.json"
    for n in (3, 4):
        say(page, *sentences[:n])
        accepted(page, n)
        page.fill("#ser-name :is(input, textarea)", "me")
        page.keyboard.press("Enter")
        if n == 4:
            expect(page.locator("#ser-told")).to_contain_text("There is a baseline named me already")
            assert json.loads(path.read_text("utf-8"))["count"] == 3
            page.click("[data-act=other]")
            expect(page.locator("#ser-told")).not_to_contain_text("already")
            save(page, "me")
            page.click("[data-act=replace]")
        expect(page.locator(".ser-told.ser-ok")).to_contain_text(f"Saved as me ({n} clips)")
    assert json.loads(path.read_text("utf-8"))["count"] == 4


def test_never_in_silence(open_page: OpenPage, site: Served, sentences: list[Path], clips: list[Path]) -> None:
    """A baseline of another model is refused and offered again; one of two clips is not used, and that is said."""
    page = calibrate(open_page())
    say(page, *sentences[:3])
    accepted(page, 3)
    save(page, "me")
    expect(page.locator(".ser-told.ser-ok")).to_be_visible()
    path = site.outputs.parent / "baselines" / "me.json"
    data = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**data, "sha256": "0" * 64}), "utf-8")
    page.click("[data-act=go]")
    analyze(page, clips[0])
    expect(page.locator(".ser-failed")).to_contain_text("calibrate again")
    page.click(".ser-failed [data-act=calibrate]")
    expect(page.locator("#ser-say")).to_be_visible()

    path.write_text(json.dumps({**data, "count": 2, "recent": data["recent"][:2]}), "utf-8")
    page.locator("#ser-tabs [role=tab]").first.click()
    page.click("#ser-analyze")
    page.wait_for_selector(".ser-zip")
    assert not page.locator(".ser-judged").count()
    expect(page.locator(".ser-notes")).to_contain_text("has 2 clips; at least 3 are needed")

    path.unlink()  # deleted elsewhere
    page.click("#ser-analyze")
    page.click(".ser-failed [data-act=plain]")
    page.wait_for_selector(".ser-zip")
    expect(page.locator(".ser-baseline select")).to_have_value("")


def test_a_model_without_numbers(open_page: OpenPage, sentences: list[Path], tmp_path: Path) -> None:
    """A checkpoint has no rule yet: said at the first sentence, and the embedded model is offered."""
    with served(tmp_path, EMOTION_MODEL=str(write_checkpoint(tmp_path / "tiny"))) as site:
        page = calibrate(open_page("zh-CN", url=site.url))
        say(page, sentences[0])
        expect(page.locator("#ser-takes .ser-told")).to_contain_text("尚无基线所需的参数")
        page.click("#ser-takes [data-act=lite]")
        expect(page.locator("#ser-takes .ser-told")).to_have_count(0)
        say(page, sentences[0])
        accepted(page, 1)
        page.locator("#ser-tabs [role=tab]").first.click()
        expect(page.locator("#ser-model input").nth(2)).to_be_checked()
        page.close()  # before its server


@pytest.mark.parametrize(("lang", "width", "scheme"), [("zh-CN", 390, "dark"), ("en-US", 1280, "light")])
def test_pictures(open_page: OpenPage, sentences: list[Path], shots: Path, lang: str, width: int, scheme: str) -> None:
    """No sideways scrolling, text readable; the pictures are for looking at."""
    page = calibrate(open_page(lang, width, scheme))
    for n, name in ((0, "empty"), (4, "four"), (0, "saved")):
        if n:
            say(page, *sentences[:n])
            accepted(page, n)
        elif name == "saved":
            save(page, "Maximilian Third with the USB headset 02")
            page.wait_for_selector(".ser-told.ser-ok")
            page.click("#ser-saved [data-act=ask]")
        page.wait_for_timeout(400)
        page.screenshot(path=shots / f"calibrate_{name}_{lang}_{width}_{scheme}.png", full_page=True)
        assert page.evaluate(WIDE) == []
        assert [wrong for wrong in page.evaluate(CONTRAST) if "lg" not in wrong] == []  # but for a button that is off


def test_programs_have_it_too(site: Served, open_page: OpenPage, sentences: list[Path]) -> None:
    """The name saved on the page is the one that REST takes."""
    page = calibrate(open_page())
    say(page, *sentences[:3])
    accepted(page, 3)
    save(page, "me")
    page.wait_for_selector(".ser-told.ser-ok")
    with sentences[0].open("rb") as file:
        done = httpx.post(f"{site.url}/api/v1/analyze", files={"file": file}, data={"baseline": "me"}, timeout=60)
    assert done.json()["adjusted"]["baseline"] == "me"
