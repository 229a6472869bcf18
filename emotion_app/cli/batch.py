"""``emotion-app batch``: folders and lists of clips into one table."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from emotion_app.cli.common import Device, Engine, Model, Offline, Precision, count_line, err, lang, out
from emotion_app.settings import read_settings

if TYPE_CHECKING:
    from emotion_app.batch import Step, Summary

SHOWN = 20  # failures listed at the end; the table has them all


def batch(
    inputs: Annotated[list[Path], typer.Argument(help="Files, folders, or lists (.csv, .tsv, .jsonl, .json).")],
    save: Annotated[Path, typer.Option("--out", "-o", help="Folder for results.csv and results.jsonl.")],
    granularity: Annotated[str, typer.Option("--granularity", "-g", help="utterance or frame.")] = "utterance",
    window_s: Annotated[float | None, typer.Option(help="Smoothing of the timeline in seconds.")] = None,
    baseline: Annotated[
        str | None, typer.Option(help="Name of a baseline, per-folder, or per-speaker-column.")
    ] = None,
    neutral_share: Annotated[
        float | None, typer.Option(help="Part of neutral in each group's clips, 0 - 1; default 0.4.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what is in the folder.")] = False,
    jobs: Annotated[int, typer.Option(help="Clips in work at once.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="The summary as JSON.")] = False,
    model: Model = None,
    engine: Engine = None,
    precision: Precision = None,
    device: Device = None,
    offline: Offline = None,
) -> None:
    """Analyze many clips. A file that fails is listed and stops nobody; Ctrl-C keeps what is done."""
    from emotion_app.analyzer import Analyzer, Options
    from emotion_app.batch import BatchPlan, run_batch

    settings = read_settings(model=model, engine=engine, precision=precision, device=device, offline=offline)
    options = Options(granularity, window_s=window_s)  # type: ignore[arg-type]  # checked there
    plan = BatchPlan(options, baseline, neutral_share, jobs, resume)
    analyzer = Analyzer(settings)
    try:
        with count_line(str(save)) as tell:

            def told(step: Step) -> None:
                tell(step.done, step.total)
                if step.error is not None:
                    text = f"[red]✗[/red] {escape(step.name)}: {escape(step.error.text(lang()))}"
                    err.print(f"{text} [dim]\\[{step.error.code}][/dim]", highlight=False)

            summary = run_batch(analyzer, inputs, save, plan, progress=told)
    except KeyboardInterrupt:
        zh = lang() == "zh"
        kept = "已完成的结果保存在 {}；用 --resume 继续" if zh else "what is done is in {}; go on with --resume"
        err.print(kept.format(escape(str(save))), highlight=False)
        raise
    finally:
        analyzer.close()
    _report(summary, as_json)
    raise typer.Exit(summary.failed[-1][1].problem.exit if summary.failed else 0)


def _report(summary: Summary, as_json: bool) -> None:
    if as_json:
        failed = [{"path": name, "code": error.code, "error": error.text("en")} for name, error in summary.failed]
        facts = {"done": summary.done, "known": summary.known, "failed": failed, "passed_over": summary.passed_over,
                 "out": str(summary.out)}  # fmt: skip
        sys.stdout.write(json.dumps(facts, ensure_ascii=False) + "\n")
        return
    counts = (summary.done, summary.known, len(summary.failed), summary.passed_over)
    text = "分析 {} 个，已有 {} 个，失败 {} 个，跳过非音视频文件 {} 个" if lang() == "zh" else (
        "{} analyzed, {} there already, {} failed, {} files passed over that are no sound or video")  # fmt: skip
    out.print(text.format(*counts), highlight=False)
    for name, error in summary.failed[:SHOWN]:
        out.print(f"  [red]✗[/red] {escape(name)}  [dim]{error.code}[/dim]", highlight=False)
    if len(summary.failed) > SHOWN:
        out.print(f"  … {len(summary.failed) - SHOWN}")
    out.print(f"→ {summary.out / 'results.csv'}", soft_wrap=True, highlight=False)
