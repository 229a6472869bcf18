"""Learning from a larger model: its frame logits and features on any speech, labelled or not.

The teacher is whatever ``emotion_app.models.loader.load_model`` can load; its answers are kept on disk, so that it
runs once. Size on disk: about 100 kB for each second of sound at D = 1024.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor

from emotion_app.engine import Engine
from emotion_app.models import FrameModel
from emotion_app.models.lite_network import STRIDE, LiteNet
from emotion_app.types import MIN_SAMPLES, Waveform
from training import waves
from training.augment import UNKNOWN, Augmenter, floored
from training.features import Cache
from training.manifest import UNLABELLED, Clip
from training.pooled import masked_mean
from training.stream import Example, pad

MAX_FRAMES = 200  # 4 s of each clip in a step


@dataclass(frozen=True)
class Distil:
    """How much and how softly the teacher is listened to.

    Attributes:
        batch: clips of the teacher in each step.
        weight: of the frame logits' divergence.
        feature_weight: of the difference between the two models' similarities among clips.
        temperature: of both softmaxes.
    """

    batch: int = 16
    weight: float = 1.0
    feature_weight: float = 0.5
    temperature: float = 2.0


def build(model: FrameModel, clips: Sequence[Clip], folder: Path) -> None:
    """Write what is missing of ``<number>.npz`` with logits (T, 9) and features (T, D), float16."""
    folder.mkdir(parents=True, exist_ok=True)
    engine = Engine(model)
    todo = [number for number in range(len(clips)) if not _path(folder, number).exists()]
    for number in track(todo, description=f"teacher {model.info.name}"):
        samples = waves.read(clips[number].path)
        samples = np.pad(samples, (0, max(0, MIN_SAMPLES - len(samples))))
        output = engine.run([Waveform(samples)], features=True)[0]
        aside = folder / "aside.npz"
        np.savez(
            aside, logits=output.logits.clip(-1e4, 1e4).astype(np.float16), features=output.features.astype(np.float16)
        )
        aside.replace(_path(folder, number))


def label(clips: Sequence[Clip], folder: Path) -> list[Clip]:
    """Clips without a label get the teacher's, once it was asked about them."""
    return [
        replace(clip, emotion=int(_logits(folder, number).mean(0).argmax()))
        if clip.emotion == UNLABELLED and _path(folder, number).exists()
        else clip
        for number, clip in enumerate(clips)
    ]


def lesson(
    clips: Sequence[Clip], folder: Path, cache: Cache, augment: Augmenter, floor: float, how: Distil
) -> Callable[[LiteNet], Tensor]:
    """A loss that draws clips by itself: the student hears them disturbed, the teacher heard them as they are."""

    def loss(net: LiteNet) -> Tensor:
        examples, targets, means = [], [], []
        for row, number in enumerate(augment.rng.integers(0, len(clips), how.batch).tolist()):
            with np.load(_path(folder, number)) as kept:
                logits, features = kept["logits"].astype(np.float32), kept["features"].astype(np.float32)
            first = int(augment.rng.integers(0, max(1, len(logits) - MAX_FRAMES + 1)))
            here = slice(first, first + MAX_FRAMES)
            mels = cache[number][STRIDE * here.start : STRIDE * here.stop]
            mels = augment.in_place(mels, UNKNOWN)  # as unknown: no babble, whose feelings the teacher did not hear
            examples.append(Example.of(floored(mels, floor), row))
            targets.append(torch.from_numpy(logits[here]))
            means.append(torch.from_numpy(features[here].mean(0)))
        device = net.mean.device
        batch = pad(examples).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            heard = net(batch.mels, batch.lengths)
        heard = heard.float()
        t = how.temperature
        mine = [net.head(heard[row, : len(target)]) for row, target in enumerate(targets)]
        divergence = F.kl_div(
            (torch.cat(mine) / t).log_softmax(1), (torch.cat(targets).to(device) / t).softmax(1), reduction="batchmean"
        )
        gap = _likeness(masked_mean(heard, batch.lengths)) - _likeness(torch.stack(means).to(device))
        return how.weight * t * t * divergence + how.feature_weight * gap.square().mean()

    return loss


def _likeness(features: Tensor) -> Tensor:
    """(B, B) cosine between clips after the batch's mean is taken off: comparable whatever D is."""
    unit = F.normalize(features - features.mean(0), dim=1)
    return unit @ unit.T


def _logits(folder: Path, number: int) -> np.ndarray:
    with np.load(_path(folder, number)) as kept:
        return kept["logits"].astype(np.float32)


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.npz"
