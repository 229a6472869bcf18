"""The report: every corpus, plain and beside earlier clips, degraded sound, unknown, calibration, confusion."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from emotion_app.labels import KEYS
from emotion_app.models import FrameModel
from emotion_app.types import BaselineRule
from training import answers as ask
from training import scoring
from training.answers import UNKNOWN, Answers, Change
from training.manifest import Clip
from training.scoring import Figure

BASELINES: tuple[tuple[str, float], ...] = (
    ("balanced, 10 clips", 0.0),
    ("mixed, 10 clips", 0.4),
    ("neutral-heavy, 10 clips", 0.85),
    ("neutral only, 10 clips", 1.0),
)
REFERENCE_CLIPS = 10
DRAWS = 5  # of references; figures are means over them


@dataclass(frozen=True)
class Beside:
    """With a baseline: UAR and accuracy at a neutral-heavy mix, means over random references."""

    uar: float
    neutral_heavy: float


@dataclass(frozen=True)
class CorpusReport:
    """Figures of one corpus; the answer is the best among the classes that the corpus has.

    Attributes:
        uar: interval over clips.
        uar_speakers: interval over speakers.
        false_unknown: share of clips called unknown among all nine classes (speech), or None.
        ece: calibration error over the corpus' classes.
        confusion: rows truth, columns answer, over nine classes, counts (answers not restricted).
        baseline: by name of the kind of reference.
        degraded: UAR by name of the degradation.
        same_label: share of labels (of nine) kept by name of the degradation.
    """

    corpus: str
    split: str
    n_clips: int
    n_speakers: int
    uar: Figure
    uar_speakers: Figure
    accuracy: Figure
    macro_f1: Figure
    neutral_heavy: float
    false_unknown: float
    unknown_recall: float
    ece: float
    confidence: float
    confusion: list[list[int]]
    baseline: dict[str, Beside] = field(default_factory=dict)
    degraded: dict[str, float] = field(default_factory=dict)
    same_label: dict[str, float] = field(default_factory=dict)
    confident: dict[str, float] = field(default_factory=dict)


def corpus_report(
    model: FrameModel, clips: Sequence[Clip], degrade: dict[str, Change], rule: BaselineRule | None
) -> CorpusReport:
    """Figures of the clips of one corpus and split."""
    plain = ask.answer(model, clips)
    truth = np.array([clip.emotion for clip in clips])
    classes = sorted(set(truth.tolist()))
    speakers = [clip.speaker for clip in clips]
    scores = scoring.softmax(plain.plain)
    best = scoring.restricted(scores, classes)
    free = scores.argmax(1)
    matrix = np.zeros((len(KEYS), len(KEYS)), int)
    np.add.at(matrix, (truth, free), 1)
    speech = truth != UNKNOWN
    report = CorpusReport(
        corpus=clips[0].corpus,
        split=clips[0].split,
        n_clips=len(clips),
        n_speakers=len(set(speakers)),
        uar=scoring.bootstrap(scoring.uar, truth, best),
        uar_speakers=scoring.bootstrap(scoring.uar, truth, best, speakers),
        accuracy=scoring.bootstrap(scoring.accuracy, truth, best),
        macro_f1=scoring.bootstrap(scoring.macro_f1, truth, best),
        neutral_heavy=scoring.neutral_heavy(truth, best),
        false_unknown=float(np.mean(free[speech] == UNKNOWN)) if speech.any() else float("nan"),
        unknown_recall=float(np.mean(free[~speech] == UNKNOWN)) if (~speech).any() else float("nan"),
        ece=scoring.calibration_error(scores, truth, classes),
        confidence=float(scores.max(1).mean()),
        confusion=matrix.tolist(),
    )
    if rule is not None and len(classes) > 1:
        for name, share in BASELINES:
            report.baseline[name] = _beside(plain, clips, rule, share, truth, classes)
    for name, change in degrade.items():
        other = scoring.softmax(ask.answer(model, clips, change).plain)
        report.degraded[name] = scoring.uar(truth, scoring.restricted(other, classes))
        report.same_label[name] = float(np.mean(other.argmax(1) == free))
        report.confident[name] = float(np.mean((other.max(1) >= 0.5) & (other.argmax(1) != UNKNOWN)))
    return report


def degradations(noises: Sequence[Path]) -> dict[str, Change]:
    """What a voice meets on its way; noise from recordings when there are any."""
    changes: dict[str, Change] = {
        "8 kHz band": ask.narrow_band,
        "white noise 10 dB": ask.white_noise,
        "MP3 64k": ask.mp3_64k,
        "Opus 24k": ask.opus_24k,
        "1 s": ask.loudest(1.0),
        "1.4 s": ask.loudest(1.4),
        "2 s": ask.loudest(2.0),
    }
    if noises:
        changes["recorded noise 10 dB"] = ask.mixed_with(noises)
    return changes


def report(
    model: FrameModel,
    clips: Sequence[Clip],
    splits: Sequence[str],
    degrade: Sequence[str],
    noises: Sequence[Path],
    rule: BaselineRule | None,
    folder: Path,
) -> list[CorpusReport]:
    """Write ``report.json`` and ``report.md`` into ``folder``; ``degrade`` names the corpora tried with bad sound."""
    groups = sorted({(clip.corpus, clip.split) for clip in clips if clip.split in splits})
    reports = [
        corpus_report(
            model,
            [c for c in clips if (c.corpus, c.split) == group],
            degradations(noises) if group[0] in degrade else {},
            rule,
        )
        for group in groups
    ]
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"model": asdict(model.info), "corpora": [asdict(item) for item in reports]}
    (folder / "report.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False), encoding="utf-8")
    (folder / "report.md").write_text(as_markdown(reports), encoding="utf-8")
    return reports


def spread_table(seeds: Sequence[int], reports: Sequence[Sequence[CorpusReport]]) -> str:
    """UAR of every seed, mean and standard deviation, plain and beside ten neutral-heavy clips."""
    lines = []
    for same in zip(*reports, strict=True):
        if len({row for row, line in enumerate(same[0].confusion) if sum(line)}) < 2:
            continue
        plain = [100 * r.uar.value for r in same]
        beside = [100 * r.baseline["neutral-heavy, 10 clips"].uar for r in same if r.baseline]
        cells = [f"{v:.1f}" for v in plain] + [_mean_and_spread(plain)]
        lines.append([f"{same[0].corpus} {same[0].split}", *cells, _mean_and_spread(beside)])
    names = ["UAR", *(f"seed {s}" for s in seeds), "mean ± spread", "with a neutral-heavy baseline"]
    return _table(names, lines) + "\n"


def folds_table(rows: Sequence[tuple[str, int, dict[str, float]]]) -> str:
    """What models answer to a corpus that they were not trained on."""
    lines = [[f"{corpus}, {count} clips", *(_percent(v) for v in figures.values())] for corpus, count, figures in rows]
    return _table(["left out", *(rows[0][2] if rows else {})], lines) + "\n"


def _mean_and_spread(values: Sequence[float]) -> str:
    return f"{np.mean(values):.1f} ± {np.std(values, ddof=min(1, len(values) - 1)):.1f}" if values else ""


def as_markdown(reports: Sequence[CorpusReport]) -> str:
    """Tables for people."""
    names = ["corpus", "clips", "UAR (clips)", "UAR (speakers)", "accuracy", "macro F1"]
    names += ["accuracy, 85 % neutral", "ECE", "false unknown", "unknown recall"]
    lines = [
        [r.corpus + " " + r.split, f"{r.n_clips} of {r.n_speakers}", r.uar, r.uar_speakers, r.accuracy, r.macro_f1]
        + [_percent(v) for v in (r.neutral_heavy, r.ece, r.false_unknown, r.unknown_recall)]
        for r in reports
    ]
    parts = ["UAR among the corpus' own classes, 95 % bootstrap.", _table(names, lines)]
    if beside := [r for r in reports if r.baseline]:
        lines = [
            [f"{r.corpus} {r.split}", f"{_percent(r.uar.value)} / {_percent(r.neutral_heavy)}"]
            + [f"{_percent(b.uar)} / {_percent(b.neutral_heavy)}" for b in r.baseline.values()]
            for r in beside
        ]
        parts += ["UAR / accuracy at 85 % neutral, with earlier clips of the speaker:"]
        parts += [_table(["corpus", "plain", *beside[0].baseline], lines)]
    if worse := [r for r in reports if r.degraded]:
        lines = [
            [f"{r.corpus} {r.split}"]
            + [
                f"{_percent(r.degraded[n])}, {_percent(r.same_label[n])}, {_percent(r.confident[n])}"
                for n in r.degraded
            ]
            for r in worse
        ]
        parts += ["UAR, labels kept, share of clips answered with an emotion at 50 % or more:"]
        parts += [_table(["corpus", *worse[0].degraded], lines)]
    for r in reports:
        lines = [[KEYS[i], *line] for i, line in enumerate(r.confusion) if sum(line)]
        parts += [f"{r.corpus} {r.split}: rows truth, columns answer among all nine.", _table(["", *KEYS], lines)]
    return "\n\n".join(parts) + "\n"


def _table(names: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    rows = [names, ["---"] * len(names), *lines]
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows)


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _beside(
    plain: Answers, clips: Sequence[Clip], rule: BaselineRule, share: float, truth: scoring.Ints, classes: list[int]
) -> Beside:
    uars, heavy = [], []
    for seed in range(DRAWS):
        best = scoring.restricted(ask.with_baseline(plain, clips, rule, REFERENCE_CLIPS, share, seed), classes)
        uars.append(scoring.uar(truth, best))
        heavy.append(scoring.neutral_heavy(truth, best))
    return Beside(float(np.mean(uars)), float(np.mean(heavy)))
