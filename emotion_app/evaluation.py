"""How good a model is on labelled clips: figures by corpus with intervals over speakers, with and without baselines.

The main figures are for the answer among the classes that a corpus has (a corpus without surprise cannot reward that
answer); the same figures without that restriction stand beside them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emotion_app import scoring
from emotion_app.analyzer import Analyzer
from emotion_app.baseline import is_unknown
from emotion_app.errors import EmotionError, RequestError
from emotion_app.hearing import Heards, hear_all
from emotion_app.labels import INDEX, KEYS
from emotion_app.manifest import Item, Manifest
from emotion_app.scoring import Doubles, Figure, Ints
from emotion_app.timeline import softmax
from emotion_app.types import BaselineRule, Floats, ModelInfo

NEUTRAL, UNKNOWN = INDEX["neutral"], INDEX["unknown"]


@dataclass(frozen=True)
class Plan:
    """What to evaluate besides the plain answers.

    Attributes:
        baseline_clips: earlier clips of the same speaker for each clip; 0 for no baselines.
        reference_shares: shares of neutral among these earlier clips, one evaluation each; the rest is drawn evenly
            from the classes, as in shared practice of the embedded model's own report.
        neutral_share: share that the rule is told; None for the true one.
        draws: how often the earlier clips are drawn anew; figures are over all draws.
        seed: of the draws and of the bootstrap.
    """

    baseline_clips: int = 0
    reference_shares: tuple[float, ...] = (0.0, 0.4, 0.85)
    neutral_share: float | None = None
    draws: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        shares = (*self.reference_shares, 0.0 if self.neutral_share is None else self.neutral_share)
        if any(not 0 <= share <= 1 for share in shares):
            raise RequestError("BAD_OPTION", option="neutral share", value=str(shares), choices="0 - 1")
        if not 0 <= self.baseline_clips <= 1000 or not 1 <= self.draws <= 1000:
            raise RequestError("BAD_OPTION", option="baseline clips", value=self.baseline_clips, choices="0 - 1000")


@dataclass(frozen=True)
class Figures:
    """Figures of one way of answering; ``neutral_heavy`` is accuracy at 85 % neutral clips, NaN without neutral."""

    uar: Figure
    wa: Figure
    macro_f1: Figure
    neutral_heavy: Figure
    ece: Figure


@dataclass(frozen=True, eq=False)
class Beside:
    """Figures with a simulated baseline.

    Attributes:
        reference_share: share of neutral among the earlier clips.
        neutral_share: share that the rule was told.
        clips: clips that had enough earlier clips; the others keep their plain answer and count too.
        figures: restricted to the corpus' classes.
    """

    reference_share: float
    neutral_share: float
    clips: int
    figures: Figures


@dataclass(frozen=True, eq=False)
class CorpusReport:
    """One corpus.

    Attributes:
        corpus, languages: as the list says.
        n_clips, n_speakers: that were analyzed; 0 speakers when the list does not name them.
        clusters: what was drawn for the intervals: ``speaker``, or ``clip`` where speakers are not known or only one.
        classes: indices of the classes that occur.
        restricted: figures of the answer among these classes.
        unrestricted: figures of the answer among all nine.
        confusion: (9, 9) counts of the restricted answers, rows are labels.
        confusion_all: (9, 9) counts of the unrestricted answers.
        reliability: (15, 3) of the restricted answers; see ``scoring.reliability``.
        called_unknown: share of clips of speech that the model calls unknown, NaN without such clips.
        baselines: one for each share of the plan; empty without.
    """

    corpus: str
    languages: tuple[str, ...]
    n_clips: int
    n_speakers: int
    clusters: str
    classes: tuple[int, ...]
    restricted: Figures
    unrestricted: Figures
    confusion: Doubles
    confusion_all: Doubles
    reliability: Doubles
    called_unknown: float
    baselines: tuple[Beside, ...] = ()


@dataclass(frozen=True, eq=False)
class Report:
    """The whole evaluation.

    Attributes:
        name: of the list.
        model: that answered.
        seconds: of sound.
        corpora: one for each corpus of the list.
        plan: that was followed.
        foreign: labels that are not ours, with their clips: left out.
        unlabelled: clips without a label: left out.
        failures: clips that could not be analyzed: left out.
        no_rule: baselines were asked for, but the model has no numbers for them.
    """

    name: str
    model: ModelInfo
    seconds: float
    corpora: tuple[CorpusReport, ...]
    plan: Plan
    foreign: dict[str, int]
    unlabelled: int
    failures: tuple[tuple[str, EmotionError], ...]
    no_rule: bool = False


def evaluate(
    analyzer: Analyzer,
    manifest: Manifest,
    plan: Plan | None = None,
    *,
    model: str | None = None,
    jobs: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Analyze all labelled clips of a list and report.

    Args:
        analyzer: whose models, queue and limits are used.
        manifest: with labels, and speakers where possible.
        plan: baselines to simulate.
        model: as in ``Options.model``.
        jobs: clips in work at once.
        progress: called with (done, all) after each clip.

    Raises:
        RequestError: BAD_MANIFEST without any labelled clip.
        EmotionError: of the first clip when none can be analyzed.
    """
    plan = plan or Plan()
    labelled = [item for item in manifest.items if item.emotion is not None]
    if not labelled:
        reason = f"no emotion of ours in it; found: {', '.join(list(manifest.foreign)[:9]) or 'no labels'}"
        raise RequestError("BAD_MANIFEST", name=manifest.path.name, reason=reason)
    heards = hear_all(analyzer, labelled, model, jobs=jobs, progress=progress)
    if heards.model is None:
        raise heards.failures[0][1]
    names = sorted({item.corpus for item in heards.items})
    return Report(
        name=manifest.path.name,
        model=heards.model,
        seconds=heards.seconds,
        corpora=tuple(corpus_report(_part(heards, name), plan) for name in names),
        plan=plan,
        foreign=dict(Counter(item.label for item in manifest.items if item.label and item.emotion is None)),
        unlabelled=sum(1 for item in manifest.items if not item.label),
        failures=tuple((item.name, error) for item, error in heards.failures),
        no_rule=plan.baseline_clips > 0 and heards.rule is None,
    )


def corpus_report(heards: Heards, plan: Plan) -> CorpusReport:
    """Figures of the clips of one corpus; no model is needed for it.

    Args:
        heards: labelled clips with their pooled logits.
        plan: baselines to simulate, when ``heards.rule`` is there.
    """
    items = heards.items
    truth = np.array([item.emotion for item in items], np.int64)
    classes = tuple(int(c) for c in np.unique(truth))
    cluster, kind = clusters(items)
    scores = softmax(heards.plain)
    judge = _Judge(truth, cluster, plan.seed)
    within = scoring.restrict(scores, classes)
    speech = truth != UNKNOWN
    baselines = []
    if plan.baseline_clips and heards.rule is not None and len(classes) > 1:
        for share in plan.reference_shares:
            told = share if plan.neutral_share is None else plan.neutral_share
            drawn = [
                with_baseline(heards, heards.rule, plan.baseline_clips, share, told, plan.seed + draw)
                for draw in range(plan.draws)
            ]
            figures = judge.figures([scoring.restrict(scores, classes) for scores, _ in drawn])
            baselines.append(Beside(share, told, drawn[0][1], figures))
    return CorpusReport(
        corpus=items[0].corpus,
        languages=tuple(sorted({item.language for item in items} - {""})),
        n_clips=len(items),
        n_speakers=len({item.speaker for item in items} - {None}),
        clusters=kind,
        classes=classes,
        restricted=judge.figures([within]),
        unrestricted=judge.figures([scores]),
        confusion=scoring.confusion(truth, within.argmax(axis=1)),
        confusion_all=scoring.confusion(truth, scores.argmax(axis=1)),
        reliability=scoring.reliability(within.max(axis=1), within.argmax(axis=1) == truth),
        called_unknown=float(np.mean(scores[speech].argmax(axis=1) == UNKNOWN)) if speech.any() else float("nan"),
        baselines=tuple(baselines),
    )


def clusters(items: Sequence[Item]) -> tuple[Ints, str]:
    """(n,) which cluster of the bootstrap each clip belongs to, and what the clusters are: ``speaker`` or ``clip``.

    Clips of one speaker are alike: drawing clips would give intervals that say nothing about other speakers. Only
    where speakers are not known, or there is one, clips are drawn, and the report says so.
    """
    speakers = sorted({item.speaker for item in items if item.speaker})
    if len(speakers) < 2 or any(item.speaker is None for item in items):
        return np.arange(len(items)), "clip"
    number = {name: i for i, name in enumerate(speakers)}
    return np.array([number[item.speaker or ""] for item in items], np.int64), "speaker"


def with_baseline(
    heards: Heards, rule: BaselineRule, count: int, reference_share: float, neutral_share: float, seed: int
) -> tuple[Doubles, int]:
    """(n, 9) scores of each clip beside ``count`` random other clips of its speaker, and how many clips had them.

    Of the earlier clips ``reference_share`` are neutral, the rest is drawn evenly from the speaker's classes, with
    replacement; what the plain head calls unknown stays out. A clip with fewer than ``rule.min_clips`` others to draw
    from keeps its plain scores, as in the app.
    """
    rng = np.random.default_rng(seed)
    scores = softmax(heards.plain)
    by_speaker: dict[str, dict[int, list[int]]] = {}
    for row, item in enumerate(heards.items):
        if item.speaker and item.emotion not in (None, UNKNOWN) and not is_unknown(heards.plain[row]):
            by_speaker.setdefault(item.speaker, {}).setdefault(item.emotion, []).append(row)  # type: ignore[arg-type]
    judged = 0
    for row, item in enumerate(heards.items):
        earlier = _draw(by_speaker.get(item.speaker or "", {}), row, count, reference_share, rng)
        if len(set(earlier)) < min(rule.min_clips, count) or count < rule.min_clips:
            continue
        judged += 1
        mean: Floats = heards.reference[earlier].mean(axis=0)
        scores[row] = rule.scores(heards.plain[row], heards.reference[row], mean, count, neutral_share)
    return scores, judged


def _draw(classes: dict[int, list[int]], row: int, count: int, share: float, rng: np.random.Generator) -> list[int]:
    pools = {key: [r for r in rows if r != row] for key, rows in classes.items()}
    keys = sorted(key for key, rows in pools.items() if rows)
    if not keys:
        return []
    picks = []
    for _ in range(count):
        key = NEUTRAL if NEUTRAL in keys and rng.random() < share else keys[rng.integers(len(keys))]
        picks.append(pools[key][rng.integers(len(pools[key]))])
    return picks


@dataclass(frozen=True, eq=False)
class _Judge:
    """Figures of several answers to the same clips."""

    truth: Ints
    cluster: Ints
    seed: int

    def figures(self, answers: list[Doubles]) -> Figures:
        """Of (n, 9) scores, counted together when there are several draws."""
        n = int(self.cluster.max()) + 1
        counts = np.zeros((n, len(KEYS), len(KEYS)))
        tables = np.zeros((n, scoring.BINS, 3))
        for scores in answers:
            best, confidence = scores.argmax(axis=1), scores.max(axis=1)
            np.add.at(counts, (self.cluster, self.truth, best), 1 / len(answers))
            place = np.minimum((confidence * scoring.BINS).astype(int), scoring.BINS - 1)
            right: NDArray[np.float64] = (best == self.truth).astype(float)
            sums = np.stack([np.ones(len(best)), confidence, right], axis=1)
            np.add.at(tables, (self.cluster, place), sums / len(answers))
        return Figures(
            *(scoring.interval(counts, metric, self.seed)
              for metric in (scoring.uar, scoring.accuracy, scoring.macro_f1, scoring.neutral_heavy)),
            ece=scoring.interval(tables, scoring.calibration_error, self.seed),
        )  # fmt: skip


def _part(heards: Heards, corpus: str) -> Heards:
    rows = [i for i, item in enumerate(heards.items) if item.corpus == corpus]
    return Heards(
        tuple(heards.items[i] for i in rows), heards.plain[rows], heards.reference[rows], heards.seconds, heards.model,
        heards.rule, (),
    )  # fmt: skip
