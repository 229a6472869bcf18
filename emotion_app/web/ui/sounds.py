"""Which file a request means: an upload of this process or one of the examples, never another path."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from emotion_app.errors import AccessError, RequestError
from emotion_app.labels import Lang

EXAMPLES_DIR = Path(__file__).resolve().parents[3] / "examples" / "clips"


@dataclass(frozen=True)
class Example:
    """A clip that the project made itself (speech synthesis).

    Attributes:
        language: what is spoken.
        style: how, e.g. ``cheerful``; ``changing`` is the long one for the timeline.
        zh: title, ``who · how``.
        en: the same in English.
    """

    path: Path
    language: str
    style: str
    duration_s: float
    zh: str
    en: str

    def title(self, lang: Lang) -> str:
        """The whole title."""
        return self.zh if lang == "zh" else self.en

    def short(self, lang: Lang) -> str:
        """How it is spoken: the part of the title behind the dot."""
        how = self.title(lang).rpartition(" · ")[2]
        return how[:1].upper() + how[1:]


@dataclass(frozen=True)
class Sound:
    """A file to analyze, and its name for people (untrusted text)."""

    path: Path
    name: str


def load_examples(folder: Path = EXAMPLES_DIR) -> tuple[Example, ...]:
    """The examples listed in ``clips.json``; none when the folder is not part of this installation."""
    index = folder / "clips.json"
    if not index.is_file():
        return ()
    rows = json.loads(index.read_text("utf-8"))
    return tuple(
        Example(
            folder / row["file"], row["language"], row["style"], row["duration_s"], row["title_zh"], row["title_en"]
        )
        for row in rows
        if (folder / row["file"]).is_file()
    )


def resolve_sound(payload: object, examples: tuple[Example, ...], upload_dir: Path) -> Sound:
    """The file that the page's sound input names.

    Gradio checks paths in its own components only; this is the check for ours.

    Args:
        payload: ``{"path", "name"}`` of an upload, ``{"example"}``, or nothing.
        examples: what may be named.
        upload_dir: the only folder that uploads are in.

    Raises:
        RequestError: NO_INPUT, NOT_FOUND.
        AccessError: FORBIDDEN_PATH for any path that is not an upload.
    """
    if not isinstance(payload, dict):
        raise RequestError("NO_INPUT")
    wanted = payload.get("example")
    if isinstance(wanted, str):
        for example in examples:
            if example.path.name == wanted:
                return Sound(example.path, wanted)
        raise RequestError("NOT_FOUND", what=wanted[:80])
    path, name = payload.get("path"), payload.get("name")
    if not isinstance(path, str) or not path:
        raise RequestError("NO_INPUT")
    return Sound(uploaded(path, upload_dir), name if isinstance(name, str) and name else Path(path).name)


def uploaded(path: str, upload_dir: Path) -> Path:
    """``path``, if it is a plain file in the upload folder.

    Raises:
        AccessError: FORBIDDEN_PATH.
    """
    try:
        real = Path(path).resolve(strict=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise AccessError("FORBIDDEN_PATH") from error
    if not real.is_relative_to(upload_dir.resolve()) or not real.is_file():
        raise AccessError("FORBIDDEN_PATH")
    return real
