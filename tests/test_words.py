"""Layer 0: labels, errors, notes, types, settings."""

import doctest
import pickle
import re
import string

import numpy as np
import pytest

from emotion_app import analyzer, engine, errors, labels, notes, types
from emotion_app.errors import PROBLEMS, AudioError, ConfigError, EmotionError
from emotion_app.settings import Limits, read_settings


@pytest.mark.parametrize("module", [errors, labels, notes, types, engine, analyzer], ids=lambda m: m.__name__)
def test_examples(module) -> None:
    failed, tried = doctest.testmod(module)
    assert tried and not failed


@pytest.mark.parametrize("code", PROBLEMS)
def test_every_error_speaks_both_languages_with_the_same_facts(code: str) -> None:
    problem = PROBLEMS[code]
    fields = [{f for _, f, _, _ in string.Formatter().parse(text) if f} for text in (problem.en, problem.zh)]
    assert fields[1] <= fields[0]
    assert re.search(r"[一-鿿]", problem.zh) and not re.search(r"[一-鿿]", problem.en)
    assert 400 <= problem.http < 600 and 1 <= problem.exit < 128
    assert EmotionError(code).text("zh")  # missing facts never hide the error


@pytest.mark.parametrize("code", notes.known_codes())
def test_every_note_speaks_both_languages(code: str) -> None:
    _, en, zh = notes._TEXTS[code]
    assert re.search(r"[一-鿿]", zh) and not re.search(r"[一-鿿]", en)


def test_errors_cross_process_borders() -> None:
    error = pickle.loads(pickle.dumps(AudioError("TOO_LARGE", limit_mb=50)))
    assert type(error) is AudioError and error.code == "TOO_LARGE" and error.facts == {"limit_mb": 50}


def test_colours_are_readable() -> None:
    """Ink on every colour reaches WCAG AA (4.5 : 1)."""

    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for emotion in labels.EMOTIONS:
        light, dark = sorted((luminance(emotion.colour), luminance(emotion.ink)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, emotion.key


@pytest.mark.parametrize("n", [0, 1, 399, 400, 719, 720, 16_000, 12_345, 160_001])
def test_frame_count_is_the_conv_arithmetic(n: int) -> None:
    length = n
    for kernel, stride in [(10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2)]:
        length = (length - kernel) // stride + 1 if length >= kernel else 0
    assert types.n_frames(n) == length


def test_invariants_are_checked() -> None:
    with pytest.raises(ValueError, match="summing to 1"):
        types.Prediction(np.full(9, 0.2))
    with pytest.raises(ValueError, match="float32"):
        types.Waveform(np.zeros(10))
    with pytest.raises(ValueError, match="logits want"):
        types.FrameOutput(np.zeros((0, 9), np.float32), np.zeros(4, np.float32))


def test_settings_precedence(tmp_path, monkeypatch) -> None:
    """Flags over environment over file over defaults."""
    (tmp_path / "emotion.toml").write_text("port = 1\nmodel = 'lite'\nwindow_s = 2.0\n[limits]\nclip_s = 5\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMOTION_PORT", "2")
    monkeypatch.setenv("EMOTION_MODEL", "base")
    settings = read_settings(port=3, model=None)
    assert (settings.port, settings.model, settings.window_s, settings.limits.clip_s) == (3, "base", 2.0, 5)
    assert settings.limits.upload_mb == Limits().upload_mb


@pytest.mark.parametrize(("flags", "named"), [({"port": 99999}, "port"), ({"engine": "magic"}, "engine")])
def test_bad_settings_name_the_field(flags: dict, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        read_settings(**flags)
