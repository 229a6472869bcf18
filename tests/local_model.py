"""A real, tiny frame model without a network: exact by construction, so the engine around it can be checked."""

from collections.abc import Callable, Sequence

import numpy as np

from emotion_app.models import FrameArrays, WindowPlan
from emotion_app.models.scale import Scale, Scaled, standardise
from emotion_app.types import HOP_SAMPLES, MIN_SAMPLES, Floats, ModelInfo, n_frames


class LocalModel(Scaled):
    """Frame ``t`` is a projection of samples ``[320 t, 320 t + 400)``: windows and batches change nothing.

    Computed in float64: float32 products of another number of rows differ by 2e-6 on some processors (AMD Zen 5).
    """

    def __init__(
        self,
        plan: WindowPlan | None = None,
        *,
        limit: int = 8,
        before: Callable[[int], None] | None = None,
        device: str = "cpu",
    ) -> None:
        self.info = ModelInfo("local", "test", "tests", "torch", "fp32", device, 16)
        self.plan = plan or WindowPlan(60, 30, 5)
        self.batches: list[list[int]] = []
        self._limit, self._before = limit, before
        random = np.random.default_rng(0)
        self._in, self._head = random.normal(size=(MIN_SAMPLES, 16)) / 20, random.normal(size=(16, 9))

    def scale(self, samples: Floats) -> Scale:
        return standardise(samples)

    def batch_limit(self, n_samples: int) -> int:
        return self._limit

    def forward(self, waves: Sequence[Floats]) -> list[FrameArrays]:
        self.batches.append([len(w) for w in waves])
        if self._before is not None:
            self._before(len(waves))
        answers = []
        for wave in waves:
            frames = np.stack(
                [wave[t * HOP_SAMPLES : t * HOP_SAMPLES + MIN_SAMPLES] for t in range(n_frames(len(wave)))]
            )
            features = np.tanh(frames @ self._in)
            logits = features @ self._head
            answers.append(FrameArrays(*(a.astype(np.float32) for a in (features, logits, logits / 2))))
        return answers
