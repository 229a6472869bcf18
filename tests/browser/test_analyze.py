"""The main job in a real browser: drop a clip, get its emotion, listen, download."""

import json
import re
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import pytest
from playwright.sync_api import Page, expect

from emotion_app.audio import load
from emotion_app.labels import EMOTIONS
from emotion_app.settings import Limits
from tests.audio_files import encode, tone
from tests.served import Served

FORMATS = {  # file name -> container and codec
    "clip.m4a": ("mp4", "aac"), "clip.mp3": ("mp3", "libmp3lame"), "clip.wav": ("wav", "pcm_s16le"),
    "clip.ogg": ("ogg", "libopus"), "clip.flac": ("flac", "flac"), "clip.webm": ("webm", "libopus"),
    "film.mp4": ("mp4", "aac"),
}  # fmt: skip
OpenPage = Callable[..., Page]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, clips: list[Path]) -> dict[str, Path]:
    """One clip in every format."""
    folder = tmp_path_factory.mktemp("formats")
    samples = load(clips[0], limits=Limits()).samples[None, :]
    made = {}
    for name, (container, codec) in FORMATS.items():
        made[name] = folder / name
        rate = 48_000 if codec == "libopus" else 16_000
        made[name].write_bytes(encode(samples, rate, container, codec, picture=name.startswith("film")))
    return made


def give(page: Page, path: Path) -> None:
    page.set_input_files(".ser-input input[type=file]", path)
    expect(page.locator(".ser-input")).to_have_attribute("data-state", "chosen")


def analyze(page: Page) -> None:
    """Press the button and wait until the answer is there and saved."""
    page.click("#ser-analyze")
    page.wait_for_selector(".ser-zip, .ser-failed")
    assert not page.locator(".ser-failed").count(), page.inner_text("#ser-result")


def folder_of(page: Page, site: Served) -> Path:
    return site.outputs / (page.get_attribute(".ser-zip", "download") or "").removesuffix(".zip")


@pytest.mark.parametrize("name", list(FORMATS))
def test_upload(open_page: OpenPage, site: Served, files: dict[str, Path], name: str) -> None:
    page = open_page()
    give(page, files[name])
    assert name in page.inner_text(".ser-file")
    analyze(page)
    result = json.loads((folder_of(page, site) / "result.json").read_text("utf-8"))
    assert result["source"]["name"] == name
    emotion = next(e for e in EMOTIONS if e.key == result["emotion"])
    headline = page.inner_text(".ser-hero h2")
    assert emotion.en in headline
    assert emotion.zh in headline
    assert page.inner_text(".ser-score b") == f"{100 * result['confidence']:.1f} %"
    assert page.locator(".ser-bar").count() == 9
    assert page.locator("#ser-stop").is_hidden()


def test_pressed_before_the_file_is_there(open_page: OpenPage, files: dict[str, Path]) -> None:
    page = open_page()
    page.route("**/gradio_api/upload*", lambda route: (time.sleep(1), route.continue_()))
    page.set_input_files(".ser-input input[type=file]", files["clip.wav"])
    analyze(page)


def test_drop_anywhere_on_the_page(open_page: OpenPage, files: dict[str, Path]) -> None:
    page = open_page()
    data = page.evaluate_handle(
        """([bytes, name]) => { const t = new DataTransfer();
        t.items.add(new File([new Uint8Array(bytes)], name)); return t; }""",
        [list(files["clip.flac"].read_bytes()), "dropped.flac"],
    )
    for event in ("dragenter", "dragover", "drop"):
        page.dispatch_event("#ser-result", event, {"dataTransfer": data})
    expect(page.locator(".ser-file b")).to_have_text("dropped.flac")
    expect(page.locator(".ser-input")).to_have_attribute("data-state", "chosen")
    analyze(page)


def test_record(open_page: OpenPage, site: Served) -> None:
    page = open_page("zh-CN", 390)
    page.click(".ser-rec")
    expect(page.locator(".ser-clock")).to_have_text("0:02")
    page.click(".ser-rec-stop")
    expect(page.locator(".ser-input")).to_have_attribute("data-state", "chosen")
    analyze(page)
    saved = load(folder_of(page, site) / "processed_audio.wav", limits=Limits())
    assert 2.0 <= saved.duration_s < 6
    assert abs(saved.samples).max() > 0.01, "the microphone was heard"


def test_example_over_time(open_page: OpenPage, site: Served) -> None:
    page = open_page("zh-CN")
    page.click(".ser-example[data-example*=changing]")
    expect(page.locator(".ser-file small")).to_contain_text("秒")
    page.click("#ser-granularity label:nth-of-type(2)")
    page.click("#ser-embedding input")
    analyze(page)
    folder = folder_of(page, site)
    result = json.loads((folder / "result.json").read_text("utf-8"))
    assert {p.name for p in folder.iterdir()} >= {"embedding.npy", "frames.csv", "timeline.png", "scores.png"}
    assert page.locator(".ser-strip button").count() == len(result["segments"])

    def caption_at(share: float) -> None:
        box = page.locator(".ser-player .ser-seek").first.bounding_box()
        page.mouse.click(box["x"] + share * box["width"], box["y"] + 20)
        at = share * result["duration_s"]
        segment = next(s for s in result["segments"] if s["start_s"] <= at < s["end_s"])
        word = next(e.zh for e in EMOTIONS if e.key == segment["emotion"])
        expect(page.locator(".ser-caption")).to_contain_text(word)

    longest = sorted(result["segments"], key=lambda s: s["start_s"] - s["end_s"])[:3]
    for s in longest:
        caption_at((s["start_s"] + s["end_s"]) / 2 / result["duration_s"])


def test_player(open_page: OpenPage) -> None:
    """Sound plays, time runs, keys seek, the list seeks."""
    page = open_page()
    page.click(".ser-example[data-example*=changing]")
    page.click("#ser-granularity label:nth-of-type(2)")
    analyze(page)

    def now() -> float:
        minutes, seconds = page.inner_text(".ser-time").split(" / ")[0].split(":")
        return 60 * int(minutes) + float(seconds)

    page.focus(".ser-player")
    page.keyboard.press("Space")
    page.wait_for_function("parseFloat(document.querySelector('.ser-time').innerText.split(':')[1]) > 0.4")
    expect(page.locator(".ser-play")).to_have_attribute("aria-label", "Pause")
    page.keyboard.press("Space")
    expect(page.locator(".ser-play")).to_have_attribute("aria-label", "Play")
    page.keyboard.press("Home")
    expect(page.locator(".ser-time")).to_contain_text("0:00.0 /")
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    assert now() == pytest.approx(2, abs=0.1)
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert now() == pytest.approx(6, abs=0.1)
    page.click(".ser-player summary")
    page.click(".ser-segments li:nth-child(2) button")
    assert now() == pytest.approx(
        float(page.get_attribute(".ser-segments li:nth-child(2) button", "data-t") or 0), abs=0.1
    )


def test_downloads_equal_the_folder(open_page: OpenPage, site: Served, files: dict[str, Path]) -> None:
    page = open_page()
    give(page, files["clip.wav"])
    analyze(page)
    folder = folder_of(page, site)
    on_disk = {p.name: p.read_bytes() for p in folder.iterdir()}
    with page.expect_download() as zipped:
        page.click(".ser-zip")
    with zipfile.ZipFile(zipped.value.path()) as archive:
        assert {Path(n).name: archive.read(n) for n in archive.namelist()} == on_disk
    for link in page.locator(".ser-downloads a:not(.ser-zip)").all():
        with page.expect_download() as single:
            link.click()
        name = single.value.suggested_filename
        assert Path(single.value.path()).read_bytes() == on_disk[name]


def test_failures_have_a_way_out(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page()
    page.click("#ser-analyze")
    page.wait_for_selector(".ser-failed")
    assert "No sound yet" in page.inner_text(".ser-failed")

    bad = tmp_path / "<img src=x onerror=alert(1)>.wav"
    bad.write_bytes(b"RIFF not really a sound" * 9)
    give(page, bad)
    page.click("#ser-analyze")
    expect(page.locator(".ser-failed")).to_contain_text("cannot be read as sound")
    with page.expect_file_chooser():
        page.click(".ser-act")

    page.click(".ser-example >> nth=0")
    page.click("#ser-model label:nth-of-type(2)")
    page.click("#ser-analyze")
    expect(page.locator(".ser-act")).to_have_text("Use the embedded model")
    page.click(".ser-act")
    page.wait_for_selector(".ser-hero")
    assert page.inner_text("#ser-model label.selected") == "Embedded"


def test_which_model_answers_is_said(open_page: OpenPage) -> None:
    page = open_page()
    page.click(".ser-example >> nth=0")
    page.keyboard.press("Escape")
    analyze(page)
    assert "embedded" in page.inner_text(".ser-notes").lower()
    expect(page.locator(".ser-chip-lite")).to_be_visible()


def requests_by_outcome(site: Served) -> dict[str, float]:
    text = urlopen(f"{site.url}/metrics", timeout=5).read().decode()
    return {
        code: float(n) for code, n in re.findall(r'emotion_requests_total{door="page",outcome="(\w+)"} (\S+)', text)
    }


@pytest.mark.parametrize("how", ["button", "closing the page"])
def test_stop(open_page: OpenPage, site: Served, tmp_path: Path, how: str) -> None:
    page = open_page()
    long = tmp_path / "long.flac"
    long.write_bytes(encode(tone(300 if how == "button" else 290), 16_000, "flac", "flac"))
    before = requests_by_outcome(site).get("CANCELLED", 0)
    folders = set(site.outputs.glob("outputs_*"))
    give(page, long)
    page.click("#ser-analyze")
    expect(page.locator(".ser-now h2")).to_have_text(re.compile("Listening|Waiting"))
    if how == "button":
        page.click("#ser-stop")
        expect(page.locator(".ser-empty h2")).to_have_text("Stopped")
        expect(page.locator("#ser-analyze")).to_be_visible()
    else:
        page.close()
    until = time.monotonic() + 20
    while requests_by_outcome(site).get("CANCELLED", 0) == before and time.monotonic() < until:
        time.sleep(0.2)
    assert requests_by_outcome(site)["CANCELLED"] == before + 1
    assert set(site.outputs.glob("outputs_*")) == folders, "nothing is kept of what was stopped"


def test_enter_analyzes(open_page: OpenPage) -> None:
    page = open_page()
    page.click(".ser-example >> nth=0")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Enter")
    page.wait_for_selector(".ser-hero")


def test_nothing_lies_about_after_the_answer(open_page: OpenPage) -> None:
    """Raw markers of Gradio's translation, objects and placeholders are nowhere."""
    page = open_page("zh-CN")
    for tab in page.locator("#ser-tabs [role=tab]").all():
        tab.click()
        text = page.inner_text("body") + page.title()
        assert not re.search(r"\[object|__i18n__|undefined|NaN|\{[a-z_]+\}|ser_", text), text
