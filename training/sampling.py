"""Which clip comes next: balanced by corpus, then class, then speaker, so that no collection or voice dominates."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from training.manifest import Clip


class Sampler:
    """Endless indices into ``clips``, the same for the same seed.

    Args:
        clips: what may be drawn.
        share: weight of each corpus; corpora that are not named share what the smallest named one has.
        seed: of the order.
    """

    def __init__(self, clips: Sequence[Clip], share: Mapping[str, float], seed: int) -> None:
        tree: dict[str, dict[int, dict[str, list[int]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
        for index, clip in enumerate(clips):
            tree[clip.corpus][clip.emotion][clip.speaker].append(index)
        self._tree = tree
        self._corpora = sorted(tree)
        weight = np.array([share.get(name, min(share.values(), default=1.0)) for name in self._corpora])
        self._weight = weight / weight.sum()
        self._rng = np.random.default_rng(seed)

    def __iter__(self) -> Iterator[int]:
        while True:
            yield self.draw()

    def draw(self) -> int:
        """One index."""
        classes = self._tree[self._corpora[self._rng.choice(len(self._corpora), p=self._weight)]]
        speakers = classes[sorted(classes)[self._rng.integers(len(classes))]]
        clips = speakers[sorted(speakers)[self._rng.integers(len(speakers))]]
        return clips[self._rng.integers(len(clips))]
