"""What a model answers to clips: pooled logits of both heads, and the same with earlier clips of the speaker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray
from rich.progress import track

from emotion_app.engine import Engine
from emotion_app.labels import INDEX
from emotion_app.models import FrameModel
from emotion_app.types import MIN_SAMPLES, SAMPLE_RATE, BaselineRule, Floats, Waveform
from training import waves
from training.manifest import Clip

Logits = NDArray[np.float32]
Change = Callable[[Floats, np.random.Generator], Floats]
NEUTRAL, UNKNOWN = INDEX["neutral"], INDEX["unknown"]
CHUNK = 64  # clips decoded at a time


@dataclass(frozen=True, eq=False)
class Answers:
    """Mean frame logits (n, 9) of each clip; ``reference`` is ``plain`` when the model has no second head."""

    plain: Logits
    reference: Logits

    def take(self, rows: NDArray[np.int64]) -> Answers:
        """Some of them."""
        return Answers(self.plain[rows], self.reference[rows])


def answer(model: FrameModel, clips: Sequence[Clip], change: Change | None = None, seed: int = 0) -> Answers:
    """Run ``model`` on clips, each disturbed by ``change`` when given."""
    engine = Engine(model, max_batch=16)
    plain, reference = [], []
    starts = range(0, len(clips), CHUNK)
    for at in track(starts, description="answers", disable=len(starts) < 2):
        heard = []
        for number, clip in enumerate(clips[at : at + CHUNK], start=at):
            samples = waves.read(clip.path)
            if change is not None:
                samples = change(samples, np.random.default_rng([seed, number]))
            if len(samples) < MIN_SAMPLES:
                samples = np.pad(samples, (0, MIN_SAMPLES - len(samples)))
            heard.append(Waveform(samples.astype(np.float32)))
        for output in engine.run(heard):
            plain.append(output.logits.mean(0))
            reference.append((output.logits if output.reference_logits is None else output.reference_logits).mean(0))
    return Answers(np.stack(plain), np.stack(reference))


def with_baseline(
    answers: Answers, clips: Sequence[Clip], rule: BaselineRule, count: int, share: float, seed: int
) -> NDArray[np.float64]:
    """(n, 9) scores, each clip beside ``count`` random other clips of its speaker.

    ``share`` of the earlier clips are neutral and the rest balanced; the rule is told that share. Clips that head A
    calls unknown stay out of the reference. A speaker without other clips keeps its plain scores.
    """
    rng = np.random.default_rng(seed)
    heard = answers.plain.argmax(1) != UNKNOWN
    by_speaker: dict[str, dict[int, list[int]]] = {}
    for row, clip in enumerate(clips):
        if heard[row] and clip.emotion != UNKNOWN:
            by_speaker.setdefault(clip.speaker, {}).setdefault(clip.emotion, []).append(row)
    out = []
    for row, clip in enumerate(clips):
        earlier = _draw(by_speaker.get(clip.speaker, {}), row, count, share, rng)
        mean = answers.reference[earlier].mean(0) if earlier else np.zeros(answers.plain.shape[1], np.float32)
        out.append(rule.scores(answers.plain[row], answers.reference[row], mean, len(earlier), share))
    return np.stack(out)


def _draw(classes: dict[int, list[int]], row: int, count: int, share: float, rng: np.random.Generator) -> list[int]:
    pools = {key: [r for r in rows if r != row] for key, rows in classes.items()}
    keys = sorted(key for key, rows in pools.items() if rows)
    if not keys:
        return []
    picks = []
    for _ in range(count):
        key = NEUTRAL if NEUTRAL in keys and rng.random() < share else keys[rng.integers(len(keys))]
        picks.append(pools[key][rng.integers(len(pools[key]))])
    return picks


def narrow_band(samples: Floats, rng: np.random.Generator) -> Floats:
    """Telephone band: 8 kHz and back."""
    return soxr.resample(soxr.resample(samples, SAMPLE_RATE, 8000), 8000, SAMPLE_RATE)


def white_noise(samples: Floats, rng: np.random.Generator) -> Floats:
    """White noise 10 dB below the whole clip."""
    noise = rng.standard_normal(len(samples))
    return (samples + noise * np.sqrt(np.mean(np.square(samples)) / 10)).astype(np.float32)


def mixed_with(sounds: Sequence[Path]) -> Change:
    """A random one of ``sounds`` 10 dB below the clip."""

    def mix(samples: Floats, rng: np.random.Generator) -> Floats:
        noise = waves.read(sounds[rng.integers(len(sounds))])
        noise = np.resize(np.roll(noise, rng.integers(len(noise))), len(samples))
        level = np.sqrt(np.mean(np.square(samples)) / 10 / max(float(np.mean(np.square(noise))), 1e-9))
        return (samples + noise * level).astype(np.float32)

    return mix


def mp3_64k(samples: Floats, rng: np.random.Generator) -> Floats:
    """MP3 at 64 kbit/s."""
    return waves.through_codec(samples, "libmp3lame", "mp3", SAMPLE_RATE, 64_000)


def opus_24k(samples: Floats, rng: np.random.Generator) -> Floats:
    """Opus at 24 kbit/s."""
    return waves.through_codec(samples, "libopus", "ogg", SAMPLE_RATE, 24_000)


def loudest(seconds: float) -> Change:
    """``seconds`` around the loudest place."""

    def cut(samples: Floats, rng: np.random.Generator) -> Floats:
        n = int(seconds * SAMPLE_RATE)
        if len(samples) <= n:
            return samples
        energy = np.convolve(np.square(samples[::160]), np.ones(max(1, n // 160)), mode="same")
        at = int(np.clip(int(energy.argmax()) * 160 - n // 2, 0, len(samples) - n))
        return samples[at : at + n]

    return cut
