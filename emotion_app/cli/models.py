"""``emotion-app models``: list them, get their files, find them."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from emotion_app.cli.common import err, out
from emotion_app.settings import read_settings

models_app = typer.Typer(no_args_is_help=True, help="Models: list them, get their files, find them, export them.")


@models_app.command("list")
def models_list(as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """Every model there is a name for, and whether its files are here."""
    from emotion_app.models.loader import known_models, model_path

    settings = read_settings()
    rows = [(m, model_path(m.name, settings)) for m in known_models()]
    if as_json:
        sys.stdout.write(
            json.dumps(
                [
                    {"name": m.name, "hub": m.modelscope, "licence": m.licence, "path": str(p) if p else None}
                    for m, p in rows
                ],
                ensure_ascii=False,
            )
            + "\n"
        )
        return
    table = Table("name", "hub id", "licence", "files", box=None, padding=(0, 2))
    for model, path in rows:
        table.add_row(
            model.name,
            model.modelscope or "-",
            model.licence,
            f"[green]{path}[/green]" if path else f"[dim]not here: emotion-app models get {model.name}[/dim]",
        )
    out.print(table)


@models_app.command("get")
def models_get(
    name: str, hub: Annotated[str | None, typer.Option(help="modelscope or huggingface first.")] = None
) -> None:
    """Download a model's files (resumes where it stopped) and convert them."""
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
        path = fetch(
            name, settings, lambda part, what: bar.update(task, description=f"{name} · {what}", completed=part)
        )
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
