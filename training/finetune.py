"""Fine-tuning encoder and heads together from solved heads, then going part of the way back to the start.

The start (frozen encoder, solved heads) carries over to new corpora better, the fine-tuned end fits the known ones
better; a point between the two, chosen on corpora that were left out, has most of both.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from emotion_app.models.lite_network import LiteNet
from training.augment import RATE
from training.heads import SMOOTHING, UNKNOWN, Centre, loss
from training.pooled import voted_mean
from training.stream import Batch, Task

SAVE_EVERY = 100  # steps


@dataclass(frozen=True)
class Finetune:
    """How to fine-tune.

    Attributes:
        steps: updates.
        lr: of the top block; each layer below has ``decay`` times that of the one above.
        head_lr: of both heads.
        weight_decay: of matrices.
        warmup: steps until the full rate, then a cosine to zero.
        average: momentum of the averaged weights, the ones that are kept.
        dropout: on pooled features.
        reference_weight: of head B's loss.
        tap_weight: share of the loss in which each tap must answer by itself (deep supervision, Lee et al. 2015).
        speaker_momentum: of the running means that head B's features are centred with.
        frozen_blocks: leave the stem and this many of the lower blocks as they are; -1 trains the stem too.
        sure_s: crops shorter than this are smoothed more, up to ``short_smoothing`` at 0 s: no confidence in snippets.
        short_smoothing: see ``sure_s``.
    """

    steps: int = 1000
    lr: float = 3e-4
    decay: float = 0.7
    head_lr: float = 5e-4
    weight_decay: float = 0.05
    warmup: int = 100
    average: float = 0.995
    dropout: float = 0.3
    reference_weight: float = 0.5
    tap_weight: float = 0.0
    speaker_momentum: float = 0.06
    frozen_blocks: int = 1
    sure_s: float = 1.5
    short_smoothing: float = 0.5


def run(
    net: LiteNet,
    batches: Callable[[int], Iterator[Batch]],
    task: Task,
    centre: Centre,
    how: Finetune,
    saved: Path,
    seed: int,
    progress: Callable[[int, float], None],
    extra_loss: Callable[[LiteNet], Tensor] | None = None,
    device: str = "cpu",
) -> LiteNet:
    """The averaged fine-tuned network.

    Args:
        net: the start; not changed.
        batches: stream of batches from a step on (seeded by it, so that a run can be taken up again).
        task: what the clips say.
        centre: speakers in the feature space of the start.
        how: settings.
        saved: state after every ``SAVE_EVERY`` steps; found there, the run goes on from it.
        seed: of dropout.
        progress: told the step and the running loss.
        extra_loss: added in each step: a teacher's, for example.
        device: where to compute.
    """
    device = torch.device(device)
    student = copy.deepcopy(net).train().to(device)
    average = copy.deepcopy(net).to(device)
    task = task.to(device)
    optimiser = torch.optim.AdamW(_groups(student, how), betas=(0.9, 0.98), fused=False)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, how))
    speakers = centre.overall.repeat(int(task.speaker.max()) + 1, 1).to(device)
    first = 0
    if saved.exists():
        state = torch.load(saved, weights_only=True, map_location=device)
        student.load_state_dict(state["student"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        speakers, first = state["speakers"], state["step"]
    torch.manual_seed(seed + first)
    running = 0.0
    for step, batch in zip(range(first, how.steps), batches(first), strict=False):
        value = _step(student, batch.to(device), task, speakers, how, extra_loss)
        optimiser.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        momentum = min(how.average, (1 + step) / (10 + step))
        for mine, theirs in zip(average.parameters(), student.parameters(), strict=True):
            mine.data.lerp_(theirs.data, 1 - momentum)
        running = value.item() if step == first else 0.98 * running + 0.02 * value.item()
        progress(step + 1, running)
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == how.steps:
            _save(
                saved,
                {
                    "student": student.state_dict(),
                    "average": average.state_dict(),
                    "speakers": speakers,
                    "optimiser": optimiser.state_dict(),
                    "schedule": schedule.state_dict(),
                    "step": step + 1,
                },
            )
    return average.eval().cpu()


def soup(ends: Sequence[LiteNet]) -> LiteNet:
    """The mean of the weights of several runs from one start (Wortsman et al. 2022, "Model soups")."""
    net = copy.deepcopy(ends[0])
    for mine, *others in zip(net.parameters(), *(end.parameters() for end in ends[1:]), strict=True):
        mine.data.copy_(torch.stack([mine.data, *(other.data for other in others)]).mean(0))
    return net.eval()


def between(start: LiteNet, end: LiteNet, share: float) -> LiteNet:
    """The encoder ``share`` of the way from ``start`` to ``end``, with the heads of ``end``."""
    net = copy.deepcopy(end)
    for mine, first in zip(net.encoder.parameters(), start.encoder.parameters(), strict=True):
        mine.data.lerp_(first.data, 1 - share)
    return net.eval()


def _step(
    net: LiteNet,
    batch: Batch,
    task: Task,
    speakers: Tensor,
    how: Finetune,
    extra_loss: Callable[[LiteNet], Tensor] | None,
) -> Tensor:
    with torch.autocast(batch.mels.device.type, torch.bfloat16):
        features = net(batch.mels, batch.lengths)
    features = features.float()
    pooled = voted_mean(features, batch, net.encoder.shape.pause_db)
    emotion, speaker, allowed = task.emotion[batch.clips], task.speaker[batch.clips], task.allowed[batch.clips]
    seconds = (batch.spans[:, 1] - batch.spans[:, 0]) / RATE
    unsure = (1 - seconds / how.sure_s).clamp(0, 1) * (emotion != UNKNOWN)
    taps = len(net.encoder.shape.taps)
    smoothing = SMOOTHING + (how.short_smoothing - SMOOTHING) * unsure
    value = answers_loss(net.head, nn.functional.dropout(pooled, how.dropout), taps, how, emotion, allowed, smoothing)
    heard = emotion != UNKNOWN
    if how.reference_weight and heard.any():
        rows, who = pooled[heard], speaker[heard]
        with torch.no_grad():
            for mean, number in zip(rows, who.tolist(), strict=True):
                speakers[number].lerp_(mean, how.speaker_momentum)
        centred = nn.functional.dropout(rows - speakers[who], how.dropout)
        value = value + how.reference_weight * answers_loss(
            net.reference, centred, taps, how, emotion[heard], allowed[heard], smoothing[heard]
        )
    return value if extra_loss is None else value + extra_loss(net)


def answers_loss(
    head: nn.Linear,
    features: Tensor,
    taps: int,
    how: Finetune,
    emotion: Tensor,
    allowed: Tensor,
    smoothing: float | Tensor,
) -> Tensor:
    """Loss of the head's answer and, by ``tap_weight``, of the answers whose mean it is: one for each of ``taps``."""
    value = loss(head(features), emotion, allowed, smoothing)
    if not how.tap_weight:
        return value
    pairs = zip(features.chunk(taps, dim=1), head.weight.chunk(taps, dim=1), strict=True)
    alone = [loss(nn.functional.linear(f, taps * w, head.bias), emotion, allowed, smoothing) for f, w in pairs]
    return value.lerp(torch.stack(alone).mean(), how.tap_weight)


def _groups(net: LiteNet, how: Finetune) -> list[dict[str, object]]:
    encoder = net.encoder
    top = len(encoder.blocks) - 1
    stem = [encoder.positions, *encoder.conv1.parameters(), *encoder.conv2.parameters()]
    layers = [stem, *(list(block.parameters()) for block in encoder.blocks)]
    groups: list[dict[str, object]] = [
        {"params": [*net.head.parameters(), *net.reference.parameters()], "lr": how.head_lr}
    ]
    for number, layer in enumerate(layers, start=-1):  # the stem is -1, block k is k
        if number < how.frozen_blocks:
            for parameter in layer:
                parameter.requires_grad_(False)
        else:
            groups.append({"params": layer, "lr": how.lr * how.decay ** (top - number)})
    split = []
    for group in groups:
        for wide in (True, False):
            params = [p for p in group["params"] if (p.ndim > 1) == wide]
            if params:
                split.append({"params": params, "lr": group["lr"], "weight_decay": how.weight_decay if wide else 0.0})
    return split


def _rate(step: int, how: Finetune) -> float:
    if step < how.warmup:
        return (step + 1) / how.warmup
    done = (step - how.warmup) / max(1, how.steps - how.warmup)
    return float(0.5 * (1 + torch.cos(torch.tensor(torch.pi * min(done, 1.0)))))


def _save(path: Path, state: dict[str, object]) -> None:
    aside = path.with_suffix(".partial")
    torch.save(state, aside)
    os.replace(aside, path)
