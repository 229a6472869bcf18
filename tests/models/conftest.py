"""Tiny random-weight checkpoints in the hub's layout, and settings that keep to a fresh folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from emotion_app.settings import Settings
from emotion_app.testing import write_checkpoint


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("hub") / "tiny")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """fp32, one thread, nothing of this machine's caches in sight."""
    for name in ("MODELSCOPE_CACHE", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return Settings(models_dir=tmp_path / "models", precision="fp32", threads=1, offline=True)
