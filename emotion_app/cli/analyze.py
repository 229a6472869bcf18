"""``emotion-app analyze``: one or several clips, a table for people or JSON lines for programs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from emotion_app.cli.common import Device, Engine, Model, Offline, Precision, err, lang, out, progress_line
from emotion_app.errors import EmotionError
from emotion_app.labels import EMOTIONS
from emotion_app.settings import read_settings


def analyze(
    files: Annotated[list[Path], typer.Argument(help="Sound or video files.")],
    granularity: Annotated[str, typer.Option("--granularity", "-g", help="utterance or frame.")] = "utterance",
    embedding: Annotated[str, typer.Option(help="none, utterance or frame.")] = "none",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line instead of a table.")] = False,
    save: Annotated[Path | None, typer.Option("--out", "-o", help="Save a result folder for each file here.")] = None,
    window_s: Annotated[float | None, typer.Option(help="Smoothing of the timeline in seconds.")] = None,
    baseline: Annotated[str | None, typer.Option(help="Judge against this speaker's baseline.")] = None,
    model: Model = None,
    engine: Engine = None,
    precision: Precision = None,
    device: Device = None,
    offline: Offline = None,
) -> None:
    """Emotion of one or several clips. A file that fails is reported; the others go on."""
    from emotion_app.analyzer import Analyzer, Options
    from emotion_app.result_json import result_to_dict
    from emotion_app.store import Store

    settings = read_settings(
        model=model, engine=engine, precision=precision, device=device, offline=offline, outputs_dir=save
    )
    options = Options(granularity, embedding, window_s=window_s, baseline=baseline)  # type: ignore[arg-type]  # checked
    store = Store(settings.outputs_dir, settings.limits) if save is not None else None
    worst = 0
    analyzer = Analyzer(settings)
    try:
        for path in files:
            try:
                with progress_line(path.name, show=not as_json) as tell:
                    result = analyzer.analyze(path, options, progress=tell)
                folder = _save(store, result) if store is not None else None
            except EmotionError as error:
                worst = error.problem.exit
                _report_failure(path, error, as_json)
                continue
            if as_json:
                document = {**result_to_dict(result), **({"folder": str(folder)} if folder else {})}
                sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
                sys.stdout.flush()
            else:
                print_result(path, result, folder)
    finally:
        analyzer.close()
    raise typer.Exit(worst)


def _save(store: Any, result: Any) -> Path:
    from emotion_app.charts import result_charts

    saved: Path = store.save(result, result_charts(result, lang())).path
    return saved


def _report_failure(path: Path, error: EmotionError, as_json: bool) -> None:
    if as_json:
        failure = {
            "source": {"name": path.name},
            "error": {"code": error.code, "en": error.text("en"), "zh": error.text("zh")},
        }
        sys.stdout.write(json.dumps(failure, ensure_ascii=False) + "\n")
    else:
        err.print(f"[red]✗[/red] {path.name}: {error.text(lang())} [dim]\\[{error.code}][/dim]", highlight=False)


def print_result(path: Path, result: Any, folder: Path | None) -> None:
    """The answer as a table: headline, nine bars, segments, notes."""
    p, words = result.view.prediction, lang()
    out.print(f"\n[bold]{path.name}[/bold]  {result.waveform.duration_s:.2f} s")
    (best, score), (second, runner_up) = p.top(2)
    then = "其次" if words == "zh" else "then"
    out.print(
        f"  {best.emoji} [bold]{best.zh} {best.en}[/bold]  {100 * score:.1f} %"
        f"   [dim]{then} {second.emoji} {second.name(words)} {100 * runner_up:.1f} %[/dim]"
    )
    table = Table(box=None, show_header=False, padding=(0, 1))
    for emotion, score in zip(EMOTIONS, p.scores, strict=True):
        bar = "█" * round(30 * float(score)) or "▏"
        table.add_row(f"  {emotion.emoji}", emotion.name(words), f"[{emotion.colour}]{bar}[/]", f"{100 * score:5.1f} %")
    out.print(table)
    if result.adjusted is not None:
        plain = result.prediction
        title = "未按基线调整" if words == "zh" else "without the baseline"
        out.print(f"  [dim]{title}: {plain.emotion.name(words)} {100 * plain.confidence:.1f} %[/dim]")
    if result.view.segments:
        spans = Table("start s", "end s", "emotion", "score", box=None, padding=(0, 2), header_style="dim")
        for s in result.view.segments:
            e = s.prediction.emotion
            spans.add_row(
                f"{s.start_s:.2f}",
                f"{s.end_s:.2f}",
                f"{e.emoji} {e.name(words)}",
                f"{100 * s.prediction.confidence:.1f} %",
            )
        out.print(spans)
    for note in result.notes:
        style, mark = ("yellow", "⚠") if note.severity == "warning" else ("dim", "·")
        out.print(f"  [{style}]{mark} {note.text(words)}[/]")
    t = result.timing
    out.print(
        f"  [dim]{result.model.name} · {result.model.precision} · {result.model.device} · "
        f"{t.decode_s:.2f} + {t.load_s:.2f} + {t.infer_s:.2f} s[/dim]"
    )
    if folder is not None:
        out.print(f"  → {folder}")
