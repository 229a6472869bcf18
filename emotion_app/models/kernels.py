"""The three pieces that cost time: linear layers, attention with a distance bias, the convolutional front end."""

from __future__ import annotations

import math
import threading
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from emotion_app.models.config import ConvLayer, receptive_field
from emotion_app.models.parallel import side_by_side

ROWS = 16  # rows are filled up to a multiple: oneDNN makes kernels for each number of rows, 70 ms for a new one in bf16
GPU_CHUNKS = 16  # chunks of the front end in one go on a GPU: few launches, 0.2 GB; not measured
KEEP = 2_048  # tokens: a 40 s window; the table for it has 268 MB in fp32. Longer ones are built when needed


class Linear:
    """``x @ weight.T + bias`` in the dtype of the weight, whatever ``x`` is.

    On a CPU the weight is laid out once for the vector or matrix units (oneDNN). Left plain, it is re-ordered at every
    call: at 59 rows (1 s) that made fp32 1.6 and bf16 1.4 times slower, at 509 rows (10 s) 1.15 and 1.1 times.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.bias = bias
        self.dtype = weight.dtype
        self.packed = weight.device.type == "cpu" and weight.dtype != torch.float16 and _can_pack()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight) if self.packed else weight

    def __call__(self, x: Tensor, gelu: bool = False) -> Tensor:
        """(..., K) -> (..., N); with ``gelu``, the exact (erf) GELU of it."""
        x = x.to(self.dtype)
        if self.packed:
            post, kind = ("gelu", "none") if gelu else ("none", "")
            return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, post, [], kind)
        y = F.linear(x, self.weight, self.bias)
        return F.gelu(y) if gelu else y


def rounded(rows: int) -> int:
    """The next multiple of ROWS."""
    return -(-rows // ROWS) * ROWS


def filled_up(x: Tensor) -> Tensor:
    """(N, C) with zero rows behind, up to the next multiple of ROWS."""
    return F.pad(x, (0, 0, 0, rounded(len(x)) - len(x)))


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

    One table (H, S, S) is kept and sliced for every shorter clip; it grows to the longest clip seen. With a scale for
    every block (no published model has that) it is built anew for each.

    Args:
        slopes: (L, H), slope times scale: one row a block, or one row for all; heads without a bias have 0.
        extra: tokens in front of the frames.
        dtype: of the table.
    """

    def __init__(self, slopes: Tensor, extra: int, dtype: torch.dtype) -> None:
        self._slopes = slopes
        self._extra = extra
        self._dtype = dtype
        self._kept: Tensor | None = None
        self._lock = threading.Lock()  # clips are computed side by side

    def __call__(self, length: int, block: int) -> Tensor:
        """(1, H, length, length) for block ``block``; ``length`` counts the extra tokens."""
        if len(self._slopes) > 1:
            return self._build(self._slopes[block], length)[None]
        with self._lock:
            if self._kept is None or self._kept.shape[-1] < length:
                self._kept = None  # let the old one go first
                self._kept = self._build(self._slopes[0], length)
            return self._kept[None, :, :length, :length]

    def trim(self) -> None:
        """Forget a table for more than KEEP tokens: 60 s would hold 580 MB for good."""
        with self._lock:
            if self._kept is not None and self._kept.shape[-1] > KEEP:
                self._kept = None

    def _build(self, slopes: Tensor, length: int) -> Tensor:
        place = torch.arange(length - self._extra, device=slopes.device, dtype=torch.float32)
        distance = (place[:, None] - place).abs_().neg_()
        table = torch.zeros(len(slopes), length, length, dtype=self._dtype, device=slopes.device)
        for head, slope in enumerate(slopes.tolist()):
            if slope:
                table[head, self._extra :, self._extra :] = distance * slope
        return table


class FrontEnd:
    """The strided convolutions as matrix products over (frames, channels), a chunk of frames at a time.

    Every frame sees 400 samples only, so chunks give the same numbers as the whole clip; their intermediate arrays
    stay small enough for the cache (the first layer has 64 rows a frame). On a CPU chunks are computed side by side,
    one thread and one clip each; how a clip is cut depends on its length alone, so company changes no bit of it. All
    chunks are of one size, for which kernels are made once.

    Args:
        layers: (channels, kernel, stride) of each layer.
        weights: (channels, channels before, kernel) of each layer.
        norms: weight and bias of each layer's norm.
        chunk: frames computed together.
    """

    def __init__(
        self,
        layers: tuple[ConvLayer, ...],
        weights: list[Tensor],
        norms: list[tuple[Tensor, Tensor]],
        chunk: int,
    ) -> None:
        self._layers = layers
        flat = [w.permute(0, 2, 1).flatten(1).contiguous() for w in weights]  # (channels, kernel * before)
        self._products = [_Strided(w, kernel, stride) for w, (_, kernel, stride) in zip(flat, layers, strict=True)]
        self._norms = norms
        self._chunk = chunk
        self._field, self._hop = receptive_field(layers)
        self._dtype = weights[0].dtype

    def __call__(self, waves: Tensor) -> Tensor:
        """(B, n) prepared samples -> (B, rounded(T), C), zeros behind the T frames."""
        clips, samples = waves.shape
        frames = (samples - self._field) // self._hop + 1
        out = waves.new_zeros(clips, rounded(frames), self._layers[-1][0], dtype=self._dtype)
        if waves.device.type == "cpu":
            size = min(self._chunk, frames)
            starts = [min(at, frames - size) for at in range(0, frames, size)]
            jobs = [partial(self._fill, out[clip], waves[clip], at, size) for clip in range(clips) for at in starts]
            side_by_side(jobs, alone=True)
            return out
        together = max(1, GPU_CHUNKS * self._chunk // frames)
        step = max(1, GPU_CHUNKS * self._chunk // together)
        for clip in range(0, clips, together):
            for start in range(0, frames, step):
                stop = min(start + step, frames)
                piece = waves[clip : clip + together, start * self._hop : (stop - 1) * self._hop + self._field]
                out[clip : clip + together, start:stop] = self._convolve(piece)
        return out

    def _fill(self, out: Tensor, wave: Tensor, start: int, size: int) -> None:
        """``size`` frames of one clip; the last chunk computes some frames again, so that all are of one size."""
        stop = start + size
        out[start:stop] = self._convolve(wave[None, start * self._hop : (stop - 1) * self._hop + self._field])[0]

    def _convolve(self, waves: Tensor) -> Tensor:
        x = waves[:, :, None].to(self._dtype)
        for product, (gain, shift) in zip(self._products, self._norms, strict=True):
            x = F.gelu(norm(product(x.contiguous()), gain, shift))
        return x


class _Strided:
    """(B, L, C) -> (B, (L - kernel) // stride + 1, N) by products with (N, kernel * C).

    Kernel 3 by stride 2 of one clip in fp32 is a product over pairs plus one over every second row: no overlapping
    rows are copied, which saves a tenth of the front end. In bf16 the sum of two would round once more.
    """

    def __init__(self, weight: Tensor, kernel: int, stride: int) -> None:
        self._kernel, self._stride = kernel, stride
        self._split = kernel == stride + 1 and weight.shape[1] > kernel and weight.dtype == torch.float32
        self._weight = weight if self._split else Linear(weight, None)

    def __call__(self, x: Tensor) -> Tensor:
        clips, length, channels = x.shape
        rows, pair = (length - self._kernel) // self._stride + 1, self._stride * channels
        if self._split and clips == 1:
            y = F.linear(x[0, : self._stride * rows].view(rows, pair), self._weight[:, :pair])
            return torch.addmm(y, x[0, self._stride :: self._stride][:rows], self._weight[:, pair:].t(), out=y)[None]
        x = x.as_strided((clips, rows, self._kernel * channels), (x.stride(0), pair, 1))
        return F.linear(x, self._weight) if self._split else self._weight(x)


def norm(x: Tensor, gain: Tensor | None = None, shift: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """Layer norm over the last axis, computed in fp32; the answer has the dtype of ``x``."""
    if gain is None or x.dtype == gain.dtype or x.device.type == "cpu":  # a CPU takes fp32 gains beside bf16 values
        return F.layer_norm(x, x.shape[-1:], gain, shift, eps)
    return F.layer_norm(x.float(), x.shape[-1:], gain, shift, eps).to(x.dtype)
