"""Linear heads solved on mean features: head A for a clip alone, head B for a clip beside its speaker's baseline."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from emotion_app.labels import INDEX, N_EMOTIONS
from emotion_app.models.lite_network import LiteNet
from training.stream import Task

SMOOTHING = 0.1
SHRINK = 5.0  # n0 of the rule: a reference of N clips weighs N / (N + 5)
CAP = 10  # N never counts for more than this
NEUTRAL, UNKNOWN = INDEX["neutral"], INDEX["unknown"]
SHUT = -30.0  # logit of a class that may not be answered: its probability is 1e-13


@dataclass(frozen=True, eq=False)
class Head:
    """``weight`` (9, D) and ``bias`` (9,)."""

    weight: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """(n, D) -> (n, 9) logits."""
        return features @ self.weight.T + self.bias


def loss(logits: Tensor, emotion: Tensor, allowed: Tensor, smoothing: float | Tensor = SMOOTHING) -> Tensor:
    """Half cross-entropy over nine classes, half over the classes that the clip's corpus has; a mean over clips.

    The second half keeps a class that only one corpus has from becoming the mark of that corpus (worth 2.5 points of
    UAR across corpora in the prototype). ``smoothing`` may be given per clip, (n,).
    """
    smoothing = torch.as_tensor(smoothing, dtype=logits.dtype).expand(len(logits))[:, None]
    target = F.one_hot(emotion, N_EMOTIONS)
    total = 0.0
    for mask in (torch.ones_like(allowed), allowed):
        even = mask / mask.sum(1, keepdim=True)
        log_p = logits.masked_fill(~mask, SHUT).log_softmax(1)
        total = total - ((target * (1 - smoothing) + even * smoothing) * log_p).sum(1).mean()
    return total / 2


def solve(features: Tensor, task: Task, l2: float, steps: int = 60, start: Head | None = None) -> Head:
    """Head with the least ``loss`` + l2 * |weight|^2, by L-BFGS; ``features`` (n, D) standardised."""
    weight = (start.weight.clone() if start else torch.zeros(N_EMOTIONS, features.shape[1])).requires_grad_()
    bias = (start.bias.clone() if start else torch.zeros(N_EMOTIONS)).requires_grad_()
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=steps, history_size=20, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = loss(features @ weight.T + bias, task.emotion, task.allowed) + l2 * weight.square().sum()
        value.backward()
        return value

    optimiser.step(closure)
    return Head(weight.detach(), bias.detach())


def take(task: Task, rows: Tensor) -> Task:
    """The task of some clips, with repetition."""
    return Task(task.emotion[rows], task.speaker[rows], task.corpus[rows], task.allowed[rows])


@dataclass(frozen=True, eq=False)
class Centre:
    """What the baseline rule knows of the training speakers, in feature space.

    Attributes:
        overall: (D,) mean over speakers of the class-balanced speaker mean (g = reference head of it).
        neutral: (D,) mean over speakers of neutral minus that speaker's class-balanced mean (d likewise).
    """

    overall: Tensor
    neutral: Tensor

    @classmethod
    def of(cls, features: Tensor, task: Task) -> Centre:
        """From clips of several speakers; those without neutral clips count for ``overall`` only."""
        means, shifts = [], []
        for speaker in task.speaker.unique():
            mine = task.speaker == speaker
            classes = [c for c in task.emotion[mine].unique().tolist() if c != UNKNOWN]
            by_class = {c: features[mine & (task.emotion == c)].mean(0) for c in classes}
            if len(by_class) < 3:
                continue
            means.append(torch.stack(list(by_class.values())).mean(0))
            if NEUTRAL in by_class:
                shifts.append(by_class[NEUTRAL] - means[-1])
        return cls(torch.stack(means).mean(0), torch.stack(shifts).mean(0))

    def shift(self, reference: Tensor, count: Tensor, share: Tensor) -> Tensor:
        """What to take off a clip: (n, D) from the mean of ``count`` (n,) clips with ``share`` (n,) of neutral."""
        weight = (count / (count + SHRINK))[:, None]
        return weight * (reference - share[:, None] * self.neutral) + (1 - weight) * self.overall


def references(
    features: Tensor,
    task: Task,
    rows: Tensor,
    generator: torch.Generator,
    count: int | None = None,
    share: float | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """A random reference for each of ``rows``: means (n, D), counts (n,), neutral shares (n,).

    Clips come from the same speaker, never the clip itself. ``count`` and ``share`` are fixed or, when None, drawn:
    1 to CAP clips; a share of neutral from balanced to all. With a share, the rest is drawn class by class; a
    speaker without neutral clips gives a balanced reference (share 0).
    """
    means, counts, shares = [], [], []
    by_speaker: dict[int, dict[int, Tensor]] = {}
    for speaker in task.speaker[rows].unique().tolist():
        mine = task.speaker == speaker
        by_speaker[speaker] = {
            c: (mine & (task.emotion == c)).nonzero().flatten()
            for c in task.emotion[mine].unique().tolist()
            if c != UNKNOWN
        }
    for row in rows.tolist():
        classes = by_speaker[int(task.speaker[row])]
        n = count or int(torch.randint(1, CAP + 1, (), generator=generator))
        wanted = share if share is not None else float(_SHARES[torch.randint(len(_SHARES), (), generator=generator)])
        real = wanted if NEUTRAL in classes else 0.0
        picks: list[int] = []
        keys = sorted(classes)
        while len(picks) < n:
            dice = float(torch.rand((), generator=generator))
            key = NEUTRAL if dice < real else keys[int(torch.randint(len(keys), (), generator=generator))]
            pool = classes[key]
            pick = int(pool[torch.randint(len(pool), (), generator=generator)])
            if pick != row or len(pool) == 1:
                picks.append(pick)
        means.append(features[picks].mean(0))
        counts.append(n)
        shares.append(real)
    return torch.stack(means), torch.tensor(counts, dtype=torch.float32), torch.tensor(shares)


_SHARES = torch.tensor([0.0, 0.0, 0.4, 0.7, 0.85, 1.0])


def solve_taps(features: Tensor, task: Task, l2: float, taps: int) -> Head:
    """One head for each tap, solved by itself; the mean of their answers as a single head.

    One head over all taps at once carries over worse than the mean of separate ones (prototype, and EXPERIMENTS.md).
    """
    solved = [solve(tap, task, l2) for tap in features.chunk(taps, dim=1)]
    weight = torch.cat([head.weight for head in solved], dim=1) / len(solved)
    return Head(weight, torch.stack([head.bias for head in solved]).mean(0))


def place_plain(net: LiteNet, head: Head, share: float = 1.0) -> None:
    """Let head A answer ``share`` as ``head`` does and the rest as it did before."""
    net.head.weight.data.lerp_(head.weight, share)
    net.head.bias.data.lerp_(head.bias, share)


def place_reference(
    net: LiteNet, features: Tensor, task: Task, rows: Tensor, l2: float, seed: int
) -> tuple[Centre, Tensor]:
    """Solve head B on clips minus what the baseline rule takes off, with random references; centre and bias (9,).

    ``rows`` are the clips to solve on, drawn in balance: with every clip once, the many bursts of EmoGator cost
    10 points of UAR on acted speech (EXPERIMENTS.md).
    """
    centre = Centre.of(features, task)
    rows = rows[task.emotion[rows] != UNKNOWN]
    shift = centre.shift(*references(features, task, rows, torch.Generator().manual_seed(seed)))
    mine = take(task, rows)
    solved = [solve(tap, mine, l2) for tap in (features[rows] - shift).chunk(len(net.encoder.shape.taps), dim=1)]
    net.reference.weight.data.copy_(torch.cat([head.weight for head in solved], dim=1) / len(solved))
    return centre, torch.stack([head.bias for head in solved]).mean(0)
