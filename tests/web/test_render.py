"""What the result column shows for each kind of view, as text."""

import re
from datetime import datetime
from html import unescape

import numpy as np
import pytest

from emotion_app.errors import PROBLEMS, AudioError, EmotionError, ModelError
from emotion_app.labels import EMOTIONS
from emotion_app.notes import Note
from emotion_app.types import ModelInfo, Prediction, Result, Segment, Timeline, Timing, Waveform
from emotion_app.web.i18n import load_words
from emotion_app.web.ui.player import clock
from emotion_app.web.ui.render import percent, render, size_text
from emotion_app.web.ui.views import Empty, Failed, Running, Step, view_of

WORDS = load_words()
EVIL = "<img src=x onerror=alert(1)>\"'.wav"


def text_of(html: str) -> str:
    return unescape(re.sub(r"<[^>]*>", " ", html))


def make_result(granularity: str = "frame", seconds: float = 12.0) -> Result:
    n = int(seconds * 50)
    scores = np.full((n, 9), 0.02, np.float32)
    scores[: n // 2, 3], scores[n // 2 :, 6] = 0.84, 0.84
    utterance = np.array([0.01, 0.01, 0.01, 0.6, 0.05, 0.01, 0.2, 0.1, 0.01])
    line = Timeline(scores)
    halves = [Prediction(scores[a:b].astype(float).mean(0) / scores[a:b].astype(float).mean(0).sum())
              for a, b in ((0, n // 2), (n // 2, n))]  # fmt: skip
    frame = granularity == "frame"
    return Result(
        prediction=Prediction(utterance), granularity=granularity,
        waveform=Waveform(np.sin(np.arange(int(seconds * 16_000)) / 20).astype(np.float32), name=EVIL),
        model=ModelInfo("lite", "lite", "embedded", "torch", "fp32", "cpu", 256), timing=Timing(0.1, 0.2, 0.0, 0.3),
        created=datetime.now().astimezone(), frames=line if frame else None, timeline=line if frame else None,
        segments=(Segment(0, seconds / 2, halves[0]), Segment(seconds / 2, seconds, halves[1])) if frame else (),
        notes=(Note("mixed_down", {"channels": 2}),),
    )  # fmt: skip


@pytest.mark.parametrize("lang", ["zh", "en"])
@pytest.mark.parametrize("granularity", ["utterance", "frame"])
def test_done(lang: str, granularity: str) -> None:
    html = render(view_of(make_result(granularity), None, (Step("decode", 1, 0.1),)), WORDS[lang])
    text = text_of(html)
    for emotion in EMOTIONS:
        assert emotion.name(lang) in text
    assert "60.0 %" in text
    assert "20.0 %" in text, "the runner-up is in sight"
    assert ("2 个声道" if lang == "zh" else "2 channels") in text
    assert "<img" not in html, "a file name is text"
    assert EVIL in text
    assert ("data-track" in html) == (granularity == "frame")


def test_captions_and_waveform_follow_the_segments() -> None:
    view = view_of(make_result(), None, ())
    assert view.track is not None
    assert set(view.track.labels[: len(view.track.labels) // 2]) == {3}
    assert set(view.track.labels[len(view.track.labels) // 2 :]) == {6}
    assert view.bar_labels[0] == 3
    assert view.bar_labels[-1] == 6


def test_long_clips_stay_small() -> None:
    html = render(view_of(make_result(seconds=590), None, ()), WORDS["en"])
    assert len(html) < 200_000


@pytest.mark.parametrize("lang", ["zh", "en"])
@pytest.mark.parametrize("code", sorted(PROBLEMS))
def test_every_error_has_words_and_one_button(lang: str, code: str) -> None:
    html = render(Failed(EmotionError(code)), WORDS[lang])
    if code == "CANCELLED":
        assert "data-act" not in html
        return
    assert html.count("data-act=") == 1
    assert code in html
    assert EmotionError(code).text(lang)[:10] in text_of(html)


def test_the_button_fits_the_error() -> None:
    assert 'data-act="choose"' in render(Failed(AudioError("EMPTY")), WORDS["en"])
    assert 'data-act="lite"' in render(Failed(ModelError("MODEL_MISSING", name="x"), "auto"), WORDS["en"])
    assert 'data-act="retry"' in render(Failed(ModelError("MODEL_MISSING", name="x"), "lite"), WORDS["en"])


@pytest.mark.parametrize("lang", ["zh", "en"])
@pytest.mark.parametrize("step", ["decode", "download", "load", "queue", "infer", "save"])
def test_running_says_what_it_does(lang: str, step: str) -> None:
    text = text_of(render(Running(EVIL, (Step(step, 0.25, 1.5),)), WORDS[lang]))
    assert WORDS[lang](f"ser_step_{step}") in text
    assert "25 %" in text
    assert text_of(render(Empty(), WORDS[lang]))


def test_figures() -> None:
    assert [percent(x) for x in (0, 0.0004, 0.784, 0.9999, 1.0)] == ["0.0 %", "0.0 %", "78.4 %", "99.9 %", "100.0 %"]
    assert [size_text(n) for n in (12, 1234, 3_400_000)] == ["12 B", "1.2 kB", "3.4 MB"]
    assert [clock(s) for s in (0, 4.25, 59.97, 600.5)] == ["0:00.0", "0:04.2", "1:00.0", "10:00.5"]
