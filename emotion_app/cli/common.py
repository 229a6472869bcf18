"""What every command shares: consoles, language, options, progress line."""

from __future__ import annotations

import locale
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from emotion_app.labels import Lang

out = Console()
err = Console(stderr=True)

Model = Annotated[str | None, typer.Option("--model", "-m", help="auto, lite, a known name, a directory or a hub id.")]
Precision = Annotated[str | None, typer.Option(help="auto, fp32, bf16 or fp16.")]
Engine = Annotated[str | None, typer.Option(help="torch, funasr (reference) or onnx.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 ...")]
Offline = Annotated[bool | None, typer.Option("--offline/--online", help="Never ask a hub.")]


def lang() -> Lang:
    """Language of messages in the terminal: EMOTION_LANG or the locale."""
    name = (
        os.environ.get("EMOTION_LANG")
        or os.environ.get("LC_ALL")
        or os.environ.get("LANG")
        or (locale.getlocale()[0] or "")
    )
    return "zh" if name.lower().startswith(("zh", "chinese")) else "en"


@contextmanager
def progress_line(title: str, *, show: bool) -> Iterator[Callable[[Any], None]]:
    """A progress line on stderr, only where somebody looks."""
    if not show or not err.is_terminal:
        yield lambda progress: None
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        console=err,
        transient=True,
    ) as bar:
        task = bar.add_task(title, total=1.0)
        yield lambda p: bar.update(task, description=f"{title} · {p.step}", completed=p.fraction)


@contextmanager
def count_line(title: str) -> Iterator[Callable[[int, int], None]]:
    """A progress line on stderr for many clips, called with (done, all); only where somebody looks."""
    if not err.is_terminal:
        yield lambda done, total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
