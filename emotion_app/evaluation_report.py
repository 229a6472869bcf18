"""An evaluation as JSON, as a readable Markdown report, and as pictures of the confusion matrices."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from emotion_app import scoring
from emotion_app.charts import confusion_png
from emotion_app.errors import StoreError
from emotion_app.evaluation import Beside, CorpusReport, Figures, Report
from emotion_app.labels import KEYS
from emotion_app.scoring import Figure

FAILURES_SHOWN = 20
FEW_SPEAKERS = 10  # below: a bootstrap over them is too narrow
_FIGURES = (("uar", "UAR"), ("wa", "WA"), ("macro_f1", "macro F1"), ("neutral_heavy", "accuracy at 85 % neutral"),
            ("ece", "ECE"))  # fmt: skip


def as_dict(report: Report) -> dict[str, Any]:
    """The report as plain data for JSON; shares are 0..1, what is not defined is null."""
    model = report.model
    data = {
        "list": report.name,
        "model": {"name": model.name, "family": model.family, "source": model.source, "precision": model.precision,
                  "device": model.device, "revision": model.revision, "sha256": model.sha256},
        "seconds": report.seconds,
        "baseline": {"clips": report.plan.baseline_clips, "draws": report.plan.draws, "no_rule": report.no_rule},
        "left_out": {"foreign_labels": report.foreign, "unlabelled": report.unlabelled,
                     "failures": [{"path": name, "code": error.code, "error": error.text("en")}
                                  for name, error in report.failures]},
        "corpora": [_corpus(corpus) for corpus in report.corpora],
    }  # fmt: skip
    finite: dict[str, Any] = _finite(data)
    return finite


def markdown(report: Report, pictures: Mapping[str, str] | None = None) -> str:
    """The report to read, in per cent.

    Args:
        report: what was evaluated.
        pictures: file names of confusion matrices by corpus, to be shown.
    """
    model = report.model
    lines = [
        f"# {model.name} on {report.name}", "",
        f"Model {model.name} ({model.source}, {model.precision}, {model.device}), "
        f"{sum(c.n_clips for c in report.corpora)} clips, {report.seconds / 60:.0f} minutes of sound. "
        "Figures are per cent with 95 % bootstrap intervals; the answer is the best among the classes that a corpus "
        "has. UAR: mean recall of the classes. WA: share of right answers. ECE: mean distance between confidence and "
        "accuracy.", "",
        *_left_out(report), *_overview(report),
    ]  # fmt: skip
    for corpus in report.corpora:
        lines += ["", f"## {corpus.corpus}", "", *_section(corpus, (pictures or {}).get(corpus.corpus))]
    return "\n".join(lines) + "\n"


def write(report: Report, folder: Path) -> tuple[Path, ...]:
    """Write ``evaluation.json``, ``evaluation.md`` and ``confusion_<corpus>.png`` into a folder.

    Raises:
        StoreError: CANNOT_SAVE.
    """
    pictures = {corpus.corpus: f"confusion_{_file_name(corpus.corpus)}.png" for corpus in report.corpora}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for corpus in report.corpora:
            title = f"{corpus.corpus}: {report.model.name}"
            (folder / pictures[corpus.corpus]).write_bytes(confusion_png(corpus.confusion, title, "en"))
        text = json.dumps(as_dict(report), ensure_ascii=False, allow_nan=False, indent=1)
        (folder / "evaluation.json").write_text(text + "\n", encoding="utf-8")
        (folder / "evaluation.md").write_text(markdown(report, pictures), encoding="utf-8")
    except OSError as error:
        raise StoreError("CANNOT_SAVE", reason=str(error)) from error
    return (folder / "evaluation.md", folder / "evaluation.json", *(folder / name for name in pictures.values()))


def _file_name(corpus: str) -> str:
    return re.sub(r"[^\w-]+", "_", corpus)[:60] or "corpus"


def _figures(figures: Figures) -> dict[str, Any]:
    return {name: vars(getattr(figures, name)) for name, _ in _FIGURES}


def _corpus(corpus: CorpusReport) -> dict[str, Any]:
    recall, precision, f1 = (metric(corpus.confusion) for metric in (scoring.recalls, scoring.precisions, scoring.f1s))
    return {
        "corpus": corpus.corpus, "languages": list(corpus.languages), "n_clips": corpus.n_clips,
        "n_speakers": corpus.n_speakers, "intervals_over": corpus.clusters,
        "classes": [KEYS[c] for c in corpus.classes],
        "chance_uar": 1 / len(corpus.classes), "restricted": _figures(corpus.restricted),
        "unrestricted": _figures(corpus.unrestricted), "called_unknown": corpus.called_unknown,
        "by_class": {KEYS[c]: {"clips": int(corpus.confusion[c].sum()), "recall": recall[c], "precision": precision[c],
                               "f1": f1[c]} for c in corpus.classes},
        "confusion": {"labels": list(KEYS), "restricted": corpus.confusion.astype(int).tolist(),
                      "unrestricted": corpus.confusion_all.astype(int).tolist()},
        "reliability": [{"from": b / scoring.BINS, "to": (b + 1) / scoring.BINS, "clips": int(n),
                         "confidence": c / n, "accuracy": right / n}
                        for b, (n, c, right) in enumerate(corpus.reliability.tolist()) if n],
        "with_baseline": [{"reference_neutral_share": b.reference_share, "told_neutral_share": b.neutral_share,
                           "clips": b.clips, **_figures(b.figures)} for b in corpus.baselines],
    }  # fmt: skip


def _left_out(report: Report) -> list[str]:
    lines = []
    if report.foreign:
        words = ", ".join(f"{label} ({count})" for label, count in sorted(report.foreign.items()))
        lines += [f"Left out, because their labels are none of the nine (map them: `--map label=emotion`): {words}.",
                  ""]  # fmt: skip
    if report.unlabelled:
        lines += [f"Left out, because they have no label: {report.unlabelled} clips.", ""]
    if report.failures:
        shown = [f"- {name}: {error} [{error.code}]" for name, error in report.failures[:FAILURES_SHOWN]]
        more = len(report.failures) - len(shown)
        lines += [f"Could not be analyzed: {len(report.failures)} clips.", "", *shown]
        lines += [f"- and {more} more", ""] if more else [""]
    if report.no_rule:
        lines += [f"No figures with a baseline: {report.model.name} has no numbers for it yet "
                  f"(`emotion-app baseline fit MANIFEST --model {report.model.name}`).", ""]  # fmt: skip
    return lines


def _overview(report: Report) -> list[str]:
    rows = [[c.corpus, " ".join(c.languages) or "-", str(c.n_clips), str(c.n_speakers or "?"),
             f"{100 / len(c.classes):.0f}", *(_show(getattr(c.restricted, name)) for name, _ in _FIGURES)]
            for c in report.corpora]  # fmt: skip
    head = ["corpus", "language", "clips", "speakers", "chance", *(title for _, title in _FIGURES)]
    lines = _table(head, rows)
    several = [float(c.restricted.uar.value) for c in report.corpora if len(c.classes) > 1]
    if len(several) > 1:
        lines += ["", f"Mean UAR of the {len(several)} corpora with more than one class: {100 * np.mean(several):.1f}."]
    return lines


def _section(corpus: CorpusReport, picture: str | None) -> list[str]:
    lines = [_about_intervals(corpus), "", *_ways(corpus), ""]
    if len(corpus.classes) == 1:
        lines += ["One class only: among the classes of this corpus there is nothing to choose; its recall is the "
                  "unrestricted WA.", ""]  # fmt: skip
    if not math.isnan(corpus.called_unknown):
        lines += [f"Speech called unknown: {100 * corpus.called_unknown:.1f} %.", ""]
    recall, precision, f1 = (metric(corpus.confusion) for metric in (scoring.recalls, scoring.precisions, scoring.f1s))
    by_class = [[KEYS[c], f"{corpus.confusion[c].sum():.0f}", *(_percent(f[c]) for f in (recall, precision, f1))]
                for c in corpus.classes]  # fmt: skip
    lines += _table(["class", "clips", "recall", "precision", "F1"], by_class)
    lines += ["", "Answers (columns) by label (rows):", "", *_matrix(corpus)]
    if picture is not None:
        lines += ["", f"![confusion matrix of {corpus.corpus}]({picture})"]
    step = 100 / scoring.BINS
    bins = [[f"{b * step:.0f} - {(b + 1) * step:.0f}", f"{n:.0f}", _percent(total / n), _percent(right / n)]
            for b, (n, total, right) in enumerate(corpus.reliability.tolist()) if n]  # fmt: skip
    return [*lines, "", "Confidence of the best class against how often it is right:", "",
            *_table(["confidence", "clips", "mean confidence", "right"], bins)]  # fmt: skip


def _about_intervals(corpus: CorpusReport) -> str:
    if corpus.clusters == "speaker":
        few = "; so few that the intervals are rough" if corpus.n_speakers < FEW_SPEAKERS else ""
        return f"Intervals over {corpus.n_speakers} speakers (speakers are drawn, not clips{few})."
    why = "the list does not name all speakers" if corpus.n_speakers != 1 else "there is only one speaker"
    return f"Intervals over single clips, because {why}: they say nothing about other speakers."


def _ways(corpus: CorpusReport) -> list[str]:
    rows = [["plain", *_row(corpus.restricted)], ["plain, any of the nine", *_row(corpus.unrestricted)]]
    rows += [[_way(beside, corpus.n_clips), *_row(beside.figures)] for beside in corpus.baselines]
    return _table(["answer", *(title for _, title in _FIGURES)], rows)


def _way(beside: Beside, n_clips: int) -> str:
    told = "" if beside.neutral_share == beside.reference_share else f", taken as {100 * beside.neutral_share:.0f} %"
    some = "" if beside.clips == n_clips else f", {n_clips - beside.clips} clips without one"
    return f"baseline, {100 * beside.reference_share:.0f} % neutral{told}{some}"


def _row(figures: Figures) -> list[str]:
    return [_show(getattr(figures, name)) for name, _ in _FIGURES]


def _matrix(corpus: CorpusReport) -> list[str]:
    columns = [c for c in range(len(KEYS)) if corpus.confusion[:, c].any() or c in corpus.classes]
    rows = [[KEYS[row], *(f"{corpus.confusion[row, column]:.0f}" for column in columns)] for row in corpus.classes]
    return _table(["", *(KEYS[column] for column in columns)], rows)


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (head, *rows)]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return [lines[0], "|" + "---|" * len(head), *lines[1:]]


def _show(figure: Figure) -> str:
    return "-" if math.isnan(figure.value) else str(figure)


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, np.generic):
        return _finite(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value
