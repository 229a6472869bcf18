"""Emotion2Vec behind the FrameModel contract: FunASR's numbers, with the scores of every frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from emotion_app.labels import N_EMOTIONS
from emotion_app.models import FrameArrays, WindowPlan
from emotion_app.models.config import NetworkConfig
from emotion_app.models.kernels import Linear
from emotion_app.models.network import Network
from emotion_app.models.parallel import clips_side_by_side
from emotion_app.models.scale import Scale, Scaled, standardise
from emotion_app.notes import Note
from emotion_app.types import EXCLUDED_LOGIT, SAMPLE_RATE, Floats, ModelInfo

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PLAN = WindowPlan(whole_s=60.0, body_s=27.0, context_s=3.0)  # the error of windows is measured in docs/engine.md
CPU_BATCH_S = 16.0  # of sound in one pass; live windows wait for it. Gains by size: benchmarks/engine.py
CPU_ALONE_S = 8.0  # longer clips fill the processor by themselves
HEAD = ("proj.weight", "proj.bias")
GPU_BATCH_S = 240.0  # of sound in one pass; not measured yet


class Emotion2vec(Scaled):
    """A checkpoint ready to answer.

    Args:
        config: shape of the network.
        rows: for each row of the head, its emotion in ``labels.EMOTIONS`` or None (left out).
        state: tensors by FunASR's names, without ``d2v_model.``.
        info: what to say about this model; ``precision`` and ``device`` decide how it computes.
        notes: what a reader of its results must know, e.g. that another precision was asked for.
    """

    plan = PLAN

    def __init__(
        self,
        config: NetworkConfig,
        rows: tuple[int | None, ...],
        state: Mapping[str, Tensor],
        info: ModelInfo,
        notes: tuple[Note, ...] = (),
    ) -> None:
        self.info = info
        self.notes = notes
        self._device = torch.device(info.device)
        self._normalize = config.normalize
        self._network = Network(config, state, self._device, DTYPES[info.precision])
        kept = [(row, index) for row, index in enumerate(rows) if index is not None]
        head = (state[name][[row for row, _ in kept]].to(self._device, torch.float32) for name in HEAD)
        self._head = Linear(*head)  # by oneDNN: MKL adds nine columns up in an order that depends on the threads
        self._places = [index for _, index in kept]

    def scale(self, samples: Floats) -> Scale:
        """The whole waveform to mean 0 and variance 1, if the checkpoint was trained so."""
        return standardise(samples) if self._normalize else Scale()

    def forward(self, waves: Sequence[Floats]) -> list[FrameArrays]:
        """Frames of prepared waves of at least 400 samples; a clip's numbers do not depend on its company."""
        if self._device.type != "cpu":
            return self._pass(waves)
        return clips_side_by_side(self._pass, waves)

    def _pass(self, waves: Sequence[Floats]) -> list[FrameArrays]:
        with torch.inference_mode():
            features = self._network([self._upload(wave) for wave in waves])
            logits = [self._head(x) for x in features]
            return [
                FrameArrays(x.cpu().numpy(), self._arrange(y.cpu().numpy()))
                for x, y in zip(features, logits, strict=True)
            ]

    def batch_limit(self, n_samples: int) -> int:
        """Clips of about ``n_samples`` worth computing together on this device."""
        budget_s = CPU_BATCH_S if self._device.type == "cpu" else GPU_BATCH_S
        if self._device.type == "cpu" and n_samples > CPU_ALONE_S * SAMPLE_RATE:
            return 1
        return max(1, int(budget_s * SAMPLE_RATE / max(1, n_samples)))

    def _upload(self, wave: Floats) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(wave, dtype=np.float32))
        if self._device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self._device, non_blocking=True)  # the copy runs beside the computation

    def _arrange(self, logits: Floats) -> Floats:
        """(T, classes of the checkpoint) -> (T, 9) in the order of ``labels.EMOTIONS``."""
        if self._places == list(range(N_EMOTIONS)):
            return logits
        full = np.full((len(logits), N_EMOTIONS), EXCLUDED_LOGIT, dtype=np.float32)
        full[:, self._places] = logits
        return full
