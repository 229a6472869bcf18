"""FunASR's own AutoModel is the oracle; checkpoints are random, in the hub's layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from emotion_app.models.emotion2vec import Emotion2vec
from emotion_app.models.loader import load_model
from emotion_app.models.reference import Reference
from emotion_app.settings import Settings
from emotion_app.testing import write_checkpoint


class Pair(NamedTuple):
    ours: Emotion2vec
    theirs: Reference
    directory: Path


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Pair]:
    """Both engines on a checkpoint made with the given arguments; made once for the same arguments."""
    made: dict[str, Pair] = {}

    def make(size: str = "tiny", **change: object) -> Pair:
        key = f"{size}{sorted(change.items())}"
        if key not in made:
            directory = write_checkpoint(tmp_path_factory.mktemp("parity") / size, size, **change)
            settings = Settings(models_dir=tmp_path_factory.mktemp("models"), precision="fp32", threads=2, offline=True)
            ours = load_model(str(directory), settings)
            theirs = load_model(str(directory), settings.model_copy(update={"engine": "funasr"}))
            made[key] = Pair(ours, theirs, directory)
        return made[key]

    return make


def softmax(logits: np.ndarray) -> np.ndarray:
    """float64 softmax of a row."""
    e = np.exp(logits.astype(np.float64) - logits.max())
    return e / e.sum()


def compare(pair: Pair, clip: np.ndarray) -> tuple[float, float]:
    """Largest score difference and relative embedding difference between our frames, pooled, and FunASR's answer."""
    scores, feats = pair.theirs.generate(clip)
    frames = pair.ours.forward([pair.ours.prepare(clip)])[0]
    difference = np.abs(softmax(frames.logits.astype(np.float64).mean(0)) - scores).max()
    return float(difference), float(np.abs(frames.features.mean(0) - feats).max() / np.abs(feats).max())
