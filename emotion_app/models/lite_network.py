"""The network of the embedded model: the stem of a Whisper encoder and its first blocks, features, two linear heads.

Everything is masked so that a clip in a padded batch is computed as if it were alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emotion_app.labels import N_EMOTIONS
from emotion_app.models.melspec import N_MELS

HEAD_WIDTH = 64  # of each attention head, in every Whisper
POSITIONS = 400  # 8 s at 50 Hz, the longest pass
STRIDE = 2  # mel frames (100 Hz) to model frames (50 Hz)
SMOOTH = 5  # mel frames that a loudness is taken over: 50 ms
EASE_DB = 2.0  # slope of the step from a pause to sound
SPECK = 1e-20  # of power: digital silence has a logarithm too


@dataclass(frozen=True)
class Shape:
    """Which blocks there are and which of them are heard by the heads.

    Attributes:
        blocks: number of transformer blocks.
        width: of every layer: 384 in Whisper tiny, 512 in base.
        hidden: units between the two layers of a block's MLP; four times the width in Whisper.
        taps: blocks (1-based) whose outputs are put side by side as features.
        floor: log10 of the mel power that is added before the logarithm; quieter detail is not heard.
        pause_db: frames this far below the loudest 50 ms have half a vote in the answer of a clip, see ``votes``; 0
            counts all frames alike.
    """

    blocks: int = 2
    taps: tuple[int, ...] = (1, 2)
    floor: float = -4.0
    pause_db: float = 0.0
    width: int = 384
    hidden: int = 1536

    @property
    def dim(self) -> int:
        """D, width of the features."""
        return self.width * len(self.taps)


class Block(nn.Module):
    """Pre-norm transformer block of Whisper; the key projection has no bias."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.v, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor, shut: Tensor | None) -> Tensor:
        """``x`` (B, T, width); ``shut`` (B, 1, 1, T) is -inf at keys that do not exist, 0 elsewhere."""
        n_clips, n_frames, width = x.shape
        h = self.norm1(x)
        q, k, v = (f(h).view(n_clips, n_frames, -1, HEAD_WIDTH).transpose(1, 2) for f in (self.q, self.k, self.v))
        # written out: on CPU its backward pass is faster than the fused operator's
        weights = (q * HEAD_WIDTH**-0.5) @ k.transpose(2, 3)
        weights = (weights if shut is None else weights + shut).softmax(dim=-1)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(n_clips, n_frames, width))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class Encoder(nn.Module):
    """Stem and blocks: normalised log-mel frames to the outputs of the tapped blocks."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.conv1 = nn.Conv1d(N_MELS, shape.width, 3, padding=1)
        self.conv2 = nn.Conv1d(shape.width, shape.width, 3, padding=1, stride=STRIDE)
        self.positions = nn.Parameter(torch.empty(POSITIONS, shape.width))
        self.blocks = nn.ModuleList(Block(shape.width, shape.hidden) for _ in range(shape.blocks))

    def forward(self, mels: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Features (B, T, D) with T = ceil(M / 2).

        Args:
            mels: (B, M, 80) log10 mel power after the gain and the floor.
            lengths: (B,) mel frames that exist of each clip; None when all M do.
        """
        x = ((mels + 4) / 4).transpose(1, 2)
        if lengths is None:
            x, shut = F.gelu(self.conv1(x)), None
        else:
            exists = (torch.arange(x.shape[2], device=x.device) < lengths[:, None])[:, None]  # (B, 1, M)
            x = F.gelu(self.conv1(x * exists)) * exists
            heard = exists[..., ::STRIDE]
            shut = torch.zeros(heard.shape, device=x.device).masked_fill_(~heard, -torch.inf)[:, None]
        x = F.gelu(self.conv2(x)).transpose(1, 2)
        x = x + self.positions[: x.shape[1]]
        tapped = []
        for number, block in enumerate(self.blocks, start=1):
            x = block(x, shut)
            if number in self.shape.taps:
                tapped.append(x)
        return torch.cat(tapped, dim=-1)


def votes(energy: Tensor, pause_db: float, lengths: Tensor | None = None) -> Tensor:
    """How much each model frame counts for its clip: 1 where there is sound, 0 in pauses, 0 where no frame is.

    Room and microphone are heard best in pauses, feelings not at all: without them corpora that were not trained on
    are answered better (training/EXPERIMENTS.md).

    Args:
        energy: (B, M) mean power of each mel frame, of any gain.
        pause_db: decibels below the loudest 50 ms at which a frame counts half.
        lengths: (B,) mel frames that exist of each clip; None when all M do.

    Returns:
        (B, ceil(M / 2)) between 0 and 1.

    >>> votes(torch.tensor([[1.0] * 20 + [1e-6] * 20]), 35.0)[0, ::6].round(decimals=2)
    tensor([1., 1., 0., 0.])
    """
    exists = torch.ones_like(energy)
    if lengths is not None:
        exists = (torch.arange(energy.shape[1], device=energy.device) < lengths[:, None]).float()
    smooth = energy * exists
    if energy.shape[1] >= SMOOTH:
        smooth = F.avg_pool1d(smooth[:, None], SMOOTH, stride=1, padding=SMOOTH // 2)[:, 0]
    decibels = 10 * torch.log10((smooth + SPECK) / (smooth.amax(1, keepdim=True) + SPECK))
    return (torch.sigmoid((decibels + pause_db) / EASE_DB) * exists)[:, ::STRIDE]


class LiteNet(nn.Module):
    """Encoder, fixed standardisation of the features, and the two heads.

    ``head`` answers a clip alone. ``reference`` (no bias) is for clips with a speaker baseline: see
    ``lite.BaselineRule``.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.encoder = Encoder(shape)
        self.register_buffer("mean", torch.zeros(shape.dim))
        self.register_buffer("scale", torch.ones(shape.dim))
        self.head = nn.Linear(shape.dim, N_EMOTIONS)
        self.reference = nn.Linear(shape.dim, N_EMOTIONS, bias=False)

    def forward(self, mels: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Standardised features (B, T, D); the heads are applied by the caller."""
        return (self.encoder(mels, lengths) - self.mean) * self.scale
