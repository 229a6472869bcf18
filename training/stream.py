"""Batches: a balanced draw of clips, disturbed, of like length, padded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from emotion_app.labels import N_EMOTIONS
from emotion_app.types import Floats
from training.augment import MAX_MELS, UNKNOWN, Augment, Augmenter, floored
from training.features import Cache
from training.manifest import Clip
from training.sampling import Sampler

POOL = 16  # batches drawn together and sorted by length, so that little is padded
JOINED_MELS = MAX_MELS // 2  # 4 s of each of two clips that are joined
LEVELS_DB = 3.0  # standard deviation of the second one's level against the first


@dataclass(frozen=True, eq=False)
class Example:
    """Frames (M, 80) of one clip, or of several one after the other.

    Attributes:
        mels: the frames.
        clips: index of each clip.
        ends: mel frame at which each of them ends; the last is M.
    """

    mels: Floats
    clips: tuple[int, ...]
    ends: tuple[int, ...]

    @classmethod
    def of(cls, mels: Floats, clip: int) -> Example:
        """One clip alone."""
        return cls(mels, (clip,), (len(mels),))


@dataclass(frozen=True, eq=False)
class Batch:
    """Padded examples: B rows of frames that hold S clips, S = B where none are joined.

    Attributes:
        mels: (B, M, 80) with the floor.
        lengths: (B,) mel frames.
        clips: (S,) index into the clips that the stream was given.
        rows: (S,) the row that a clip is in.
        spans: (S, 2) the mel frames of it: first, and one past the last.
    """

    mels: Tensor
    lengths: Tensor
    clips: Tensor
    rows: Tensor
    spans: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        return Batch(*(t.to(device) for t in (self.mels, self.lengths, self.clips, self.rows, self.spans)))


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
        joined: share of voices that are followed by another, half the time by the same speaker, as in a recording whose
            feeling changes: frames must then answer for themselves.
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
        joined: float = 0.0,
    ) -> None:
        self._clips, self._caches, self._floor, self._size, self._disturbed = clips, caches, floor, size, disturbed
        self._joined = joined
        self._use = list(range(len(clips)) if use is None else use)
        self._sampler = Sampler([clips[i] for i in self._use], share, seed)
        self._silent = [i for i in self._use if clips[i].emotion == UNKNOWN] or self._use
        self._voiced = [i for i in self._use if clips[i].emotion != UNKNOWN] or self._use
        self._by_speaker: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
        for index in self._use:
            self._by_speaker[clips[index].speaker][clips[index].emotion].append(index)
        self._augment = Augmenter(how, lambda: self._any(self._silent), lambda: self._any(self._voiced), seed + 1)

    def __iter__(self) -> Iterator[Batch]:
        rng = self._augment.rng
        while True:
            drawn = sorted((self._example() for _ in range(POOL * self._size)), key=lambda example: len(example.mels))
            batches = [drawn[at : at + self._size] for at in range(0, len(drawn), self._size)]
            for number in rng.permutation(len(batches)):
                yield pad(batches[number])

    def _example(self) -> Example:
        augment, index = self._augment, self._use[self._sampler.draw()]
        example = Example.of(augment.cut(self._copy(index)), index)
        emotion = self._clips[index].emotion
        if self._joined and emotion != UNKNOWN and augment.rng.random() < self._joined:
            partner = self._partner(index)
            if self._clips[partner].emotion != UNKNOWN:
                example = self._join(example, partner)
        mels = augment.in_place(example.mels, emotion)
        return replace(example, mels=augment.masks(floored(mels, self._floor)))

    def _copy(self, index: int) -> Floats:
        rng = self._augment.rng
        copy = rng.integers(1, len(self._caches)) if len(self._caches) > 1 and rng.random() < self._disturbed else 0
        return self._caches[copy][index]

    def _partner(self, index: int) -> int:
        """Half the time another clip of the same speaker, classes alike; else any."""
        rng, classes = self._augment.rng, self._by_speaker[self._clips[index].speaker]
        if rng.random() < 0.5 and len(classes) > 1:
            return int(rng.choice(classes[rng.choice(sorted(classes))]))
        return self._use[self._sampler.draw()]

    def _join(self, first: Example, second: int) -> Example:
        rng = self._augment.rng
        one, two = (_middle(mels, rng) for mels in (first.mels, self._augment.cut(self._copy(second))))
        two = two + np.float32(rng.normal(0, LEVELS_DB / 10))
        return Example(np.concatenate([one, two]), (*first.clips, second), (len(one), len(one) + len(two)))

    def _any(self, indices: Sequence[int]) -> Floats:
        return self._caches[0][indices[self._augment.rng.integers(len(indices))]]


def _middle(mels: Floats, rng: np.random.Generator) -> Floats:
    """A stretch of at most ``JOINED_MELS``."""
    at = rng.integers(0, max(0, len(mels) - JOINED_MELS) + 1)
    return mels[at : at + JOINED_MELS]


def pad(examples: Sequence[Example]) -> Batch:
    """Examples of any length as one batch; lengths are rounded up to 40 so that few shapes occur."""
    lengths = [len(example.mels) for example in examples]
    longest = min(MAX_MELS, -(-max(lengths) // 40) * 40)
    mels = np.zeros((len(examples), max(longest, max(lengths)), 80), np.float32)
    rows, spans, clips = [], [], []
    for row, example in enumerate(examples):
        mels[row, : len(example.mels)] = example.mels
        rows += [row] * len(example.clips)
        spans += zip((0, *example.ends), example.ends, strict=False)
        clips += example.clips
    return Batch(torch.from_numpy(mels), *(torch.tensor(values) for values in (lengths, clips, rows, spans)))
