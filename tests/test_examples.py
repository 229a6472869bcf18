"""The example clips: listed, synthetic by name, and clean."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from emotion_app.audio import load
from emotion_app.audio.quality import level_dbfs
from emotion_app.settings import Limits
from emotion_app.types import SAMPLE_RATE

CLIPS = Path(__file__).parents[1] / "examples" / "clips"
ENTRIES = json.loads((CLIPS / "clips.json").read_text(encoding="utf-8"))


def test_the_list_is_complete() -> None:
    assert sorted(entry["file"] for entry in ENTRIES) == sorted(path.name for path in CLIPS.glob("*.flac"))
    assert {(entry["language"], entry["voice"]) for entry in ENTRIES} == {
        (language, voice) for language in ("zh", "en") for voice in ("female", "male")}  # fmt: skip
    assert sum(path.stat().st_size for path in CLIPS.iterdir()) < 2_000_000


@pytest.mark.parametrize("entry", ENTRIES, ids=[entry["file"] for entry in ENTRIES])
def test_clip(entry: dict[str, str | float]) -> None:
    wave = load(CLIPS / str(entry["file"]), limits=Limits())
    assert str(entry["file"]).startswith("synthetic_")
    assert "合成" in str(entry["title_zh"]) and "Synthetic" in str(entry["title_en"])
    assert wave.notes == () and (wave.origin.sample_rate, wave.origin.channels) == (SAMPLE_RATE, 1)
    assert wave.duration_s == pytest.approx(entry["duration_s"], abs=0.01)
    low, high = (18, 25) if entry["style"] == "changing" else (3, 6.5)
    assert low < wave.duration_s < high
    assert -35 < level_dbfs(wave.samples) < -15 and np.abs(wave.samples).max() < 0.95
    loud = np.flatnonzero(np.abs(wave.samples) > 0.01) / SAMPLE_RATE
    assert loud[0] < 0.4 and wave.duration_s - loud[-1] < 0.5
