"""Results made by hand for the tests of store and charts: real sound shapes, known emotions, no model needed."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import numpy as np

from emotion_app.labels import INDEX
from emotion_app.notes import Note
from emotion_app.timeline import build
from emotion_app.types import SAMPLE_RATE, FrameOutput, ModelInfo, Origin, Result, Timing, Waveform, n_frames

CREATED = datetime(2026, 11, 21, 21, 30, 0, 123_000, tzinfo=timezone(timedelta(hours=8)))
MODEL = ModelInfo("emotion2vec_plus_large", "emotion2vec", "iic/emotion2vec_plus_large", "torch", "fp32", "cpu", 4)
STORY = (("neutral", 0.25), ("happy", 0.4), ("surprised", 0.12), ("sad", 0.23))  # emotion, share of the clip


def make_logits(duration_s: float, story: tuple[tuple[str, float], ...] = STORY, seed: int = 0) -> np.ndarray:
    """(T, 9) logits that go through ``story``, with some noise."""
    rng = np.random.default_rng(seed)
    n = n_frames(round(duration_s * SAMPLE_RATE))
    logits = rng.normal(0, 0.9, (n, 9)).astype(np.float32)
    begin = 0.0
    for key, share in story:
        logits[round(begin * n):round((begin + share) * n), INDEX[key]] += 2.6
        begin += share
    return logits


def make_sound(duration_s: float, seed: int = 0) -> np.ndarray:
    """Noise in syllables: (n,) float32."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(duration_s * SAMPLE_RATE)) / SAMPLE_RATE
    loud = np.abs(np.sin(2 * np.pi * 1.7 * t)) * (0.5 + 0.5 * np.sin(2 * np.pi * t / max(duration_s, 1)))
    return (0.4 * loud * rng.normal(0, 0.4, len(t)).clip(-1, 1)).astype(np.float32)


def make_result(duration_s: float = 2.0, *, frame: bool = True, embedding: bool = False, name: str = "你好.m4a",
                created: datetime = CREATED, notes: tuple[Note, ...] = (Note("mixed_down", {"channels": 2}),),
                story: tuple[tuple[str, float], ...] = STORY) -> Result:
    """A Result as the analyzer would make it."""
    rng = np.random.default_rng(3)
    sound = Waveform(make_sound(duration_s), name, notes, Origin("mov", "aac", 44_100, 2, 33_000))
    features = rng.normal(size=(n_frames(len(sound.samples)), 4)).astype(np.float32)
    output = FrameOutput(make_logits(duration_s, story), features.mean(0), features)
    built = build(output, sound.duration_s, 1.0)
    return Result(
        prediction=built.prediction, granularity="frame" if frame else "utterance", waveform=sound, model=MODEL,
        timing=Timing(0.012, 0.0, 0.001, 0.084), created=created, notes=notes,
        frames=built.frames if frame else None, timeline=built.timeline if frame else None,
        segments=built.segments if frame else (),
        embedding=output.mean_feature if embedding else None, frame_embeddings=features if embedding else None,
    )
