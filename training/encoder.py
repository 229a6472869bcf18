"""The pretrained encoder to start from, taken out of a public wheel and rebuilt as plain float32 tensors.

``pipecat-ai`` 1.14.0 (BSD-2-Clause) carries smart-turn v3.2: the encoder of OpenAI's Whisper tiny (MIT), tuned to
hear the end of a turn in 23 languages, as int8 ONNX (QDQ). It is used here and nowhere else: the app does not
depend on it. ``fetch`` downloads the wheel with pip; ``extract`` turns scales and zero points back into weights.
"""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

WHEEL = "pipecat-ai==1.14.0"
MEMBER = "pipecat/audio/turn/smart_turn/data/smart-turn-v3.2-cpu.onnx"
_PREFIX = "inner.encoder."


def fetch(folder: Path) -> Path:
    """Path of the wheel in ``folder``, downloaded with pip when it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    found = sorted(folder.glob("pipecat_ai-1.14.0-*.whl"))
    if not found:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), WHEEL], check=True
        )
        found = sorted(folder.glob("pipecat_ai-1.14.0-*.whl"))
    return found[0]


def extract(wheel: Path) -> dict[str, Tensor]:
    """State of ``emotion_app.models.lite_network.Encoder`` with all four blocks, float32."""
    import onnx
    from onnx import numpy_helper

    with zipfile.ZipFile(wheel) as archive:
        graph = onnx.load_model_from_string(archive.read(MEMBER)).graph
    constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            constants[node.output[0]] = _dequantise(*(constants[name] for name in node.input), node=node)
    users = {name: node for node in graph.node for name in node.input}
    raw = {name[len(_PREFIX) :]: value for name, value in constants.items() if name.startswith(_PREFIX)}
    keys = 0
    for node in graph.node:
        if node.op_type != "MatMul" or node.input[1] not in constants:
            continue
        user = users[node.output[0]]
        while user.op_type in ("QuantizeLinear", "DequantizeLinear"):
            user = users[user.output[0]]
        bias = next((name for name in user.input if name in constants), None) if user.op_type == "Add" else None
        if bias is None:  # only the key projection has no bias
            raw[f"layers.{keys}.self_attn.k_proj.weight"] = constants[node.input[1]].T
            keys += 1
        elif bias.startswith(_PREFIX):
            raw[bias[len(_PREFIX) :].replace(".bias", ".weight")] = constants[node.input[1]].T
    raw |= {
        f"{conv}.weight": constants[f"{_PREFIX}{conv}.weight_DequantizeLinear_Output"] for conv in ("conv1", "conv2")
    }
    return {
        _our_name(name): torch.from_numpy(np.array(value, dtype=np.float32, order="C"))
        for name, value in raw.items()
        if _wanted(name)
    }


def _dequantise(values: np.ndarray, scale: np.ndarray, zero: np.ndarray, node: object) -> np.ndarray:
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
    if scale.ndim:
        shape = [1] * values.ndim
        shape[min(axis, values.ndim - 1)] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    return (values.astype(np.float32) - zero.astype(np.float32)) * scale


def _wanted(name: str) -> bool:
    if name.startswith("layer_norm."):
        return False  # the final norm behind block 4 is not used
    return name.endswith((".weight", ".bias"))


def _our_name(name: str) -> str:
    name = name.replace("embed_positions.weight", "positions")
    name = re.sub(r"layers\.(\d)\.self_attn_layer_norm", r"blocks.\1.norm1", name)
    name = re.sub(r"layers\.(\d)\.final_layer_norm", r"blocks.\1.norm2", name)
    name = re.sub(r"layers\.(\d)\.self_attn\.(\w+?)_proj", r"blocks.\1.\2", name)
    return re.sub(r"layers\.(\d)\.fc", r"blocks.\1.fc", name)
