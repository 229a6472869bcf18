"""Batches: a balanced draw of clips, disturbed, of like length, padded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from emotion_app.labels import N_EMOTIONS
from emotion_app.types import Floats
from training.augment import UNKNOWN, Augment, Augmenter, floored
from training.features import Cache
from training.manifest import Clip
from training.sampling import Sampler

POOL = 16  # batches drawn together and sorted by length, so that little is padded


@dataclass(frozen=True, eq=False)
class Batch:
    """Padded examples.

    Attributes:
        mels: (B, M, 80) with the floor.
        lengths: (B,) mel frames.
        clips: (B,) index into the clips that the stream was given.
    """

    mels: Tensor
    lengths: Tensor
    clips: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        return Batch(self.mels.to(device), self.lengths.to(device), self.clips.to(device))


@dataclass(frozen=True, eq=False)
class Task:
    """What the clips say about classes, corpora and speakers, as tensors.

    Attributes:
        emotion: (n,) class.
        speaker: (n,) number of the speaker.
        corpus: (n,) number of the corpus.
        allowed: (n, 9) True at the classes that the clip's corpus has, and at ``unknown``.
    """

    emotion: Tensor
    speaker: Tensor
    corpus: Tensor
    allowed: Tensor

    @classmethod
    def of(cls, clips: Sequence[Clip]) -> Task:
        """Read off ``clips``."""
        corpora = sorted({clip.corpus for clip in clips})
        speakers = {name: number for number, name in enumerate(sorted({clip.speaker for clip in clips}))}
        has = torch.zeros(len(corpora), N_EMOTIONS, dtype=torch.bool)
        corpus = torch.tensor([corpora.index(clip.corpus) for clip in clips])
        emotion = torch.tensor([clip.emotion for clip in clips])
        has[corpus[emotion >= 0], emotion[emotion >= 0]] = True
        has[:, UNKNOWN] = True
        return cls(emotion, torch.tensor([speakers[clip.speaker] for clip in clips]), corpus, has[corpus])

    def to(self, device: torch.device) -> Task:
        """The same on another device."""
        return Task(*(t.to(device) for t in (self.emotion, self.speaker, self.corpus, self.allowed)))


class Stream:
    """Endless batches; the same for the same seed.

    Args:
        clips: labelled clips, in the order in which the caches were built.
        caches: rendition 0 first.
        share: weight of each corpus.
        how: disturbance on the fly.
        floor: of the model.
        size: clips in a batch.
        seed: of draws and disturbances.
        disturbed: share of examples taken from renditions 1 and up.
        use: indices of the clips that may be drawn; all by default.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        caches: Sequence[Cache],
        share: Mapping[str, float],
        how: Augment,
        floor: float,
        size: int,
        seed: int,
        disturbed: float = 0.7,
        use: Sequence[int] | None = None,
    ) -> None:
        self._clips, self._caches, self._floor, self._size, self._disturbed = clips, caches, floor, size, disturbed
        self._use = list(range(len(clips)) if use is None else use)
        self._sampler = Sampler([clips[i] for i in self._use], share, seed)
        self._silent = [i for i in self._use if clips[i].emotion == UNKNOWN] or self._use
        self._voiced = [i for i in self._use if clips[i].emotion != UNKNOWN] or self._use
        self._augment = Augmenter(how, lambda: self._any(self._silent), lambda: self._any(self._voiced), seed + 1)

    def __iter__(self) -> Iterator[Batch]:
        rng = self._augment.rng
        while True:
            drawn = sorted((self._example() for _ in range(POOL * self._size)), key=lambda pair: len(pair[0]))
            batches = [drawn[at : at + self._size] for at in range(0, len(drawn), self._size)]
            for number in rng.permutation(len(batches)):
                yield pad(batches[number])

    def _example(self) -> tuple[Floats, int]:
        rng, index = self._augment.rng, self._use[self._sampler.draw()]
        copy = rng.integers(1, len(self._caches)) if len(self._caches) > 1 and rng.random() < self._disturbed else 0
        mels = self._augment(self._caches[copy][index], self._clips[index].emotion)
        return self._augment.masks(floored(mels, self._floor)), index

    def _any(self, indices: Sequence[int]) -> Floats:
        return self._caches[0][indices[self._augment.rng.integers(len(indices))]]


def pad(examples: Sequence[tuple[Floats, int]]) -> Batch:
    """Examples of any length as one batch; lengths are rounded up to 40 so that few shapes occur."""
    lengths = [len(mels) for mels, _ in examples]
    longest = min(798, -(-max(lengths) // 40) * 40)
    mels = np.zeros((len(examples), max(longest, max(lengths)), 80), np.float32)
    for row, (example, _) in enumerate(examples):
        mels[row, : len(example)] = example
    return Batch(torch.from_numpy(mels), torch.tensor(lengths), torch.tensor([index for _, index in examples]))
