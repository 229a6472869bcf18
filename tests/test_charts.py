"""Pictures: right size, right colours, words that the system can draw, no shared state."""

from __future__ import annotations

import io
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import matplotlib.image
import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.colors import to_rgb

from emotion_app import charts
from emotion_app.charts import result_charts, scores_png, timeline_png
from emotion_app.labels import EMOTIONS, INDEX
from emotion_app.types import Prediction, Timeline
from tests.results import make_result

HAS_CJK = charts._cjk_font() is not None


def pixels(png: bytes) -> np.ndarray:
    assert png.startswith(b"\x89PNG")
    return (matplotlib.image.imread(io.BytesIO(png))[..., :3] * 255).round().astype(int)


def colour(key: str) -> np.ndarray:
    return (np.array(to_rgb(EMOTIONS[INDEX[key]].colour)) * 255).round().astype(int)


def drawn_words(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words that reach the sheet, as it is drawn."""
    seen: list[str] = []
    write = charts._Sheet.write

    def spy(self: charts._Sheet, x: float, y: float, text: str, *args: object, **kwargs: object) -> float:
        seen.append(charts._drawable(text, self.letters))
        return write(self, x, y, text, *args, **kwargs)

    monkeypatch.setattr(charts._Sheet, "write", spy)
    return seen


@pytest.fixture(autouse=True)
def no_boxes() -> object:
    """matplotlib warns for each glyph that it would draw as a box."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_bars_are_as_long_as_the_scores(lang: str) -> None:
    scores = np.array([0.02, 0.05, 0.1, 0.5, 0.15, 0.0, 0.08, 0.06, 0.04])
    image = pixels(scores_png(Prediction(scores), lang))
    assert image.shape == (860, 1280, 3)
    for row, emotion in enumerate(EMOTIONS):
        line = image[2 * (118 + row * 31), 300:1080]  # through the middle of the track
        length = (np.abs(line - colour(emotion.key)).max(axis=1) <= 2).sum()
        assert abs(length - 780 * scores[row]) <= 3, emotion.key


def test_chinese_words_when_there_is_a_font(monkeypatch: pytest.MonkeyPatch) -> None:
    if not HAS_CJK:
        pytest.skip("this system has no Chinese font")
    words = drawn_words(monkeypatch)
    scores_png(make_result().prediction, "zh")
    assert {e.zh for e in EMOTIONS} <= set(words) and not {e.en for e in EMOTIONS} & set(words)


def test_english_words_when_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    latin = [f for f in font_manager.fontManager.ttflist if f.name.startswith("DejaVu")]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", latin)
    words = drawn_words(monkeypatch)
    result_charts(make_result(name="你好 hello.m4a"), "zh")
    assert {e.en for e in EMOTIONS} <= set(words)
    assert not [letter for word in words for letter in word if ord(letter) > 0x2E80]
    assert any("hello.m4a" in word for word in words)


def test_a_font_without_the_words_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "CJK_FONTS", ("DejaVu Sans", "No Such Font"))
    assert charts._cjk_font() is None


@pytest.mark.parametrize("name", ["$x^2$ \\frac.wav", "😀🧨𠮷 مرحبا\n\x00.wav", "", "a" * 5000, "\udcff.wav",
                                  "<b>&amp;"])
def test_any_file_name_can_be_drawn(name: str) -> None:
    assert pixels(timeline_png(make_result(0.5, name=name), "en")).shape == (1080, 1920, 3)


def test_the_band_shows_the_segments() -> None:
    result = make_result(11.4)
    image = pixels(timeline_png(result, "en"))
    assert [s.prediction.label for s in result.segments] == ["neutral", "happy", "surprised", "sad"]
    for segment in result.segments:  # just beside its left edge, above the word
        x = 148 + 1708 * (segment.start_s + 0.1) / result.waveform.duration_s
        assert np.abs(image[2 * 175, round(x)] - colour(segment.prediction.label)).max() <= 2


def test_words_stand_in_the_band_where_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    words = drawn_words(monkeypatch)
    timeline_png(make_result(10.0, story=(("happy", 0.95), ("angry", 0.05))), "en")
    assert words.count("Happy") == 3  # headline, band, legend
    assert words.count("Angry") <= 2  # runner-up perhaps, legend; the band is too narrow there


@pytest.mark.parametrize("duration_s", [0.025, 0.1, 1.0, 59.99, 600.0, 3601.0])
def test_every_length(duration_s: float) -> None:
    image = pixels(timeline_png(make_result(duration_s), "zh"))
    assert image.shape == (1080, 1920, 3)
    assert (image[:, -16:] == 255).all()  # nothing runs out of the right margin


def test_decimation_keeps_the_sum_and_the_ends() -> None:
    rng = np.random.default_rng(0)
    scores = rng.dirichlet(np.ones(9), 100_003).astype(np.float32)
    at_s, columns = charts._columns(Timeline(scores))
    assert columns.shape == (charts.MAX_COLUMNS, 9)
    np.testing.assert_allclose(columns.sum(axis=1), 1, atol=1e-6)
    assert 0 < at_s[0] < 1 and 0 < 100_003 * 0.02 - at_s[-1] < 1


def test_silence_and_many_segments() -> None:
    story = tuple((EMOTIONS[i % 9].key, 1 / 400) for i in range(400))
    result = make_result(400.0, story=story)
    assert len(result.segments) > 300
    silent = replace(result, waveform=replace(result.waveform, samples=np.zeros_like(result.waveform.samples)))
    pixels(timeline_png(silent, "zh"))


def test_which_pictures_belong_to_a_result() -> None:
    assert list(result_charts(make_result(frame=False))) == ["scores.png"]
    assert list(result_charts(make_result(), "zh")) == ["scores.png", "timeline.png"]
    with pytest.raises(ValueError, match="granularity"):
        timeline_png(make_result(frame=False), "en")


def test_threads_draw_the_same() -> None:
    results = [make_result(2.0), make_result(3.0)]
    alone = [timeline_png(r, "zh") for r in results]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda r: timeline_png(r, "zh"), results * 2)) == alone * 2


def test_matplotlib_is_loaded_late_and_without_pyplot() -> None:
    code = ("import sys, emotion_app.charts as c; assert 'matplotlib' not in sys.modules;"
            "from tests.results import make_result; c.result_charts(make_result());"
            "assert 'matplotlib.pyplot' not in sys.modules and 'matplotlib.figure' in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True)
