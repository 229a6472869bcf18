"""What a checkpoint's own ``config.yaml`` and ``tokens.txt`` say: every size is read, none assumed."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emotion_app import labels
from emotion_app.errors import ModelError
from emotion_app.types import HOP_SAMPLES, MIN_SAMPLES

ConvLayer = tuple[int, int, int]  # channels, kernel, stride
LEFT_OUT_PREFIX = "unuse"  # FunASR: a token that begins so is a class without a score
MAX_TEXT_BYTES = 1 << 20  # config.yaml and tokens.txt of the hub have 5 kB; more is not a model


@dataclass(frozen=True)
class NetworkConfig:
    """Shape of an emotion2vec (data2vec 2) encoder.

    Attributes:
        dim: D, width of the residual stream and of the embedding.
        heads: attention heads; ``alibi_heads`` of them (the first ones) get the distance bias.
        hidden: width of the MLP.
        depth: blocks after ``prenet_depth`` blocks of the audio encoder.
        norm_first: pre-norm blocks; the published models are post-norm.
        conv: front end, one (channels, kernel, stride) a layer.
        conv_norm: ``layer_norm`` in every layer, or ``group_norm`` in the first only (FunASR's ``default``).
        pos_layers, pos_kernel, pos_groups, pos_pre_norm: the convolutional position encoder.
        extra_tokens: learned tokens in front of the frames.
        alibi: whether there is a distance bias at all.
        normalize: layer-norm the whole waveform first.
    """

    dim: int
    heads: int
    alibi_heads: int
    hidden: int
    depth: int
    prenet_depth: int
    norm_first: bool
    norm_eps: float
    norm_affine: bool
    conv: tuple[ConvLayer, ...]
    conv_norm: str
    pos_layers: int
    pos_kernel: int
    pos_groups: int
    pos_pre_norm: bool
    extra_tokens: int
    alibi: bool
    alibi_per_head: bool
    alibi_per_layer: bool
    normalize: bool

    @property
    def n_blocks(self) -> int:
        """All transformer blocks."""
        return self.prenet_depth + self.depth


def parse_conv_spec(text: str) -> tuple[ConvLayer, ...]:
    """The front end's layers, from the expression that the config holds; nothing is evaluated.

    >>> parse_conv_spec("[(512, 10, 5)] + [(512, 3, 2)] * 2")
    ((512, 10, 5), (512, 3, 2), (512, 3, 2))
    """
    layers = _sequence(ast.parse(text, mode="eval").body)
    if not layers or len(layers) > 64:
        raise ValueError(f"conv layers: {len(layers)}")
    return tuple(layers)


def _sequence(node: ast.expr) -> list[ConvLayer]:
    if isinstance(node, ast.List):
        return [_layer(item) for item in node.elts]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _sequence(node.left) + _sequence(node.right)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        times = _integer(node.right)
        if times > 64:
            raise ValueError(f"conv layers repeated {times} times")
        return _sequence(node.left) * times
    raise ValueError("not a list of conv layers")


def _layer(node: ast.expr) -> ConvLayer:
    if not isinstance(node, ast.Tuple) or len(node.elts) != 3:
        raise ValueError("a conv layer wants (channels, kernel, stride)")
    channels, kernel, stride = (_integer(item) for item in node.elts)
    return channels, kernel, stride


def _integer(node: ast.expr) -> int:
    if not isinstance(node, ast.Constant) or not isinstance(node.value, int) or not 0 < node.value <= 65_536:
        raise ValueError("a conv layer wants positive whole numbers")
    return node.value


def read_config(directory: Path, name: str) -> NetworkConfig:
    """Read and check ``config.yaml``.

    Raises:
        ModelError: MODEL_BROKEN with what is missing or not supported.
    """
    import yaml

    try:
        content = yaml.safe_load(_read_text(directory / "config.yaml"))
        if not isinstance(content, Mapping) or content.get("model") != "Emotion2vec":
            found = content.get("model") if isinstance(content, Mapping) else type(content).__name__
            raise ValueError(f"config.yaml describes {found}, not Emotion2vec")
        return config_of(content["model_conf"])
    except KeyError as error:
        raise ModelError("MODEL_BROKEN", name=name, reason=f"config.yaml lacks {error}") from error
    except (OSError, ValueError, TypeError, SyntaxError, RecursionError, yaml.YAMLError) as error:
        raise ModelError("MODEL_BROKEN", name=name, reason=f"config.yaml: {error}") from error


def config_of(conf: Mapping[str, Any]) -> NetworkConfig:
    """The shape that ``model_conf`` describes.

    Raises:
        KeyError, ValueError: something is missing or not supported.
    """
    audio = conf["modalities"]["audio"]
    if audio.get("learned_alibi"):
        raise ValueError("learned_alibi is not supported")
    heads, dim = int(conf["num_heads"]), int(conf["embed_dim"])
    config = NetworkConfig(
        dim=dim,
        heads=heads,
        alibi_heads=int(audio["num_alibi_heads"]),
        hidden=int(dim * float(conf["mlp_ratio"])),
        depth=int(conf["depth"]),
        prenet_depth=int(audio["prenet_depth"]),
        norm_first=bool(conf["layer_norm_first"]),
        norm_eps=float(conf["norm_eps"]),
        norm_affine=bool(conf["norm_affine"]),
        conv=parse_conv_spec(str(audio["feature_encoder_spec"])),
        conv_norm="layer_norm" if audio["extractor_mode"] == "layer_norm" else "group_norm",
        pos_layers=int(audio["conv_pos_depth"]),
        pos_kernel=max(3, int(audio["conv_pos_width"]) // int(audio["conv_pos_depth"])),
        pos_groups=int(audio["conv_pos_groups"]),
        pos_pre_norm=bool(audio["conv_pos_pre_ln"]),
        extra_tokens=int(audio["num_extra_tokens"]),
        alibi=bool(audio["use_alibi_encoder"]),
        alibi_per_head=bool(audio["learned_alibi_scale_per_head"]),
        alibi_per_layer=bool(audio["learned_alibi_scale_per_layer"]),
        normalize=bool(conf["normalize"]),
    )
    _check(config)
    return config


def _check(config: NetworkConfig) -> None:
    if not (0 < config.heads <= 256 and 0 < config.dim <= 65_536 and config.dim % config.heads == 0):
        raise ValueError(f"embed_dim {config.dim} does not divide into {config.heads} heads")
    if not 0 < config.n_blocks <= 512 or config.depth < 0 or config.prenet_depth < 0:
        raise ValueError(f"{config.n_blocks} blocks")
    if not 0 < config.alibi_heads <= config.heads or config.dim % config.pos_groups or config.extra_tokens < 0:
        raise ValueError("alibi heads, position groups or extra tokens do not fit")
    if config.conv_norm == "group_norm":
        raise ValueError("extractor_mode default (group norm over the whole clip) is not supported")
    field, hop = receptive_field(config.conv)
    if (field, hop) != (MIN_SAMPLES, HOP_SAMPLES):
        raise ValueError(
            f"front end of {field} samples by {hop}; {MIN_SAMPLES} by {HOP_SAMPLES} is wanted (50 frames a second)"
        )


def receptive_field(conv: tuple[ConvLayer, ...]) -> tuple[int, int]:
    """Samples that one frame sees, and samples between frames.

    >>> receptive_field(parse_conv_spec("[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512,2,2)] + [(512,2,2)]"))
    (400, 320)
    """
    field, hop = 1, 1
    for _, kernel, stride in conv:
        field += (kernel - 1) * hop
        hop *= stride
    return field, hop


def read_tokens(directory: Path, name: str) -> tuple[int | None, ...]:
    """For each row of the head, its index in ``labels.EMOTIONS``; None for a class that is left out.

    Raises:
        ModelError: MODEL_BROKEN when a token is no emotion we know, or two tokens are the same one.
    """
    try:
        tokens = [line.strip() for line in _read_text(directory / "tokens.txt").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise ModelError("MODEL_BROKEN", name=name, reason=f"tokens.txt: {error}") from error
    rows: list[int | None] = []
    for token in tokens:
        index = None if token.startswith(LEFT_OUT_PREFIX) else labels.index_of(token)
        if index is None and not token.startswith(LEFT_OUT_PREFIX):
            raise ModelError("MODEL_BROKEN", name=name, reason=f"tokens.txt: {token[:40]!r} is no emotion known here")
        if index is not None and index in rows:
            raise ModelError("MODEL_BROKEN", name=name, reason=f"tokens.txt names {token[:40]!r} twice")
        rows.append(index)
    if not any(index is not None for index in rows):
        raise ModelError("MODEL_BROKEN", name=name, reason="tokens.txt names no emotion")
    return tuple(rows)


def _read_text(path: Path) -> str:
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise ValueError(f"{path.name} is too large")
    return path.read_text(encoding="utf-8")
