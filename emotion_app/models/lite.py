"""The embedded model: small enough to be part of the package, the answer when nothing larger is at hand.

Whisper-tiny's first blocks, fine-tuned for emotion (``training/``), int8 rows on disk, float32 in memory, CPU.
Figures, data, licences and limits are in ``docs/models.md``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from emotion_app.errors import ModelError
from emotion_app.labels import N_EMOTIONS
from emotion_app.models import FrameArrays, WindowPlan
from emotion_app.models.lite_network import LiteNet, Shape
from emotion_app.models.melspec import LEVEL, MelPower, level
from emotion_app.types import MIN_SAMPLES, BaselineRule, Floats, ModelInfo, n_frames

WEIGHTS = Path(__file__).with_name("lite.safetensors")
PLAN = WindowPlan(whole_s=8.0, body_s=5.0, context_s=1.5)  # 400 learned positions are 8 s
MIN_TRUST = 0.2  # of a snippet's logits: the label stays, its score comes near one ninth
SCALE_SUFFIX = ".row_scale"  # beside an int8 matrix: float32 factor of each row
BATCH_SECONDS = 16.0  # of sound in one pass: larger batches were hardly faster and take memory (docs/models.md)


class LiteModel:
    """``FrameModel`` of the embedded weights; one thread at a time.

    Args:
        net: the network with its weights.
        info: what to tell about it.
        baseline: numbers of the baseline rule, when the weights have a reference head.
        full_frames: frames from which a clip is fully trusted; a shorter one is drawn towards no answer, see ``trust``.
    """

    plan = PLAN

    def __init__(self, net: LiteNet, info: ModelInfo, baseline: BaselineRule | None, full_frames: int = 0) -> None:
        self.info = info
        self.baseline_rule = baseline
        self._net = net.eval().requires_grad_(False)
        self._full_frames = full_frames
        # the point where all nine logits are zero: a snippet's features are drawn there, its best class stays the same
        self._rest = -torch.linalg.pinv(self._net.head.weight) @ self._net.head.bias
        self._mel_power = MelPower()

    def prepare(self, samples: Floats) -> Floats:
        """Bring the active part of the clip to one level: the answer does not depend on the recording gain."""
        if len(samples) < MIN_SAMPLES:
            return samples
        with torch.inference_mode():
            power = self._mel_power(torch.from_numpy(np.ascontiguousarray(samples))).numpy()
        return samples * np.float32(10 ** ((LEVEL - level(power)) / 2))

    def forward(self, waves: Sequence[Floats]) -> list[FrameArrays]:
        """Frames of prepared waves of 400 samples to 8 s each."""
        with torch.inference_mode():
            mels = [self._log_mels(wave) for wave in waves]
            lengths = torch.tensor([len(m) for m in mels])
            same = int(lengths.min()) == int(lengths.max())
            features = self._net(torch.nn.utils.rnn.pad_sequence(mels, batch_first=True), None if same else lengths)
            return [self._answer(row[: n_frames(len(wave))]) for row, wave in zip(features, waves, strict=True)]

    @property
    def head(self) -> tuple[Floats, Floats]:
        """(9, D) weight and (9,) bias of the plain head: ``logits == features @ weight.T + bias``."""
        return self._net.head.weight.numpy().copy(), self._net.head.bias.numpy().copy()

    def batch_limit(self, n_samples: int) -> int:
        """Clips of about ``n_samples`` for one pass: BATCH_SECONDS of sound in all."""
        return max(1, int(BATCH_SECONDS * 16_000 / max(n_samples, 1)))

    def _log_mels(self, wave: Floats) -> Tensor:
        power = self._mel_power(torch.from_numpy(np.ascontiguousarray(wave)))
        return (power + 10**self._net.encoder.shape.floor).log10()

    def _answer(self, features: Tensor) -> FrameArrays:
        share = trust(len(features), self._full_frames)
        reference = self._net.reference(features).numpy() if self.baseline_rule else None
        if share < 1:
            features = torch.lerp(self._rest, features, share)
            if self.baseline_rule and reference is not None:
                reference = self.baseline_rule.g + np.float32(share) * (reference - self.baseline_rule.g)
        return FrameArrays(features.numpy(), self._net.head(features).numpy(), reference)


def trust(n_frames: int, full_frames: int) -> float:
    """Share of its logits that a clip keeps: all from ``full_frames``, half at 3/4 of that, at least MIN_TRUST.

    With full_frames = 100 (2 s) a clip under 1.5 s keeps less than half; without it, two thirds of 1.45 s crops of
    emodb were answered at 50 % or more (training/EXPERIMENTS.md).

    >>> trust(100, 100), trust(75, 100), trust(20, 100), trust(20, 0)
    (1.0, 0.5, 0.2, 1.0)
    """
    if n_frames >= full_frames:
        return 1.0
    return max(MIN_TRUST, 2 * n_frames / full_frames - 1)


def load_lite(threads: int, path: Path = WEIGHTS) -> LiteModel:
    """The embedded model, or another one that ``training`` wrote.

    Args:
        threads: CPU threads of torch in this process; 0 leaves them as they are.
        path: weights and metadata.

    Raises:
        ModelError: MODEL_MISSING or MODEL_BROKEN.
    """
    if not path.is_file():
        raise ModelError("MODEL_MISSING", name=path.stem)
    if threads > 0:
        torch.set_num_threads(threads)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
        facts = json.loads(metadata["lite"])
        shape = Shape(facts["blocks"], tuple(facts["taps"]), facts["floor"])
        with torch.device("meta"):  # no time spent on random weights
            net = LiteNet(shape)
        net.load_state_dict(dequantise(stored), assign=True)
        rule = _rule(facts["baseline"]) if facts["baseline"] else None
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise ModelError("MODEL_BROKEN", name=path.stem, reason=str(error)[:300]) from error
    info = ModelInfo(
        name="lite",
        family="lite",
        source="embedded" if path == WEIGHTS else path.name,
        engine="torch",
        precision="fp32",
        device="cpu",
        dim=shape.dim,
        revision=facts["version"],
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        licence=facts["licence"],
    )
    return LiteModel(net, info, rule, facts["full_frames"])


def quantise(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Encoder matrices as int8 with one scale a row, positions as float16, everything small as it is."""
    out: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.startswith("encoder.") and name.endswith(".weight") and value.ndim > 1:
            rows = value.float().reshape(len(value), -1)
            scale = rows.abs().amax(1).clamp_min(1e-12) / 127
            out[name] = (rows / scale[:, None]).round().to(torch.int8).reshape(value.shape)
            out[name + SCALE_SUFFIX] = scale
        else:
            out[name] = value.half() if name == "encoder.positions" else value.float().clone()
    return out


def dequantise(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Float32 weights of what ``quantise`` made."""
    out: dict[str, Tensor] = {}
    for name, value in stored.items():
        if name.endswith(SCALE_SUFFIX):
            continue
        value = value.float()
        if (scale := stored.get(name + SCALE_SUFFIX)) is not None:
            value = value * scale.view(-1, *[1] * (value.ndim - 1))
        out[name] = value
    return out


def _rule(facts: Mapping[str, object]) -> BaselineRule:
    arrays = {key: np.array(facts[key], dtype=np.float32) for key in ("g", "d", "b")}
    if any(value.shape != (N_EMOTIONS,) for value in arrays.values()):
        raise ValueError("baseline rule wants nine numbers each")
    return BaselineRule(n0=float(facts["n0"]), cap=int(facts["cap"]), min_clips=int(facts["min_clips"]), **arrays)
