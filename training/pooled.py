"""Mean features of clips: all that a linear head needs, so heads are solved in seconds on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from emotion_app.models.lite_network import STRIDE, LiteNet, votes
from emotion_app.types import Floats
from training.augment import MAX_MELS, floored
from training.features import Cache
from training.stream import Batch, Example, Stream, pad

ALL_PAUSE = 1e-4  # vote of a frame that is far below the loudest


@dataclass(frozen=True, eq=False)
class Pooled:
    """``features`` (n, D) float32 means over frames; ``clips`` (n,) which clip each row is."""

    features: Tensor
    clips: Tensor


def masked_mean(features: Tensor, lengths: Tensor) -> Tensor:
    """(B, T, D) -> (B, D), mean over the frames that exist; ``lengths`` in mel frames."""
    frames = (lengths + STRIDE - 1) // STRIDE
    exists = torch.arange(features.shape[1], device=features.device) < frames[:, None]
    return (features * exists[..., None]).sum(1) / frames[:, None]


def voted_mean(features: Tensor, batch: Batch, pause_db: float) -> Tensor:
    """(B, T, D) -> (S, D), mean over each clip's frames by their votes: what the model pools (``lite_network.votes``).

    ``pause_db`` 0 lets all frames count alike. A clip so much quieter than the one it is joined to that all of it is a
    pause there counts with all its frames.
    """
    steps = STRIDE * torch.arange(features.shape[1], device=features.device)
    first, end = batch.spans.split(1, dim=1)
    weight = ((first <= steps) & (steps < end)).float()
    if pause_db:
        weight = weight * (votes((10**batch.mels).mean(2), pause_db, batch.lengths)[batch.rows] + ALL_PAUSE)
    return (features[batch.rows] * weight[..., None]).sum(1) / weight.sum(1, keepdim=True)


@torch.no_grad()
def of_batch(net: LiteNet, batch: Batch, fast: bool = True) -> Tensor:
    """Mean features of one batch; ``fast`` computes in bfloat16."""
    device = next(net.parameters()).device
    batch = batch.to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=fast):
        features = net(batch.mels, batch.lengths)
    return voted_mean(features.float(), batch, net.encoder.shape.pause_db).cpu()


def of_stream(net: LiteNet, stream: Stream, n_batches: int) -> Pooled:
    """Mean features of ``n_batches`` disturbed batches."""
    rows, clips = [], []
    for _, batch in zip(track(range(n_batches), description="disturbed features"), stream, strict=False):
        rows.append(of_batch(net, batch))
        clips.append(batch.clips)
    return Pooled(torch.cat(rows), torch.cat(clips))


def of_clips(
    net: LiteNet,
    cache: Cache,
    indices: Sequence[int],
    floor: float,
    size: int = 32,
    change: Callable[[Floats], Floats] | None = None,
) -> Pooled:
    """Mean features of clips as they are (windows of 8 s averaged by length), in the order of ``indices``."""
    pieces: list[tuple[Floats, int]] = []
    for row, index in enumerate(indices):
        mels = cache[index] if change is None else change(cache[index])
        mels = floored(mels, floor)
        pieces += [(mels[at : at + MAX_MELS], row) for at in range(0, len(mels), MAX_MELS)]
    order = np.argsort([len(mels) for mels, _ in pieces], kind="stable")
    total: Tensor | None = None
    weight = torch.zeros(len(indices))
    for at in range(0, len(order), size):
        batch = pad([Example.of(*pieces[i]) for i in order[at : at + size]])
        means = of_batch(net, batch)
        total = torch.zeros(len(indices), means.shape[1]) if total is None else total
        total.index_add_(0, batch.clips, means * batch.lengths[:, None])
        weight.index_add_(0, batch.clips, batch.lengths.float())
    if total is None:
        raise ValueError("no clips")
    return Pooled(total / weight[:, None], torch.arange(len(indices)))
