"""Fixtures that every part of the suite may use."""

from __future__ import annotations

import os

os.environ["EMOTION_OFFLINE"] = "true"  # no test asks a real hub
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

from pathlib import Path

import pytest

from emotion_app.models.loader import calm_threads
from emotion_app.settings import Settings

calm_threads()  # before torch

CLIPS = Path(__file__).parents[1] / "examples" / "clips"


@pytest.fixture(scope="session")
def clips() -> list[Path]:
    """The project's own synthetic clips."""
    found = sorted(p for p in CLIPS.iterdir() if p.suffix in {".wav", ".flac", ".ogg"})
    assert found, "examples/clips is empty: run examples/make_examples.py"
    return found


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The embedded model, results and models in a fresh folder, no hub."""
    return Settings(model="lite", offline=True, outputs_dir=tmp_path / "outputs", models_dir=tmp_path / "models",
                    baselines_dir=tmp_path / "baselines")
