"""The command line: a thin door to the same core. Tables for people, JSON lines for programs.

Exit codes come from ``errors.PROBLEMS``; 0 is success, 2 is a misuse that typer found, 130 is Ctrl-C.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from emotion_app import calm, logs
from emotion_app.cli.analyze import analyze
from emotion_app.cli.baseline import baseline_app
from emotion_app.cli.batch import batch
from emotion_app.cli.common import Device, Engine, Model, Offline, Precision, err, lang, out
from emotion_app.cli.evaluate import evaluate
from emotion_app.cli.models import models_app
from emotion_app.cli.stream import stream
from emotion_app.errors import EmotionError
from emotion_app.settings import read_settings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Speech emotion recognition with Emotion2Vec+ Large.",
)
app.command()(analyze)
app.command()(batch)
app.command()(evaluate)
app.command()(stream)
app.add_typer(baseline_app, name="baseline")
app.add_typer(models_app, name="models")


def main(argv: list[str] | None = None) -> None:
    """Entry point of ``emotion-app``.

    Args:
        argv: arguments without the program's name; default ``sys.argv[1:]``.
    """
    calm.calm_threads()  # importing it did; said here because it matters
    logging.basicConfig(
        level=os.environ.get("EMOTION_LOG_LEVEL", "WARNING"), format="%(levelname)s %(name)s: %(message)s"
    )
    try:
        app(args=argv)
    except EmotionError as error:
        err.print(f"[red]✗[/red] {error.text(lang())} [dim]\\[{error.code}][/dim]", highlight=False)
        sys.exit(error.problem.exit)
    except KeyboardInterrupt:
        sys.exit(130)


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

    settings = read_settings(
        host=host,
        port=port,
        token=token,
        preload=preload,
        outputs_dir=outputs,
        model=model,
        engine=engine,
        precision=precision,
        device=device,
        offline=offline,
    )
    logs.set_up(settings.log_level)
    run_server(settings)


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
