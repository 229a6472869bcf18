"""The self-check that decides about reduced precision, and its record."""

from pathlib import Path

import pytest

from emotion_app.models import device, loader, precision, weights
from emotion_app.settings import Settings


@pytest.fixture
def checkpoint(tiny: Path, own: Settings) -> weights.Checkpoint:
    return weights.convert(tiny, own.models_dir, "tiny")


def test_auto_tries_once_and_remembers(
    checkpoint: weights.Checkpoint, tiny: Path, own: Settings, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(device, "cpu_has_bf16", lambda: True)
    first = precision.decide("auto", "cpu", checkpoint)
    check = precision.read_checks(checkpoint.directory)[0]
    assert check.clips == 7 and 0 < check.score_difference < 0.1
    assert first.precision == ("bf16" if check.passed else "fp32")
    monkeypatch.setattr(precision, "run_check", lambda *a: pytest.fail("tried twice"))
    assert precision.decide("auto", "cpu", checkpoint) == first
    assert "bf16" in loader.inspect(str(tiny), own).checks[0]


def test_auto_is_fp32_where_the_processor_lacks_bf16(checkpoint: weights.Checkpoint, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device, "cpu_flags", lambda: frozenset({"avx2"}))
    assert precision.decide("auto", "cpu", checkpoint) == precision.Decision("fp32")
    assert not precision.read_checks(checkpoint.directory)


def test_a_check_that_fails_means_fp32_and_a_note(checkpoint: weights.Checkpoint, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device, "cpu_has_bf16", lambda: True)
    monkeypatch.setattr(precision, "MAX_DIFFERENCE", 1e-9)
    decided = precision.decide("auto", "cpu", checkpoint)
    assert decided.precision == "fp32" and "self-check" in decided.notes[0].text("en")
    assert "not used by auto" in precision.read_checks(checkpoint.directory)[0].line()


def test_a_damaged_record_is_made_again(checkpoint: weights.Checkpoint, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device, "cpu_has_bf16", lambda: True)
    (checkpoint.directory / "checks.json").write_text('[{"precision": 1}]')
    precision.decide("auto", "cpu", checkpoint)
    assert len(precision.read_checks(checkpoint.directory)) == 1


def test_trial_clips_are_the_same_each_time_and_take_the_hubs_example(tmp_path: Path):
    import wave

    plain = precision.trial_clips(tmp_path)
    assert all((a == b).all() for a, b in zip(plain, precision.trial_clips(tmp_path), strict=True))
    (tmp_path / "example").mkdir()
    with wave.open(str(tmp_path / "example" / "test.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(b"\0\1" * 16_000)
    assert len(precision.trial_clips(tmp_path)) == len(plain) + 1
