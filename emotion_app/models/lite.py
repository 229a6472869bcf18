"""The embedded model: small enough to be part of the package, the answer when nothing larger is at hand.

A Whisper encoder's first blocks, fine-tuned for emotion (``training/``), int8 rows on disk, float32 in memory, CPU.
Figures, data, licences and limits are in ``docs/models.md``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from emotion_app.errors import ModelError
from emotion_app.labels import INDEX, N_EMOTIONS
from emotion_app.models import FrameArrays, WindowPlan
from emotion_app.models.device import cpu_has_bf16
from emotion_app.models.lite_network import STRIDE, LiteNet, Shape, votes
from emotion_app.models.lite_packed import PackedNet
from emotion_app.models.melspec import LEVEL, MelPower, level_of
from emotion_app.models.parallel import clips_side_by_side
from emotion_app.models.scale import Scale, Scaled
from emotion_app.types import MIN_SAMPLES, SAMPLE_RATE, BaselineRule, Floats, ModelInfo

WEIGHTS = Path(__file__).with_name("lite.safetensors")
# Trained on utterances of two to five seconds: a longer pass hears one feeling in all of it (benchmarks/long_clips.py).
PLAN = WindowPlan(whole_s=5.0, body_s=3.0, context_s=0.5)  # 400 positions would be 8 s
UNKNOWN = INDEX["unknown"]
SURE = 0.5  # a score that reads as confident
SHARES = np.arange(1, 33, dtype=np.float32) / 64  # of a snippet's logits, up to half
SCALE_SUFFIX = ".row_scale"  # beside an int8 matrix: float32 factor of each row
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
ALONE_S = 4.0  # clips up to this run on one thread: 10 ms for a window of 3 s in bf16 with one and with two threads
HUSH = 0.05  # of logit: too little to be seen in the answer of a clip
LEAST_SOUND = 0.5  # a clip that is pause for more than half of its length keeps less of its logits
BATCH_SECONDS = 8.0  # of sound in one pass: larger ones are hardly faster, take memory and keep live windows waiting


@dataclass(frozen=True, eq=False)
class LiteWeights:
    """What a file holds.

    Attributes:
        net: the network with its weights, float32.
        info: what to tell about it.
        baseline: numbers of the baseline rule, when the weights have a reference head.
        full_frames: frames from which a clip is fully trusted, see ``trust``.
    """

    net: LiteNet
    info: ModelInfo
    baseline: BaselineRule | None
    full_frames: int

    @property
    def rest(self) -> Tensor:
        """(D,) the point where all nine logits are zero: a snippet's features are drawn there."""
        return -torch.linalg.pinv(self.net.head.weight) @ self.net.head.bias

    @property
    def hush(self) -> Tensor:
        """(D,) what raises the logit of ``unknown`` by HUSH and no other: the label of a pause by itself."""
        return HUSH * torch.linalg.pinv(self.net.head.weight)[:, UNKNOWN]


class LiteModel(Scaled):
    """``FrameModel`` of the embedded weights; one thread at a time.

    Args:
        weights: as ``read_lite`` gives them; the encoder is copied.

    Attributes:
        interim: makes the same model for the passing windows of live streams, in bf16, which is 2.4 times faster on
            AMX and 1.5 times with AVX512-BF16 (Zen 5); None where it would not be. What is final is always computed by
            the model itself.
    """

    plan = PLAN
    interim: Callable[[], LiteModel] | None = None

    def __init__(self, weights: LiteWeights) -> None:
        self.info = weights.info
        self.baseline_rule = weights.baseline
        self._head, self._reference = weights.net.head, weights.net.reference
        self._full_frames = weights.full_frames
        self._rest, self._hush = weights.rest, weights.hush
        shape = weights.net.encoder.shape
        self._floor, self._pause_db = shape.floor, shape.pause_db
        self._mel_power = MelPower()
        self._packed = PackedNet(weights.net, DTYPES[weights.info.precision])

    def scale(self, samples: Floats) -> Scale:
        """Bring the active part of the clip to one level: the answer does not depend on the recording gain."""
        if len(samples) < MIN_SAMPLES:
            return Scale()
        with torch.inference_mode():
            energy = self._mel_power.energy(torch.from_numpy(np.ascontiguousarray(samples))).numpy()
        return Scale(gain=float(10 ** ((LEVEL - level_of(energy)) / 2)))

    def forward(self, waves: Sequence[Floats]) -> list[FrameArrays]:
        """Frames of prepared waves of 400 samples to 8 s each."""
        with _threads_for(max(map(len, waves)) if len(waves) == 1 else None):
            return clips_side_by_side(self._pass, waves)

    def _pass(self, waves: Sequence[Floats]) -> list[FrameArrays]:
        with torch.inference_mode():
            powers = [self._mel_power(torch.from_numpy(np.ascontiguousarray(wave))) for wave in waves]
            features = self._packed([(power + 10**self._floor).log10() for power in powers])
            return [self._answer(rows, power) for rows, power in zip(features, powers, strict=True)]

    @property
    def head(self) -> tuple[Floats, Floats]:
        """(9, D) weight and (9,) bias of the plain head: ``logits == features @ weight.T + bias``."""
        return self._head.weight.numpy().copy(), self._head.bias.numpy().copy()

    def batch_limit(self, n_samples: int) -> int:
        """Clips of about ``n_samples`` for one pass: BATCH_SECONDS of sound in all."""
        return max(1, int(BATCH_SECONDS * SAMPLE_RATE / max(n_samples, 1)))

    def _answer(self, features: Tensor, power: Tensor) -> FrameArrays:
        logits = self._head(features)
        reference = self._reference(features).numpy() if self.baseline_rule else None
        vote = self._votes(power)
        share = vote / vote.mean().clamp_min(LEAST_SOUND)
        share = share * trust((share * logits).mean(0).numpy(), len(features), self._full_frames)
        if bool((share != 1).any()):
            features = torch.lerp(self._rest, features, share).addcmul_(1 - vote, self._hush)
            logits = self._head(features)
            if self.baseline_rule and reference is not None:
                reference = self.baseline_rule.g + share.numpy() * (reference - self.baseline_rule.g)
        return FrameArrays(features.numpy(), logits.numpy(), reference)

    def _votes(self, power: Tensor) -> Tensor:
        """(T, 1) how much each frame counts: a clip is answered by its sound and not by its pauses.

        A frame keeps that share of its logits, over the mean share: then the plain mean of all frames is the mean of
        those with sound, and nothing that pools frames needs to know.
        """
        if not self._pause_db:
            return torch.ones(-(-len(power) // STRIDE), 1)
        return votes(power.mean(1)[None], self._pause_db)[0, :, None]


@contextlib.contextmanager
def _threads_for(samples: int | None) -> Iterator[None]:
    """One thread for a short clip alone, all of them for a longer one and for several."""
    before = torch.get_num_threads()
    if samples is None or samples > ALONE_S * SAMPLE_RATE or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def trust(logits: Floats, n_frames: int, full_frames: int) -> float:
    """Share of its logits that a snippet keeps; its label stays, its score comes nearer to one ninth.

    All from ``full_frames`` (2 s), falling to half at 3/4 of that; below that (1.5 s) no emotion is answered at
    SURE or more. What is not speech may be answered at once: ``unknown`` keeps everything. Without this, two thirds
    of 1.45 s crops of emodb were answered at 50 % or more (training/EXPERIMENTS.md).

    Args:
        logits: (9,) mean over the clip.
        n_frames: its length.
        full_frames: 0 trusts everything.

    >>> sure = np.eye(9, dtype=np.float32)[3] * 9
    >>> trust(sure, 100, 100), trust(sure, 75, 100), trust(sure, 74, 100), trust(np.roll(sure, 5), 20, 100)
    (1.0, 0.5, 0.21875, 1.0)
    """
    if n_frames >= full_frames or int(logits.argmax()) == UNKNOWN:
        return 1.0
    if 4 * n_frames >= 3 * full_frames:
        return 2 * n_frames / full_frames - 1
    odds = np.exp(SHARES[:, None] * (logits - logits.max()))
    best = 1 / odds.sum(1)  # the highest score at each share: that of the label, an emotion
    return float(SHARES[best < SURE].max(initial=SHARES[0]))


def load_lite(threads: int, path: Path = WEIGHTS, precision: str = "auto") -> LiteModel:
    """The embedded model, or another one that ``training`` wrote.

    Args:
        threads: CPU threads of torch in this process; 0 leaves them as they are.
        path: weights and metadata.
        precision: ``bf16`` for all products; ``fp32`` for the passing windows of live streams too; else fp32 with
            those windows in bf16 where that is faster.

    Raises:
        ModelError: MODEL_MISSING or MODEL_BROKEN.
    """
    if threads > 0:
        torch.set_num_threads(threads)
    weights = read_lite(path)
    if precision == "bf16":
        return LiteModel(replace(weights, info=replace(weights.info, precision="bf16")))
    model = LiteModel(weights)
    if precision != "fp32" and cpu_has_bf16():
        model.interim = partial(load_lite, 0, path, "bf16")
    return model


def read_lite(path: Path = WEIGHTS) -> LiteWeights:
    """Weights and facts of a file.

    Raises:
        ModelError: MODEL_MISSING or MODEL_BROKEN.
    """
    if not path.is_file():
        raise ModelError("MODEL_MISSING", name=path.stem)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
        facts = json.loads(metadata["lite"])
        newer = {name: facts[name] for name in ("pause_db", "width", "hidden") if name in facts}
        shape = Shape(facts["blocks"], tuple(facts["taps"]), facts["floor"], **newer)
        with torch.device("meta"):  # no time spent on random weights
            net = LiteNet(shape)
        net.load_state_dict(dequantise(stored), assign=True)
        del stored
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
    return LiteWeights(net.eval().requires_grad_(False), info, rule, facts["full_frames"])


def quantise(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Matrices of the blocks as int8 with one scale a row, stem and positions as float16, everything small as it is.

    The stem in int8 moved all answers to one side and cost 3 points on tess; the blocks cost nothing that can be seen.
    """
    out: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.startswith("encoder.blocks.") and name.endswith(".weight") and value.ndim > 1:
            rows = value.float().reshape(len(value), -1)
            scale = rows.abs().amax(1).clamp_min(1e-12) / 127
            out[name] = (rows / scale[:, None]).round().to(torch.int8).reshape(value.shape)
            out[name + SCALE_SUFFIX] = scale
        else:
            stem = name in ("encoder.positions", "encoder.conv1.weight", "encoder.conv2.weight")
            out[name] = value.half() if stem else value.float().clone()
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
