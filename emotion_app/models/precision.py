"""Reduced precision is taken by itself only where it is faster and after it was tried on this checkpoint.

The trial computes a fixed set of clips in fp32 and in the reduced precision and is stored beside the converted weights.
"""

from __future__ import annotations

import json
import wave
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from emotion_app.models import device as devices
from emotion_app.models import weights
from emotion_app.notes import Note
from emotion_app.types import SAMPLE_RATE, Floats, ModelInfo

if TYPE_CHECKING:
    from emotion_app.models.weights import Checkpoint

MAX_DIFFERENCE = 0.02  # of any score: below what a reader of two decimals takes for a change
CHECKS = "checks.json"


@dataclass(frozen=True)
class Check:
    """One trial of a reduced precision.

    Attributes:
        precision, device, processor, torch: what was tried.
        clips: how many clips were compared.
        score_difference: largest difference of any utterance score.
        flips: clips whose label changed.
        frame_flips: share of frames whose best class changed.
        passed: whether ``auto`` may use it.
    """

    precision: str
    device: str
    processor: str
    torch: str
    clips: int
    score_difference: float
    flips: int
    frame_flips: float
    passed: bool
    created: str

    def line(self) -> str:
        """For ``doctor``."""
        return (
            f"{self.precision} on {self.device} ({self.processor}, torch {self.torch}): largest score difference "
            f"{self.score_difference:.4f}, {self.flips} of {self.clips} labels and {self.frame_flips:.1%} of frames "
            f"changed: {'used by auto' if self.passed else 'not used by auto'}"
        )


@dataclass(frozen=True)
class Decision:
    """The precision to compute in, and what must be said about it."""

    precision: str
    notes: tuple[Note, ...] = ()


def decide(wanted: str, device: str, checkpoint: Checkpoint) -> Decision:
    """The precision for ``wanted`` on ``device``; a wish that cannot be met is answered in fp32 and said."""
    if wanted == "fp32":
        return Decision("fp32")
    if wanted == "int8":
        return _instead("int8", "int8 is a precision of the onnx engine")
    if wanted == "fp16" and device == "cpu":
        return _instead("fp16", "fp16 needs a GPU")
    if wanted != "auto":
        return Decision(wanted)
    fast = devices.fast_precision(device)
    if fast is None:
        return Decision("fp32")
    check = _stored(checkpoint, fast, device) or run_check(checkpoint, fast, device)
    if check.passed:
        return Decision(fast)
    return _instead(
        fast,
        f"the self-check found score differences up to {check.score_difference:.3f} and {check.flips} changed labels",
    )


def read_checks(directory: Path) -> tuple[Check, ...]:
    """Stored trials of a converted checkpoint."""
    try:
        content = json.loads((directory / CHECKS).read_text(encoding="utf-8"))
        return tuple(Check(**item) for item in content)
    except (OSError, ValueError, TypeError):
        return ()


def run_check(checkpoint: Checkpoint, precision: str, device: str) -> Check:
    """Compare ``precision`` with fp32 on the trial clips, and store the outcome."""
    full, reduced = (_answers(checkpoint, p, device) for p in ("fp32", precision))
    scores = np.array([[_softmax(a.mean(0)), _softmax(b.mean(0))] for a, b in zip(full, reduced, strict=True)])
    labels = scores.argmax(-1)
    frames = np.concatenate([a.argmax(1) != b.argmax(1) for a, b in zip(full, reduced, strict=True)])
    difference, flips = float(np.abs(scores[:, 0] - scores[:, 1]).max()), int((labels[:, 0] != labels[:, 1]).sum())
    check = Check(
        precision,
        device,
        devices.describe(device),
        torch.__version__,
        len(full),
        difference,
        flips,
        float(frames.mean()),
        bool(np.isfinite(scores).all()) and difference <= MAX_DIFFERENCE and flips == 0,
        datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    others = [c for c in read_checks(checkpoint.directory) if _key(c) != _key(check)]
    weights.write_text(checkpoint.directory / CHECKS, json.dumps([asdict(c) for c in (*others, check)], indent=1))
    return check


def _answers(checkpoint: Checkpoint, precision: str, device: str) -> list[Floats]:
    from emotion_app.models.emotion2vec import Emotion2vec

    info = ModelInfo(
        checkpoint.record.name, "emotion2vec", "self-check", "torch", precision, device, checkpoint.config.dim
    )
    model = Emotion2vec(checkpoint.config, checkpoint.rows, weights.load_state(checkpoint, precision), info)
    return [model.forward([model.prepare(clip)])[0].logits for clip in trial_clips(checkpoint.directory)]


def trial_clips(directory: Path) -> list[Floats]:
    """Voices made here (pitch, formants and loudness that move, with noise), and the hub's example when it is there."""
    dice = np.random.default_rng(20240501)
    clips = [
        _voice(dice, seconds, pitch, tempo)
        for seconds, pitch, tempo in (
            (1.0, 110, 3.0),
            (2.0, 180, 4.0),
            (3.0, 240, 6.0),
            (2.0, 95, 2.0),
            (3.0, 150, 5.0),
            (1.5, 300, 7.0),
            (4.0, 130, 3.5),
        )
    ]
    return clips + list(_example(directory / "example" / "test.wav"))


def _voice(dice: np.random.Generator, seconds: float, pitch: float, tempo: float) -> Floats:
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    phase = (
        2
        * np.pi
        * np.cumsum(pitch * (1 + 0.25 * np.sin(2 * np.pi * tempo / 7 * t) + 0.02 * dice.standard_normal(len(t))))
        / SAMPLE_RATE
    )
    formants = 500 + 300 * np.sin(2 * np.pi * tempo / 3 * t), 1500 + 600 * np.sin(2 * np.pi * tempo / 5 * t + 1)
    sound = np.zeros(len(t))
    for harmonic in range(1, 25):
        gain = sum(np.exp(-(((harmonic * pitch - f) / 250) ** 2)) for f in formants) + 0.05
        sound += gain * np.sin(harmonic * phase) / harmonic**0.5
    loudness = np.clip(np.sin(2 * np.pi * tempo * t) + 0.6, 0, None)
    return (0.1 * sound * loudness + 0.005 * dice.standard_normal(len(t))).astype(np.float32)


def _example(path: Path) -> Iterator[Floats]:
    try:
        with wave.open(str(path), "rb") as file:
            if (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (SAMPLE_RATE, 1, 2):
                yield np.frombuffer(file.readframes(30 * SAMPLE_RATE), dtype="<i2").astype(np.float32) / 32768
    except (OSError, EOFError, wave.Error):
        return  # a checkpoint without the hub's example is tried on the others alone


def _stored(checkpoint: Checkpoint, precision: str, device: str) -> Check | None:
    key = (precision, device.partition(":")[0], devices.describe(device), torch.__version__)
    return next((check for check in read_checks(checkpoint.directory) if _key(check) == key), None)


def _key(check: Check) -> tuple[str, str, str, str]:
    return check.precision, check.device.partition(":")[0], check.processor, check.torch


def _instead(wanted: str, reason: str) -> Decision:
    return Decision("fp32", (Note("precision", {"precision": "fp32", "wanted": wanted, "reason": reason}),))


def _softmax(logits: Floats) -> Floats:
    e = np.exp(logits.astype(np.float64) - logits.max())
    return e / e.sum()
