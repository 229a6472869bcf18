"""``emotion-app models``: list them, get their files, find them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from emotion_app.cli.common import err, lang, out
from emotion_app.errors import RequestError
from emotion_app.settings import read_settings

EXPORTED = ("fp32", "fp16", "int8")

models_app = typer.Typer(no_args_is_help=True, help="Models: list them, get their files, find them, export them.")


@models_app.command("list")
def models_list(as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """Every model there is a name for, and whether its files are here."""
    from emotion_app.models.loader import known_models, model_path, resolve

    settings = read_settings()
    rows = [(known, resolve(known.name, settings)) for known in known_models()]
    if as_json:
        document = [
            {
                "name": known.name,
                "hub": known.modelscope or None,
                "summary": known.summary,
                "here": choice.ready,
                "path": str(model_path(known.name, settings)) if choice.ready else None,
            }
            for known, choice in rows
        ]
        sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
        return
    table = Table("name", "what", "files", box=None, padding=(0, 2))
    for known, choice in rows:
        here = f"[green]{choice.directory or 'embedded'}[/green]"
        missing = f"[dim]not here: emotion-app models get {known.name}[/dim]"
        table.add_row(
            known.name, known.summary_zh if lang() == "zh" else known.summary, here if choice.ready else missing
        )
    out.print(table)


@models_app.command("get")
def models_get(
    name: str, hub: Annotated[str | None, typer.Option(help="modelscope or huggingface first.")] = None
) -> None:
    """Download a model's files (resumes where it stopped)."""
    from emotion_app.models.loader import fetch

    settings = read_settings(hub=hub)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>5.1f}%"),
        TimeElapsedColumn(),
        console=err,
    ) as bar:
        task = bar.add_task(name, total=1.0)
        path = fetch(name, settings, lambda part, line: bar.update(task, description=line, completed=part))
    sys.stdout.write(f"{path}\n")


@models_app.command("path")
def models_path(name: str) -> None:
    """Where a model's files are; fails with MODEL_MISSING when they are not here."""
    from emotion_app.models.loader import model_path

    sys.stdout.write(f"{model_path(name, read_settings())}\n")


@models_app.command("export")
def models_export(
    name: Annotated[str, typer.Argument(help="auto, lite, a known name or a directory.")] = "auto",
    out_path: Annotated[Path, typer.Option("--out", "-o", help="File, or folder for NAME.PRECISION.onnx.")] = Path(),
    file_format: Annotated[str, typer.Option("--format", help="onnx is the only one.")] = "onnx",
    precision: Annotated[str, typer.Option(help="fp32, fp16 or int8.")] = "fp32",
) -> None:
    """Write a model as one ONNX file (waveform -> features, logits; any length) and compare it with torch."""
    from emotion_app.models.onnx import export_model

    for option, value, choices in (("format", file_format, ("onnx",)), ("precision", precision, EXPORTED)):
        if value not in choices:
            raise RequestError("BAD_OPTION", option=option, value=value, choices=", ".join(choices))
    made = export_model(name, read_settings(), out_path, precision)  # type: ignore[arg-type]  # checked above
    err.print(f"{made.size_mb:.1f} MB, largest score difference to torch {made.difference:.1e}", highlight=False)
    sys.stdout.write(f"{made.path}\n")
