"""Sound for the live tests: the project's clips with pauses between them, as the bytes that a client sends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soxr

from emotion_app import audio
from emotion_app.settings import Limits
from emotion_app.types import SAMPLE_RATE, Floats

CLIPS = Path(__file__).parents[2] / "examples" / "clips"
FAST = Limits(stream_rate_factor=1000)  # for streams that are pushed faster than they were spoken


def dialogue(n_clips: int = 3, pause_s: float = 1.0) -> Floats:
    """(n,) float32 at 16 kHz on the 16-bit grid: clips between pauses of faint noise."""
    dice = np.random.default_rng(1)
    pause = (0.001 * dice.standard_normal(round(pause_s * SAMPLE_RATE))).astype(np.float32)
    parts = [pause]
    for path in sorted(CLIPS.glob("*.flac"))[:n_clips]:
        parts += [audio.load(path, limits=FAST).samples, pause]
    return from_pcm(pcm(np.concatenate(parts)))


def pcm(samples: Floats, rate: int = SAMPLE_RATE) -> bytes:
    """16-bit little-endian bytes at ``rate``."""
    if rate != SAMPLE_RATE:
        samples = soxr.resample(samples, SAMPLE_RATE, rate)
    return np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2").tobytes()


def from_pcm(data: bytes) -> Floats:
    """The samples of 16 kHz bytes, as the session sees them."""
    return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)


def pieces(data: bytes, size: int | str, seed: int = 0) -> Iterator[bytes]:
    """``data`` cut into messages of ``size`` bytes, or of random sizes (odd ones too)."""
    dice, at = np.random.default_rng(seed), 0
    while at < len(data):
        step = int(dice.integers(1, 9001)) if size == "random" else int(size)
        yield data[at : at + step]
        at += step
