"""emotion2vec and the embedded model as ONNX graphs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import onnx

from emotion_app.labels import N_EMOTIONS
from emotion_app.models.config import NetworkConfig
from emotion_app.models.kernels import alibi_slopes
from emotion_app.models.network import AUDIO, CONTEXT, block_names
from emotion_app.models.onnx_graph import Graph
from emotion_app.types import EXCLUDED_LOGIT, Floats

if TYPE_CHECKING:
    from emotion_app.models.lite import LiteWeights

State = Mapping[str, Floats]


def emotion2vec_graph(
    config: NetworkConfig, rows: tuple[int | None, ...], state: State, half: bool, facts: Mapping[str, str]
) -> onnx.ModelProto:
    """The network of ``network.py``: outputs ``features`` (T, D) and ``logits`` (T, 9) in the order of our labels.

    Args:
        rows: for each row of the head, its emotion or None.
        state: float32 tensors by FunASR's names.
        half: products in fp16.
        facts: metadata.
    """
    graph = Graph(half)
    x = _front_end(graph, config, state)
    x = graph.op("Add", x, _positions(graph, config, state, x))
    bias = _distance_bias(graph, config, state, x) if config.alibi else None
    if config.extra_tokens:
        x = graph.op("Concat", graph.constant(state[AUDIO + "extra_tokens"]), x, axis=1)
    if not config.norm_first:
        x = _norm(graph, state, CONTEXT + "norm", config, x)
    for index, name in enumerate(block_names(config)):
        x = _block(graph, config, state, name, x, bias[index if len(bias) > 1 else 0] if bias else None)
    if config.norm_first:
        x = _norm(graph, state, "norm", config, x)
    start, end = graph.constant([config.extra_tokens]), graph.constant([np.iinfo(np.int64).max])
    x = graph.op("Slice", x, start, end, graph.constant([1]))
    features = graph.op("Squeeze", x, graph.constant([0]))
    weight, bias_row = np.zeros((N_EMOTIONS, config.dim), np.float32), np.full(N_EMOTIONS, EXCLUDED_LOGIT, np.float32)
    for row, index in enumerate(rows):
        if index is not None:
            weight[index], bias_row[index] = state["proj.weight"][row], state["proj.bias"][row]
    logits = graph.linear(features, weight, bias_row, exact=True)
    return graph.model({"features": (features, config.dim), "logits": (logits, N_EMOTIONS)}, facts)


def _front_end(graph: Graph, config: NetworkConfig, state: State) -> str:
    """(n,) -> (1, T, D)."""
    x = "waveform"
    if config.normalize:
        centred = graph.op("Sub", x, graph.op("ReduceMean", x, keepdims=1))
        power = graph.op("ReduceMean", graph.op("Mul", centred, centred), keepdims=1)
        x = graph.choose(graph.op("Div", centred, graph.op("Sqrt", graph.op("Add", power, graph.constant(1e-5)))), x)
    x = graph.op("Unsqueeze", x, graph.constant([0, 1]))
    for i, (_, kernel, stride) in enumerate(config.conv):
        layer = f"{AUDIO}local_encoder.conv_layers.{i}."
        x = graph.conv(x, state[layer + "0.weight"], kernel_shape=[kernel], strides=[stride])
        x = graph.gelu(graph.norm(graph.swap(x), state[layer + "2.1.weight"], state[layer + "2.1.bias"]))
        x = x if i == len(config.conv) - 1 else graph.swap(x)
    project = AUDIO + "project_features."
    x = graph.norm(x, state[project + "1.weight"], state[project + "1.bias"])
    return graph.linear(x, state[project + "2.weight"], state[project + "2.bias"])


def _positions(graph: Graph, config: NetworkConfig, state: State, x: str) -> str:
    prefix = AUDIO + "relative_positional_encoder."
    frames = graph.size(x, 1)
    if config.pos_pre_norm:
        x = graph.norm(x, state[prefix + "0.weight"], state[prefix + "0.bias"])
        prefix += "1."
    half = config.pos_kernel // 2
    for i in range(config.pos_layers):
        weight, bias = state[f"{prefix}{i + 1}.0.weight"], state[f"{prefix}{i + 1}.0.bias"]
        x = graph.conv(
            graph.swap(x), weight, bias, kernel_shape=[config.pos_kernel], pads=[half, half], group=config.pos_groups
        )
        x = graph.swap(x)
        if config.pos_kernel % 2 == 0:
            x = graph.op("Slice", x, graph.constant([0]), frames, graph.constant([1]))
        x = graph.gelu(graph.norm(x, config.dim))
    return x


def _distance_bias(graph: Graph, config: NetworkConfig, state: State, frames: str) -> list[str]:
    """(H, S, S), one for all blocks or one for each."""
    count = graph.op("Squeeze", graph.size(frames, 1), graph.constant([0]))
    place = graph.op("Range", graph.constant(np.int64(0)), count, graph.constant(np.int64(1)))
    place = graph.op("Cast", place, to=onnx.TensorProto.FLOAT)
    rows = graph.op("Unsqueeze", place, graph.constant([1]))
    columns = graph.op("Unsqueeze", place, graph.constant([0]))
    distance = graph.op("Abs", graph.op("Sub", rows, columns))
    extra = graph.constant([config.extra_tokens, config.extra_tokens, 0, 0])
    distance = graph.op("Unsqueeze", graph.op("Pad", distance, extra), graph.constant([0]))
    scale = np.maximum(state[AUDIO + "alibi_scale"], 0).reshape(len(state[AUDIO + "alibi_scale"]), -1)
    slopes = -scale * np.array(alibi_slopes(config.alibi_heads), dtype=np.float32)
    slopes = np.pad(slopes, ((0, 0), (0, config.heads - config.alibi_heads)))
    return [graph.op("Mul", distance, graph.constant(row[:, None, None])) for row in slopes]


def _block(graph: Graph, config: NetworkConfig, state: State, name: str, x: str, bias: str | None) -> str:
    def linear(part: str, value: str) -> str:
        return graph.linear(value, state[f"{name}{part}.weight"], state[f"{name}{part}.bias"])

    def attend(value: str) -> str:
        parts = graph.op(
            "Reshape", linear("attn.qkv", value), graph.constant([-1, 3, config.heads, config.dim // config.heads])
        )
        q, k, v = _thirds(graph, parts)
        return linear("attn.proj", _attention(graph, q, k, v, bias, config.dim // config.heads, config.dim))

    def feed(value: str) -> str:
        return linear("mlp.fc2", graph.gelu(linear("mlp.fc1", value)))

    first, second = (lambda v, n=n: _norm(graph, state, name + n, config, v) for n in ("norm1", "norm2"))
    if config.norm_first:
        x = graph.op("Add", x, attend(first(x)))
        return graph.op("Mul", feed(second(x)), graph.constant(2.0))  # data2vec 2 adds the MLP to itself here
    x = first(graph.op("Add", x, attend(x)))
    return second(graph.op("Add", x, feed(x)))


def _thirds(graph: Graph, parts: str) -> tuple[str, str, str]:
    """(S, 3, H, d) -> three of (H, S, d)."""
    parts = graph.op("Transpose", parts, perm=[1, 2, 0, 3])
    q, k, v = (graph.op("Gather", parts, graph.constant(np.int64(i)), axis=0) for i in range(3))
    return q, k, v


def _attention(graph: Graph, q: str, k: str, v: str, bias: str | None, head_dim: int, dim: int) -> str:
    """(H, S, d) each -> (1, S, D)."""
    q = graph.op("Mul", q, graph.constant(1 / math.sqrt(head_dim)))
    weights = graph.op("MatMul", q, graph.op("Transpose", k, perm=[0, 2, 1]))
    weights = graph.op("Add", weights, bias) if bias else weights
    mixed = graph.op("MatMul", graph.op("Softmax", weights, axis=-1), v)
    return graph.op("Reshape", graph.op("Transpose", mixed, perm=[1, 0, 2]), graph.constant([1, -1, dim]))


def _norm(graph: Graph, state: State, name: str, config: NetworkConfig, x: str) -> str:
    return graph.norm(x, state.get(name + ".weight", config.dim), state.get(name + ".bias"), config.norm_eps)


def lite_graph(lite: LiteWeights, half: bool, facts: Mapping[str, str]) -> onnx.ModelProto:
    """The embedded model for clips of 400 samples to 8 s: mel frames, stem, blocks, heads.

    Outputs ``features`` (T, D), ``logits`` (T, 9) and, where it has a baseline rule, ``reference_logits`` (T, 9).
    """
    from emotion_app.models.lite_network import STRIDE

    graph, net, rule = Graph(half), lite.net, lite.baseline
    state = {key: value.float().numpy() for key, value in net.state_dict().items()}
    x, smooth = _log_mels(graph, net.encoder.shape.floor)  # (1, M, 80), (1, M)
    x = graph.swap(graph.op("Div", graph.op("Add", x, graph.constant(4.0)), graph.constant(4.0)))
    for conv, stride in (("encoder.conv1", 1), ("encoder.conv2", STRIDE)):
        weight, bias = state[conv + ".weight"], state[conv + ".bias"]
        x = graph.gelu(graph.conv(x, weight, bias, kernel_shape=[3], pads=[1, 1], strides=[stride]))
    x = graph.swap(x)
    frames = graph.size(x, 1)
    x = graph.op("Add", x, graph.op("Slice", graph.constant(state["encoder.positions"]), graph.constant([0]), frames))
    heard = []
    for number in range(1, net.encoder.shape.blocks + 1):
        x = _lite_block(graph, state, f"encoder.blocks.{number - 1}.", x)
        if number in net.encoder.shape.taps:
            heard.append(x)
    x = graph.op("Concat", *heard, axis=2) if len(heard) > 1 else heard[0]
    x = graph.op("Mul", graph.op("Sub", x, graph.constant(state["mean"])), graph.constant(state["scale"]))
    heard_by_heads = graph.op("Squeeze", x, graph.constant([0]))
    vote, share = _votes(graph, smooth, net.encoder.shape.pause_db)
    if lite.full_frames:
        logits = graph.linear(heard_by_heads, state["head.weight"], state["head.bias"], exact=True)
        logits = graph.op("Mul", logits, share)
        share = graph.op("Mul", share, _trust(graph, logits, frames, lite.full_frames))
    features = _drawn(graph, heard_by_heads, lite.rest.numpy(), share)
    pause = graph.op("Sub", graph.constant(1.0), vote)
    features = graph.op("Add", features, graph.op("Mul", pause, graph.constant(lite.hush.numpy())))
    outputs = {
        "features": (features, net.encoder.shape.dim),
        "logits": (graph.linear(features, state["head.weight"], state["head.bias"], exact=True), N_EMOTIONS),
    }
    if rule is not None:
        reference = graph.linear(heard_by_heads, state["reference.weight"], None, exact=True)
        outputs["reference_logits"] = (_drawn(graph, reference, rule.g, share), N_EMOTIONS)
    return graph.model(outputs, facts)


def _votes(graph: Graph, smooth: str, pause_db: float) -> tuple[str, str]:
    """``LiteModel._votes`` as nodes: (1, M) loudness of mel frames -> (T, 1) votes, (T, 1) shares; 1 without pauses."""
    from emotion_app.models.lite import LEAST_SOUND
    from emotion_app.models.lite_network import EASE_DB, SPECK, STRIDE

    if not pause_db:
        return graph.constant(1.0), graph.constant(1.0)
    loudness = graph.op("Add", smooth, graph.constant(SPECK))
    ratio = graph.op("Div", loudness, graph.op("ReduceMax", loudness, keepdims=1))
    steps = graph.op("Mul", graph.op("Log", ratio), graph.constant(10 / math.log(10) / EASE_DB))
    vote = graph.op("Sigmoid", graph.op("Add", steps, graph.constant(pause_db / EASE_DB)))
    first, last = graph.constant([0]), graph.constant([np.iinfo(np.int64).max])
    vote = graph.op("Slice", vote, first, last, graph.constant([1]), graph.constant([STRIDE]))
    vote = graph.op("Transpose", vote, perm=[1, 0])
    mean = graph.op("Max", graph.op("ReduceMean", vote, keepdims=1), graph.constant(LEAST_SOUND))
    return vote, graph.op("Div", vote, mean)


def _trust(graph: Graph, logits: str, frames: str, full_frames: int) -> str:
    """``lite.trust`` as nodes: (T, 9) logits and (1,) number of frames -> (1,) share."""
    from emotion_app.models.lite import SHARES, SURE, UNKNOWN

    mean = graph.op("ReduceMean", logits, axes=[0], keepdims=1)  # (1, 9)
    scores = graph.op("Softmax", graph.op("Mul", mean, graph.constant(SHARES[:, None])), axis=-1)
    best = graph.op("ReduceMax", scores, axes=[1], keepdims=1)  # (32, 1)
    fits = graph.op("Less", best, graph.constant(SURE))
    shares = graph.op("Where", fits, graph.constant(SHARES[:, None]), graph.constant(SHARES[0]))
    snippet = graph.op("ReduceMax", shares, axes=[0, 1], keepdims=0)
    length = graph.op("Cast", frames, to=onnx.TensorProto.FLOAT)
    longer = graph.op("Sub", graph.op("Mul", length, graph.constant(2.0 / full_frames)), graph.constant(1.0))
    share = graph.op("Where", graph.op("Less", length, graph.constant(0.75 * full_frames)), snippet, longer)
    label = graph.op("ArgMax", mean, axis=1, keepdims=0)  # (1,)
    heard_as_noise = graph.op("Equal", label, graph.constant([UNKNOWN]))
    one = graph.constant(1.0)
    return graph.op("Where", heard_as_noise, one, graph.op("Min", share, one))


def _drawn(graph: Graph, x: str, rest: Floats, share: str) -> str:
    """``rest + share * (x - rest)``."""
    point = graph.constant(rest)
    return graph.op("Add", graph.op("Mul", graph.op("Sub", x, point), share), point)


def _lite_block(graph: Graph, state: State, name: str, x: str) -> str:
    from emotion_app.models.lite_network import HEAD_WIDTH

    width = len(state[f"{name}q.bias"])

    def linear(part: str, value: str) -> str:
        return graph.linear(value, state[f"{name}{part}.weight"], state.get(f"{name}{part}.bias"))

    def norm(part: str, value: str) -> str:
        return graph.norm(value, state[f"{name}{part}.weight"], state[f"{name}{part}.bias"])

    h = norm("norm1", x)
    split = graph.constant([-1, width // HEAD_WIDTH, HEAD_WIDTH])
    q, k, v = (
        graph.op("Transpose", graph.op("Reshape", linear(part, h), split), perm=[1, 0, 2]) for part in ("q", "k", "v")
    )
    x = graph.op("Add", x, linear("out", _attention(graph, q, k, v, None, HEAD_WIDTH, width)))
    return graph.op("Add", x, linear("fc2", graph.gelu(linear("fc1", norm("norm2", x)))))


def _log_mels(graph: Graph, floor: float) -> tuple[str, str]:
    """``melspec`` as a convolution with the windowed Fourier basis: (n,) -> (1, M, 80) log10 mel power.

    And (1, M), the smoothed mean power of each frame before the gain.
    """
    from emotion_app.models.melspec import ACTIVE_DB, HOP, LEVEL, N_FFT, TINY, mel_filters

    place, bins = np.arange(N_FFT), np.arange(N_FFT // 2 + 1)
    angle = 2 * np.pi * np.outer(bins, place) / N_FFT
    window = 0.5 - 0.5 * np.cos(2 * np.pi * place / N_FFT)
    basis = np.concatenate([np.cos(angle) * window, np.sin(angle) * window])[:, None].astype(np.float32)
    x = graph.op("Unsqueeze", "waveform", graph.constant([0, 1]))
    parts = graph.op("Conv", x, graph.constant(basis), kernel_shape=[N_FFT], strides=[HOP])  # never in fp16
    parts = graph.op("Mul", parts, parts)
    half, whole = len(bins), 2 * len(bins)
    axis = graph.constant([1])
    real = graph.op("Slice", parts, graph.constant([0]), graph.constant([half]), axis)
    imaginary = graph.op("Slice", parts, graph.constant([half]), graph.constant([whole]), axis)
    power = graph.linear(graph.swap(graph.op("Add", real, imaginary)), mel_filters().numpy(), None, exact=True)
    energy = graph.op("ReduceMean", power, axes=[2], keepdims=0)  # (1, M)
    smooth = graph.op(
        "Conv",
        graph.op("Unsqueeze", energy, graph.constant([1])),
        graph.constant(np.full((1, 1, 5), 0.2, np.float32)),
        kernel_shape=[5],
        pads=[2, 2],
    )
    long_enough = graph.op("Greater", graph.size(power, 1), graph.constant([4]))
    smooth = graph.op("Where", long_enough, graph.op("Squeeze", smooth, graph.constant([1])), energy)
    threshold = graph.op("Mul", graph.op("ReduceMax", smooth, keepdims=1), graph.constant(10 ** (-ACTIVE_DB / 10)))
    active = graph.op("Cast", graph.op("GreaterOrEqual", smooth, threshold), to=onnx.TensorProto.FLOAT)
    total = graph.op("ReduceSum", graph.op("Mul", energy, active), keepdims=0)
    mean = graph.op("Div", total, graph.op("ReduceSum", active, keepdims=0))
    gain = graph.op("Div", graph.constant(10**LEVEL), graph.op("Max", mean, graph.constant(TINY)))
    power = graph.op("Mul", power, graph.choose(gain, graph.constant(1.0)))
    logs = graph.op("Log", graph.op("Add", power, graph.constant(10**floor)))
    return graph.op("Mul", logs, graph.constant(1 / math.log(10))), smooth
