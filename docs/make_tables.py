"""Write docs/limits.md and the error table of docs/errors.md from the code: ``python -m docs.make_tables``."""

from __future__ import annotations

from pathlib import Path

from emotion_app.errors import PROBLEMS
from emotion_app.settings import Limits, Settings

HERE = Path(__file__).parent


def limits_page() -> str:
    """Every bound with its default and what happens at it; every setting with its name in the environment."""
    rows = [f"| `{name}` | {field.default} | {field.description} |" for name, field in Limits.model_fields.items()]
    settings = [
        f"| `{name}` | `EMOTION_{name.upper()}` | {_default(name, field.default)} | {field.description or ''} |"
        for name, field in Settings.model_fields.items()
        if name != "limits"
    ]
    return "\n".join(
        [
            "# Settings and limits",
            "",
            "Flags win over `EMOTION_*` in the environment, which wins over a TOML file (`emotion.toml` in the working",
            "directory, or the file named by `EMOTION_CONFIG`). This page is written by `python -m docs.make_tables`.",
            "",
            "## Limits",
            "",
            "Set one with `EMOTION_LIMITS__CLIP_S=1200`, or under `[limits]` in the file.",
            "",
            "| limit | default | what happens at it |",
            "|---|---|---|",
            *rows,
            "",
            "## Settings",
            "",
            "| setting | environment | default | meaning |",
            "|---|---|---|---|",
            *settings,
            "",
        ]
    )


def errors_page() -> str:
    """The error table."""
    rows = [f"| `{code}` | {p.http} | {p.exit} | {p.en} | {p.zh} |" for code, p in PROBLEMS.items()]
    return "\n".join(
        [
            "# Errors",
            "",
            "Every door tells the same codes: REST in `error.code`, the command line as its exit code, the page and",
            "the sockets in words. `{...}` is filled with facts. This page is written by `python -m docs.make_tables`.",
            "",
            "| code | HTTP | exit | English | 中文 |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _default(name: str, value: object) -> str:
    return "user cache folder" if name == "models_dir" else f"`{value}`"


if __name__ == "__main__":
    (HERE / "limits.md").write_text(limits_page(), encoding="utf-8")
    (HERE / "errors.md").write_text(errors_page(), encoding="utf-8")
