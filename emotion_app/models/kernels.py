"""The three pieces that cost time: linear layers, attention with a distance bias, the convolutional front end."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from emotion_app.models.config import ConvLayer


class Linear:
    """``x @ weight.T + bias`` in the dtype of the weight, whatever ``x`` is.

    On a CPU in bf16 the weight is laid out once for the matrix units (oneDNN); left plain, it is re-ordered at every
    call, which costs more than the product for clips of a few seconds.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.bias = bias
        self.dtype = weight.dtype
        self.packed = weight.dtype == torch.bfloat16 and weight.device.type == "cpu" and _can_pack()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight) if self.packed else weight

    def __call__(self, x: Tensor, gelu: bool = False) -> Tensor:
        """(..., K) -> (..., N); with ``gelu``, the exact (erf) GELU of it."""
        x = x.to(self.dtype)
        if self.packed:
            post, kind = ("gelu", "none") if gelu else ("none", "")
            return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, post, [], kind)
        y = F.linear(x, self.weight, self.bias)
        return F.gelu(y) if gelu else y


def _can_pack() -> bool:
    ops = torch.ops.mkldnn
    return (
        torch.backends.mkldnn.is_available()
        and hasattr(ops, "_reorder_linear_weight")
        and hasattr(ops, "_linear_pointwise")
    )


def alibi_slopes(heads: int) -> list[float]:
    """Slope of the distance bias of each head (Press et al. 2022, ALiBi, with their rule for other than 2^k heads).

    >>> alibi_slopes(2), [round(s, 4) for s in alibi_slopes(3)]
    ([0.0625, 0.00390625], [0.0625, 0.0039, 0.25])
    """
    power = 2 ** math.floor(math.log2(heads))
    first = 2 ** (-8 / power)
    slopes = [first ** (i + 1) for i in range(power)]
    if power < heads:
        slopes += alibi_slopes(2 * power)[0::2][: heads - power]
    return slopes


class DistanceBias:
    """ALiBi: ``-slope[h] * scale[h] * |i - j|`` between frames, 0 to and from the extra tokens.

    One table (H, S, S) is kept and sliced for every shorter clip; it grows to the longest clip seen.

    Args:
        scales: (L, H), one row a block or one row for all; heads without a bias have 0.
        extra: tokens in front of the frames.
    """

    def __init__(self, scales: Tensor, extra: int) -> None:
        self._scales = scales.float()
        self._extra = extra
        self._table: Tensor | None = None

    def __call__(self, length: int, block: int, dtype: torch.dtype) -> Tensor:
        """(1, H, length, length) for sequences of ``length`` tokens, extra ones included."""
        shared = len(self._scales) == 1
        if (
            self._table is None
            or self._table.shape[-1] < length
            or self._table.dtype != (dtype if shared else torch.float32)
        ):
            self._table = None  # let the old one go first
            self._table = self._build(length, dtype if shared else torch.float32)
        table = self._table[None, :, :length, :length]
        return table if shared else (table * self._scales[block][:, None, None]).to(dtype)

    def _build(self, length: int, dtype: torch.dtype) -> Tensor:
        scale = self._scales[0] if len(self._scales) == 1 else torch.ones_like(self._scales[0])
        place = torch.arange(length - self._extra, device=scale.device, dtype=torch.float32)
        distance = (place[:, None] - place).abs_().neg_()
        table = torch.zeros(len(scale), length, length, dtype=dtype, device=scale.device)
        for head, slope in enumerate(scale.tolist()):
            if slope:
                torch.mul(
                    distance, slope, out=table[head, self._extra :, self._extra :]
                ) if dtype == torch.float32 else table[head, self._extra :, self._extra :].copy_(distance * slope)
        return table


class FrontEnd:
    """The strided convolutions as matrix products over (frames, channels), a chunk of frames at a time.

    Every frame sees 400 samples only, so chunks give the same numbers as the whole clip; their intermediate arrays
    stay small enough for the cache (the first layer has 64 rows a frame).

    Args:
        layers: (channels, kernel, stride) of each layer.
        weights: (channels, channels before, kernel) of each layer.
        norms: weight and bias of each layer's norm.
    """

    def __init__(
        self, layers: tuple[ConvLayer, ...], weights: list[Tensor], norms: list[tuple[Tensor, Tensor]], chunk: int
    ) -> None:
        self._layers = layers
        self._linears = [Linear(w.permute(0, 2, 1).reshape(w.shape[0], -1).contiguous(), None) for w in weights]
        self._norms = norms
        self._chunk = chunk
        self._hop = math.prod(stride for _, _, stride in layers)
        self._field = 1
        for _, kernel, stride in reversed(layers):
            self._field = (self._field - 1) * stride + kernel

    def __call__(self, waves: Tensor) -> Tensor:
        """(B, n) prepared samples -> (B, T, C)."""
        clips, samples = waves.shape
        frames = (samples - self._field) // self._hop + 1
        together = max(1, self._chunk // frames)
        step = max(1, self._chunk // together)
        out = waves.new_empty(clips, frames, self._layers[-1][0], dtype=self._linears[-1].dtype)
        for clip in range(0, clips, together):
            for start in range(0, frames, step):
                stop = min(start + step, frames)
                piece = waves[clip : clip + together, start * self._hop : (stop - 1) * self._hop + self._field]
                out[clip : clip + together, start:stop] = self._chunk_of(piece)
        return out

    def _chunk_of(self, x: Tensor) -> Tensor:
        x = x[:, :, None].to(self._linears[0].dtype)
        for (_, kernel, stride), linear, (gain, shift) in zip(self._layers, self._linears, self._norms, strict=True):
            x = x.contiguous()
            clips, rows, channels = x.shape
            rows = (rows - kernel) // stride + 1
            x = x.as_strided((clips, rows, kernel * channels), (x.stride(0), stride * channels, 1))
            x = linear(x)
            x = F.gelu(F.layer_norm(x, x.shape[-1:], gain, shift))
        return x
