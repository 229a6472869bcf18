"""The command line: a thin door to the same core. Tables for people, JSON lines for programs.

Exit codes come from ``errors.PROBLEMS``; 0 is success, 2 is a misuse that typer found, 130 is Ctrl-C.
"""

from __future__ import annotations

import json
import locale
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from emotion_app.errors import EmotionError
from emotion_app.labels import EMOTIONS, Lang
from emotion_app.settings import read_settings

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  help="Speech emotion recognition with Emotion2Vec+ Large.")
models_app = typer.Typer(no_args_is_help=True, help="Models: list them, get their files, find them, export them.")
app.add_typer(models_app, name="models")

out = Console()
err = Console(stderr=True)

Model = Annotated[str | None, typer.Option("--model", "-m", help="auto, lite, a known name, a directory or a hub id.")]
Precision = Annotated[str | None, typer.Option(help="auto, fp32, bf16 or fp16.")]
Engine = Annotated[str | None, typer.Option(help="torch, funasr (reference) or onnx.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 ...")]
Offline = Annotated[bool | None, typer.Option("--offline/--online", help="Never ask a hub.")]


def main(argv: list[str] | None = None) -> None:
    """Entry point of ``emotion-app``.

    Args:
        argv: arguments without the program's name; default ``sys.argv[1:]``.
    """
    quiet_threads()
    logging.basicConfig(level=os.environ.get("EMOTION_LOG_LEVEL", "WARNING"), format="%(levelname)s %(name)s: %(message)s")
    try:
        app(args=argv)
    except EmotionError as error:
        err.print(f"[red]✗[/red] {error.text(lang())} [dim]\\[{error.code}][/dim]", highlight=False)
        sys.exit(error.problem.exit)
    except KeyboardInterrupt:
        sys.exit(130)


def quiet_threads() -> None:
    """Before torch is loaded: OpenMP threads that wait must sleep.

    Spinning made a 1 s clip take 1.9 s instead of 0.24 s on a machine with other work (notes, emotion2vec-speed).
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")


def lang() -> Lang:
    """Language of messages in the terminal: EMOTION_LANG or the locale."""
    name = os.environ.get("EMOTION_LANG") or os.environ.get("LC_ALL") or os.environ.get("LANG") or (
        locale.getlocale()[0] or "")
    return "zh" if name.lower().startswith(("zh", "chinese")) else "en"


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; beyond loopback needs --token.")] = None,
    port: Annotated[int | None, typer.Option(help="Port, default 7860.")] = None,
    token: Annotated[str | None, typer.Option(help="Demand this token (better: EMOTION_TOKEN).")] = None,
    preload: Annotated[bool | None, typer.Option("--preload", help="Load the model before the first request.")] = None,
    outputs: Annotated[Path | None, typer.Option(help="Folder for results.")] = None,
    model: Model = None,
    engine: Engine = None,
    precision: Precision = None,
    device: Device = None,
    offline: Offline = None,
) -> None:
    """Serve the page and the API."""
    from emotion_app.web.server import serve as run_server

    settings = read_settings(host=host, port=port, token=token, preload=preload, outputs_dir=outputs, model=model,
                             engine=engine, precision=precision, device=device, offline=offline)
    logging.getLogger().setLevel(settings.log_level)
    run_server(settings)


@app.command()
def analyze(
    files: Annotated[list[Path], typer.Argument(help="Sound or video files.")],
    granularity: Annotated[str, typer.Option("--granularity", "-g", help="utterance or frame.")] = "utterance",
    embedding: Annotated[str, typer.Option(help="none, utterance or frame.")] = "none",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line instead of a table.")] = False,
    save: Annotated[Path | None, typer.Option("--out", "-o", help="Save a result folder for each file here.")] = None,
    window_s: Annotated[float | None, typer.Option(help="Smoothing of the timeline in seconds.")] = None,
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

    settings = read_settings(model=model, engine=engine, precision=precision, device=device, offline=offline,
                             outputs_dir=save)
    options = Options(granularity, embedding, window_s=window_s)  # type: ignore[arg-type]  # checked there
    store = Store(settings.outputs_dir, settings.limits) if save is not None else None
    worst = 0
    analyzer = Analyzer(settings)
    try:
        for path in files:
            try:
                with _progress(path.name, show=not as_json) as tell:
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

    saved: Path = store.save(result, result_charts(result)).path
    return saved


def _report_failure(path: Path, error: EmotionError, as_json: bool) -> None:
    if as_json:
        failure = {"source": {"name": path.name}, "error": {"code": error.code, "en": error.text("en"), "zh": error.text("zh")}}
        sys.stdout.write(json.dumps(failure, ensure_ascii=False) + "\n")
    else:
        err.print(f"[red]✗[/red] {path.name}: {error.text(lang())} [dim]\\[{error.code}][/dim]", highlight=False)


def print_result(path: Path, result: Any, folder: Path | None) -> None:
    """The answer as a table: headline, nine bars, segments, notes."""
    p, words = result.prediction, lang()
    first, second = p.top(2)
    out.print(f"\n[bold]{path.name}[/bold]  {result.waveform.duration_s:.2f} s")
    out.print(f"  {first[0].emoji} [bold]{first[0].zh} {first[0].en}[/bold]  {100 * first[1]:.1f} %"
              f"   [dim]{'其次' if words == 'zh' else 'then'} {second[0].emoji} {second[0].name(words)} {100 * second[1]:.1f} %[/dim]")
    table = Table(box=None, show_header=False, padding=(0, 1))
    for emotion, score in zip(EMOTIONS, p.scores, strict=True):
        bar = "█" * round(30 * float(score)) or "▏"
        table.add_row(f"  {emotion.emoji}", emotion.name(words), f"[{emotion.colour}]{bar}[/]", f"{100 * score:5.1f} %")
    out.print(table)
    if result.segments:
        spans = Table("start s", "end s", "emotion", "score", box=None, padding=(0, 2), header_style="dim")
        for s in result.segments:
            e = s.prediction.emotion
            spans.add_row(f"{s.start_s:.2f}", f"{s.end_s:.2f}", f"{e.emoji} {e.name(words)}", f"{100 * s.prediction.confidence:.1f} %")
        out.print(spans)
    for note in result.notes:
        out.print(f"  [{'yellow' if note.severity == 'warning' else 'dim'}]{'⚠' if note.severity == 'warning' else '·'} {note.text(words)}[/]")
    t = result.timing
    out.print(f"  [dim]{result.model.name} · {result.model.precision} · {result.model.device} · "
              f"{t.decode_s:.2f} + {t.load_s:.2f} + {t.infer_s:.2f} s[/dim]")
    if folder is not None:
        out.print(f"  → {folder}")


@contextmanager
def _progress(title: str, *, show: bool) -> Iterator[Callable[[Any], None]]:
    """A progress line on stderr, only where somebody looks."""
    if not show or not err.is_terminal:
        yield lambda progress: None
        return
    with Progress(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"),
                  TimeElapsedColumn(), console=err, transient=True) as bar:
        task = bar.add_task(title, total=1.0)
        yield lambda p: bar.update(task, description=f"{title} · {p.step}", completed=p.fraction)


@models_app.command("list")
def models_list(as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """Every model there is a name for, and whether its files are here."""
    from emotion_app.models.loader import known_models, model_path

    settings = read_settings()
    rows = [(m, model_path(m.name, settings)) for m in known_models()]
    if as_json:
        sys.stdout.write(json.dumps([{"name": m.name, "hub": m.modelscope, "licence": m.licence,
                                      "path": str(p) if p else None} for m, p in rows], ensure_ascii=False) + "\n")
        return
    table = Table("name", "hub id", "licence", "files", box=None, padding=(0, 2))
    for model, path in rows:
        table.add_row(model.name, model.modelscope or "-", model.licence, f"[green]{path}[/green]" if path else
                      f"[dim]not here: emotion-app models get {model.name}[/dim]")
    out.print(table)


@models_app.command("get")
def models_get(name: str, hub: Annotated[str | None, typer.Option(help="modelscope or huggingface first.")] = None) -> None:
    """Download a model's files (resumes where it stopped) and convert them."""
    from emotion_app.models.loader import fetch

    settings = read_settings(hub=hub)
    with Progress(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>5.1f}%"),
                  TimeElapsedColumn(), console=err) as bar:
        task = bar.add_task(name, total=1.0)
        path = fetch(name, settings, lambda part, what: bar.update(task, description=f"{name} · {what}", completed=part))
    out.print(path, soft_wrap=True)


@models_app.command("path")
def models_path(name: str) -> None:
    """Where a model's files are; fails with MODEL_MISSING when they are not here."""
    from emotion_app.errors import ModelError
    from emotion_app.models.loader import model_path

    path = model_path(name, read_settings())
    if path is None:
        raise ModelError("MODEL_MISSING", name=name)
    sys.stdout.write(f"{path}\n")


@app.command()
def doctor(
    model: Model = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Check this installation: versions, devices, formats, models, and both engines against each other."""
    from emotion_app.doctor import examine

    checks = examine(read_settings(model=model))
    if as_json:
        rows = [{"topic": c.topic, "ok": c.ok, "detail": c.detail} for c in checks]
        sys.stdout.write(json.dumps(rows, ensure_ascii=False) + "\n")
    else:
        marks = {True: "[green]✓[/green]", False: "[red]✗[/red]", None: "[dim]–[/dim]"}
        table = Table(box=None, show_header=False, padding=(0, 1))
        for check in checks:
            table.add_row(marks[check.ok], check.topic, check.detail)
        out.print(table)
    if any(check.ok is False for check in checks):
        raise typer.Exit(70)
