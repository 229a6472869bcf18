"""``emotion-app baseline``: a speaker's own baseline, made from a few ordinary sentences, and the rule for a model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from emotion_app.cli.common import Device, Engine, Model, Offline, Precision, count_line, err, lang, out
from emotion_app.labels import EMOTIONS
from emotion_app.settings import Settings, read_settings

baseline_app = typer.Typer(
    no_args_is_help=True, help="Speaker baselines: create from a few clips, list, show, delete; fit a model's rule."
)
_WHY = {  # why a clip was not used: en, zh
    "unknown": ("no speech", "不是语音"),
    "silent": ("silent", "静音"),
    "too_short": ("under 1 s", "不足 1 秒"),
}


def _store(settings: Settings):  # noqa: ANN202 - heavy import stays inside
    from emotion_app.baseline_files import BaselineStore

    return BaselineStore(settings.baselines_dir)


@baseline_app.command("create")
def baseline_create(
    clips: Annotated[list[Path], typer.Argument(help="Clips of one speaker with one microphone, oldest first.")],
    name: Annotated[str, typer.Option(help="Name of the baseline.")],
    neutral_share: Annotated[
        float | None,
        typer.Option(help="Part of the clips that is neutral, 0 - 1; default 0.85, for ordinary sentences."),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Over a baseline of the same name.")] = False,
    model: Model = None,
    engine: Engine = None,
    precision: Precision = None,
    device: Device = None,
    offline: Offline = None,
) -> None:
    """Make a baseline: the ten newest clips count, clips without speech are left out, under three it is not used."""
    from emotion_app.analyzer import Analyzer
    from emotion_app.baseline import checked_name
    from emotion_app.enrol import enrol
    from emotion_app.errors import RequestError

    settings = read_settings(model=model, engine=engine, precision=precision, device=device, offline=offline)
    store = _store(settings)
    if checked_name(name) in store.names() and not replace:
        raise RequestError("BASELINE_EXISTS", name=name)
    analyzer = Analyzer(settings)
    try:
        with count_line(name) as tell:
            made = enrol(
                analyzer, clips, name, names=[p.name for p in clips], neutral_share=neutral_share, progress=tell
            )
    finally:
        analyzer.close()
    path = store.save(made.baseline, replace=replace)
    zh = lang() == "zh"
    for said in made.clips:
        if said.used and said.prediction is not None:
            best = said.prediction.emotion
            answer = f"{best.emoji} {best.name(lang())}"
            out.print(f"[green]✓[/green] {escape(said.name)}  [dim]{answer}[/dim]", highlight=False)
        else:
            why = said.error.text(lang()) if said.error else _WHY.get(said.why, (said.why, said.why))[zh]
            out.print(f"[yellow]–[/yellow] {escape(said.name)}  [dim]{escape(why)}[/dim]", highlight=False)
    count, share = made.baseline.count, made.baseline.neutral_share
    text = f"{count} 段，假定中性占 {share:.0%}" if zh else f"{count} clips, taken as {share:.0%} neutral"
    out.print(f"{made.baseline.name}: {text}\n→ {path}", soft_wrap=True, highlight=False)
    if not made.ready:
        short = (f"至少需要 {made.min_clips} 段，目前不会使用" if zh
                 else f"at least {made.min_clips} are needed: it is not used yet")  # fmt: skip
        err.print(f"[yellow]⚠[/yellow] {short}", highlight=False)


@baseline_app.command("list")
def baseline_list(as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """All baselines."""
    from emotion_app.errors import EmotionError

    store = _store(read_settings())
    rows: list[dict[str, object]] = []
    for name in store.names():
        try:
            found = store.open(name)
        except EmotionError as error:
            rows.append({"name": name, "error": error.text(lang())})
            continue
        rows.append({
            "name": name, "count": found.count, "neutral_share": found.neutral_share, "model": found.model,
            "created": found.created.isoformat(timespec="seconds"),
        })  # fmt: skip
    if as_json:
        sys.stdout.write(json.dumps(rows, ensure_ascii=False) + "\n")
        return
    table = Table("name", "clips", "neutral", "model", "created", box=None, padding=(0, 2))
    for row in rows:
        if "error" in row:
            table.add_row(str(row["name"]), f"[red]{row['error']}[/red]")
        else:
            table.add_row(*(str(row[key]) for key in ("name", "count", "neutral_share", "model", "created")))
    out.print(table)


@baseline_app.command("show")
def baseline_show(name: str, as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """One baseline with its nine numbers."""
    found = _store(read_settings()).open(name)
    facts = {
        "name": found.name, "count": found.count, "neutral_share": found.neutral_share, "model": found.model,
        "sha256": found.sha256, "created": found.created.isoformat(timespec="seconds"),
        "mean": {e.key: round(float(v), 4) for e, v in zip(EMOTIONS, found.mean, strict=True)},
    }  # fmt: skip
    if as_json:
        sys.stdout.write(json.dumps(facts, ensure_ascii=False) + "\n")
        return
    table = Table(box=None, show_header=False, padding=(0, 2))
    for key, value in facts.items():
        if isinstance(value, dict):
            for emotion in EMOTIONS:
                table.add_row(f"  {emotion.emoji} {emotion.name(lang())}", f"{value[emotion.key]:+.2f}")
        else:
            table.add_row(key, str(value))
    out.print(table)


@baseline_app.command("delete")
def baseline_delete(name: str) -> None:
    """Take a baseline away."""
    _store(read_settings()).delete(name)


@baseline_app.command("fit")
def baseline_fit(
    manifest: Annotated[Path, typer.Argument(help="Labelled clips with speakers: manifest.csv or EmoBox metadata.")],
    split: Annotated[str, typer.Option(help="Clips of this split, when the list has any; or all.")] = "train",
    root: Annotated[Path | None, typer.Option(help="Where the paths in the list begin.")] = None,
    jobs: Annotated[int, typer.Option(help="Clips in work at once.")] = 2,
    model: Model = None,
    engine: Engine = None,
    precision: Precision = None,
    device: Device = None,
    offline: Offline = None,
) -> None:
    """Estimate the rule's numbers for a model that has none (emotion2vec); used from then on with these weights."""
    from emotion_app.analyzer import Analyzer
    from emotion_app.baseline_files import save_rule
    from emotion_app.enrol import fit_rule
    from emotion_app.manifest import read_manifest

    settings = read_settings(model=model, engine=engine, precision=precision, device=device, offline=offline)
    listed = read_manifest(manifest, root=root)
    analyzer = Analyzer(settings)
    try:
        with count_line(manifest.name) as tell:
            rule, info, failed = fit_rule(
                analyzer, listed, split=None if split == "all" else split, jobs=jobs, progress=tell
            )
    finally:
        analyzer.close()
    for line in failed:
        err.print(f"[yellow]⚠[/yellow] {escape(line)}", highlight=False)
    path = save_rule(rule, info, settings.models_dir)
    table = Table("", "g", "d", "b", box=None, padding=(0, 2))
    for emotion, *numbers in zip(EMOTIONS, rule.g, rule.d, rule.b, strict=True):
        table.add_row(f"{emotion.emoji} {emotion.name(lang())}", *(f"{value:+.2f}" for value in numbers))
    out.print(table)
    out.print(f"{info.name} · {rule.source}\n→ {path}", soft_wrap=True, highlight=False)
