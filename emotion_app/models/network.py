"""The emotion2vec encoder in plain torch: prepared waves in, (T, D) features out, clips of any mix of lengths.

No padding anywhere: clips of equal frame count form a rectangle for the convolutions and the attention, and all
clips are packed row by row for the linear layers. A clip's numbers therefore do not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from emotion_app.models.config import NetworkConfig
from emotion_app.models.kernels import DistanceBias, FrontEnd, Linear, alibi_slopes, filled_up, norm
from emotion_app.types import HOP_SAMPLES, MIN_SAMPLES, n_frames

AUDIO = "modality_encoders.AUDIO."
CONTEXT = AUDIO + "context_encoder."
CHUNK_FRAMES = 25  # frames of the front end computed together: measured, see docs/engine.md
FP32_KEYS = (
    "norm",
    ".2.1.",
    "project_features.1.",
    "positional_encoder.0.",
    "extra_tokens",
    "alibi_scale",
)  # kept in fp32 in every precision


def expected_shapes(config: NetworkConfig, classes: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that inference needs, as FunASR names them without ``d2v_model.``."""
    dim, shapes = config.dim, {}
    before = 1
    for i, (channels, kernel, _) in enumerate(config.conv):
        layer = f"{AUDIO}local_encoder.conv_layers.{i}."
        shapes[layer + "0.weight"] = (channels, before, kernel)
        shapes[layer + "2.1.weight"] = shapes[layer + "2.1.bias"] = (channels,)
        before = channels
    shapes[AUDIO + "project_features.1.weight"] = shapes[AUDIO + "project_features.1.bias"] = (before,)
    shapes[AUDIO + "project_features.2.weight"] = (dim, before)
    shapes[AUDIO + "project_features.2.bias"] = (dim,)
    position = AUDIO + "relative_positional_encoder."
    if config.pos_pre_norm:
        shapes[position + "0.weight"] = shapes[position + "0.bias"] = (dim,)
        position += "1."
    for i in range(config.pos_layers):
        shapes[f"{position}{i + 1}.0.weight"] = (dim, dim // config.pos_groups, config.pos_kernel)
        shapes[f"{position}{i + 1}.0.bias"] = (dim,)
    if config.extra_tokens:
        shapes[AUDIO + "extra_tokens"] = (1, config.extra_tokens, dim)
    if config.alibi:
        shapes[AUDIO + "alibi_scale"] = (
            config.n_blocks if config.alibi_per_layer else 1,
            1,
            config.alibi_heads if config.alibi_per_head else 1,
            1,
            1,
        )
    for block in block_names(config):
        shapes |= _block_shapes(block, config)
    if config.norm_affine:
        norm = "norm." if config.norm_first else CONTEXT + "norm."
        shapes[norm + "weight"] = shapes[norm + "bias"] = (dim,)
    shapes["proj.weight"], shapes["proj.bias"] = (classes, dim), (classes,)
    return shapes


def block_names(config: NetworkConfig) -> list[str]:
    """Prefixes of the blocks in the order in which they are computed."""
    return [f"{CONTEXT}blocks.{i}." for i in range(config.prenet_depth)] + [f"blocks.{i}." for i in range(config.depth)]


def _block_shapes(block: str, config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    dim, hidden = config.dim, config.hidden
    sizes = {"attn.qkv": (3 * dim, dim), "attn.proj": (dim, dim), "mlp.fc1": (hidden, dim), "mlp.fc2": (dim, hidden)}
    shapes: dict[str, tuple[int, ...]] = {}
    for part, (rows, columns) in sizes.items():
        shapes[f"{block}{part}.weight"], shapes[f"{block}{part}.bias"] = (rows, columns), (rows,)
    if config.norm_affine:
        for part in ("norm1", "norm2"):
            shapes[f"{block}{part}.weight"] = shapes[f"{block}{part}.bias"] = (dim,)
    return shapes


def dtype_of(key: str, precision: torch.dtype) -> torch.dtype:
    """In which dtype a tensor is kept: norms, tokens, bias scales and the head stay fp32."""
    return torch.float32 if key.startswith("proj.") or any(part in key for part in FP32_KEYS) else precision


@dataclass(frozen=True)
class _Norm:
    """Layer norm; ``weight`` None for one without gain."""

    eps: float
    weight: Tensor | None = None
    bias: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        return norm(x, self.weight, self.bias, self.eps)


@dataclass(frozen=True)
class _Block:
    norm1: _Norm
    qkv: Linear
    out: Linear
    norm2: _Norm
    fc1: Linear
    fc2: Linear


@dataclass(frozen=True)
class _Group:
    """Clips of equal frame count: ``clips`` of ``frames``, from row ``row`` of the packed sequence on."""

    clips: int
    frames: int
    row: int
    length: int  # tokens a clip: frames and extra tokens

    @property
    def rows(self) -> slice:
        return slice(self.row, self.row + self.clips * self.length)


class _Here(Mapping[str, Tensor]):
    """The tensors of ``state``, each brought to the device and dtype of its use when it is asked for."""

    def __init__(self, state: Mapping[str, Tensor], device: torch.device, precision: torch.dtype) -> None:
        self._state, self._device, self._precision = state, device, precision

    def __getitem__(self, key: str) -> Tensor:
        return self._state[key].to(self._device, dtype_of(key, self._precision))

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)


class Network:
    """emotion2vec's encoder.

    Args:
        config: shape of the network.
        state: tensors by FunASR's names; asked for one by one and not kept.
        device: where it computes.
        precision: dtype of matrix products; residual stream, norms and head stay fp32.
    """

    def __init__(
        self, config: NetworkConfig, state: Mapping[str, Tensor], device: torch.device, precision: torch.dtype
    ) -> None:
        self.config = config
        self._precision = precision
        self._state: Mapping[str, Tensor] = _Here(state, device, precision)
        layers = [f"{AUDIO}local_encoder.conv_layers.{i}." for i in range(len(config.conv))]
        self._front = FrontEnd(
            config.conv,
            [self._state[k + "0.weight"] for k in layers],
            [(self._state[k + "2.1.weight"], self._state[k + "2.1.bias"]) for k in layers],
            CHUNK_FRAMES,
        )
        self._front_norm = self._norm(AUDIO + "project_features.1", 1e-5)
        self._project = self._linear(AUDIO + "project_features.2")
        self._blocks = [self._block(name) for name in block_names(config)]
        self._edge_norm = self._norm("norm" if config.norm_first else CONTEXT + "norm", config.norm_eps)
        self._bias = DistanceBias(self._slopes(), config.extra_tokens, precision) if config.alibi else None
        self._release()

    def __call__(self, waves: Sequence[Tensor]) -> list[Tensor]:
        """Features (T, D) float32 of prepared waves (n,), n >= 400, in their order."""
        order = sorted(range(len(waves)), key=lambda i: n_frames(len(waves[i])))
        groups, parts, row = [], [], 0
        for frames, members in groupby(order, key=lambda i: n_frames(len(waves[i]))):
            used = MIN_SAMPLES + (frames - 1) * HOP_SAMPLES  # samples behind the last frame change nothing
            stack = torch.stack([waves[i][:used] for i in members])
            parts.append(self._local(stack))
            groups.append(_Group(len(stack), frames, row, frames + self.config.extra_tokens))
            row = groups[-1].rows.stop
        x = self._transform(filled_up(torch.cat(parts)), groups)
        if self._bias:
            self._bias.trim()
        found = [clip[self.config.extra_tokens :] for g in groups for clip in x[g.rows].view(g.clips, g.length, -1)]
        return [found[place] for place in sorted(range(len(order)), key=order.__getitem__)]

    def _local(self, waves: Tensor) -> Tensor:
        """(B, n) -> (B * (extra + T), D): front end, positions and the tokens in front."""
        frames = n_frames(waves.shape[1])
        x = self._project(self._front_norm(self._front(waves).float())).float()
        x[:, frames:] = 0
        x = (x + self._positions(x, frames))[:, :frames]
        if self.config.extra_tokens:
            x = torch.cat([self._state[AUDIO + "extra_tokens"].expand(len(x), -1, -1), x], dim=1)
        return x.flatten(0, 1)

    def _positions(self, x: Tensor, frames: int) -> Tensor:
        """(B, rounded(T), D) of the same, where what lies behind ``frames`` is zero before every convolution."""
        config, prefix = self.config, AUDIO + "relative_positional_encoder."
        if config.pos_pre_norm:
            x = norm(x, self._state[prefix + "0.weight"], self._state[prefix + "0.bias"])
            prefix += "1."
        x = x.to(self._precision)
        for i in range(config.pos_layers):
            x[:, frames:] = 0
            weight, bias = self._state[f"{prefix}{i + 1}.0.weight"], self._state[f"{prefix}{i + 1}.0.bias"]
            y = F.conv1d(x.transpose(1, 2), weight, bias, padding=config.pos_kernel // 2, groups=config.pos_groups)
            y = y[..., : x.shape[1]].transpose(1, 2)  # an even kernel gives one column too many
            x = F.gelu(norm(y))
        return x

    def _transform(self, x: Tensor, groups: list[_Group]) -> Tensor:
        """(N, D) packed tokens -> (N, D), all blocks."""
        if not self.config.norm_first:
            x = self._edge_norm(x)
        for index, block in enumerate(self._blocks):
            if self.config.norm_first:
                x = x + self._attend(block.norm1(x), block, index, groups)
                x = (
                    2 * block.fc2(block.fc1(block.norm2(x), gelu=True)).float()
                )  # data2vec 2 adds the MLP to itself here
            else:
                x = block.norm1(x + self._attend(x, block, index, groups))
                x = block.norm2(x + block.fc2(block.fc1(x, gelu=True)))
        return self._edge_norm(x) if self.config.norm_first else x

    def _attend(self, x: Tensor, block: _Block, index: int, groups: list[_Group]) -> Tensor:
        qkv = block.qkv(x)
        parts = []
        for group in groups:
            q, k, v = qkv[group.rows].view(group.clips, group.length, 3, self.config.heads, -1).permute(2, 0, 3, 1, 4)
            bias = self._bias(group.length, index) if self._bias else None
            parts.append(
                F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(0, 1).flatten(1)
            )
        return block.out(filled_up(torch.cat(parts)))

    def _block(self, name: str) -> _Block:
        eps = self.config.norm_eps
        return _Block(
            self._norm(name + "norm1", eps),
            self._linear(name + "attn.qkv"),
            self._linear(name + "attn.proj"),
            self._norm(name + "norm2", eps),
            self._linear(name + "mlp.fc1"),
            self._linear(name + "mlp.fc2"),
        )

    def _linear(self, name: str) -> Linear:
        return Linear(self._state[name + ".weight"], self._state[name + ".bias"])

    def _norm(self, name: str, eps: float) -> _Norm:
        return _Norm(eps, self._state.get(name + ".weight"), self._state.get(name + ".bias"))

    def _slopes(self) -> Tensor:
        """(L, H): slope times learned scale, which is clamped at 0."""
        config = self.config
        scale = self._state[AUDIO + "alibi_scale"].clamp_min(0).flatten(1)  # (L or 1, heads or 1)
        slopes = torch.tensor(alibi_slopes(config.alibi_heads), device=scale.device)
        return F.pad(scale * slopes, (0, config.heads - config.alibi_heads))

    def _release(self) -> None:
        """Keep only the tensors that are read by name: the rest now lives, maybe re-ordered, in the layers."""
        kept = [key for key in self._state if "extra_tokens" in key or "relative_positional" in key]
        self._state = {key: self._state[key] for key in kept}
