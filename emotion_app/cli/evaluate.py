"""``emotion-app evaluate``: how good a model is on a labelled list of clips."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from emotion_app.cli.common import Device, Engine, Model, Offline, Precision, count_line, err, lang
from emotion_app.errors import RequestError
from emotion_app.labels import index_of
from emotion_app.settings import read_settings


def evaluate(
    manifest: Annotated[Path, typer.Argument(help="manifest.csv, .tsv, .jsonl, or EmoBox metadata.")],
    save: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for report, JSON and pictures.")] = None,
    baseline_clips: Annotated[int, typer.Option(help="Also with a baseline of so many earlier clips.")] = 0,
    neutral_share: Annotated[
        float | None, typer.Option(help="Share of neutral that the rule is told; default: the true one.")
    ] = None,
    reference_share: Annotated[
        list[float] | None, typer.Option(help="Share of neutral among the earlier clips; may be repeated.")
    ] = None,
    corpus: Annotated[list[str] | None, typer.Option(help="Only this corpus; may be repeated.")] = None,
    split: Annotated[list[str] | None, typer.Option(help="Only this split; may be repeated.")] = None,
    label_map: Annotated[list[str] | None, typer.Option("--map", help="LABEL=emotion; may be repeated.")] = None,
    root: Annotated[Path | None, typer.Option(help="Where the paths in the list begin.")] = None,
    seed: Annotated[int, typer.Option(help="Of intervals and of the earlier clips.")] = 0,
    jobs: Annotated[int, typer.Option(help="Clips in work at once.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="The report as JSON instead of Markdown.")] = False,
    model: Model = None,
    engine: Engine = None,
    precision: Precision = None,
    device: Device = None,
    offline: Offline = None,
) -> None:
    """UAR, WA, macro F1 and calibration with intervals over speakers, by corpus, with and without a baseline."""
    from emotion_app.analyzer import Analyzer
    from emotion_app.evaluation import Plan
    from emotion_app.evaluation import evaluate as run
    from emotion_app.evaluation_report import as_dict, markdown, write
    from emotion_app.manifest import read_manifest

    settings = read_settings(model=model, engine=engine, precision=precision, device=device, offline=offline)
    plan = Plan(baseline_clips, tuple(reference_share or Plan.reference_shares), neutral_share, seed=seed)
    listed = read_manifest(manifest, root=root, label_map=_label_map(label_map or []))
    kept = tuple(i for i in listed.items if i.corpus in (corpus or [i.corpus]) and i.split in (split or [i.split]))
    if not kept:
        raise RequestError("BAD_MANIFEST", name=manifest.name, reason="no clip of these corpora and splits")
    analyzer = Analyzer(settings)
    try:
        with count_line(manifest.name) as tell:
            report = run(analyzer, replace(listed, items=kept), plan, jobs=jobs, progress=tell)
    finally:
        analyzer.close()
    if as_json:
        sys.stdout.write(json.dumps(as_dict(report), ensure_ascii=False, allow_nan=False) + "\n")
    else:
        sys.stdout.write(markdown(report))
    if save is not None:
        for path in write(report, save):
            err.print(f"→ {path}", soft_wrap=True, highlight=False)
    if report.failures:
        word = "个文件无法分析" if lang() == "zh" else "clips could not be analyzed"
        err.print(f"[yellow]⚠[/yellow] {len(report.failures)} {word}", highlight=False)


def _label_map(pairs: list[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        label, equals, emotion = pair.partition("=")
        if not equals or index_of(emotion) is None:
            raise RequestError("BAD_OPTION", option="--map", value=pair, choices="LABEL=angry, LABEL=happy, ...")
        found[label] = emotion
    return found
