"""The model chip in the header: which model answers, and what state it is in."""

from __future__ import annotations

from html import escape

from emotion_app.pool import ModelStatus
from emotion_app.web.i18n import Words


def chip_html(status: ModelStatus, name: str, words: Words, *, more: bool = False) -> str:
    """One line with a coloured dot: green large, amber embedded, blue on its way, grey not loaded, red failed.

    Args:
        status: of the chosen model.
        name: display name of the choice, for states that do not know the model yet.
        words: the language.
        more: the large model could be fetched instead of the embedded one.
    """
    kind, text = _state(status, name, words)
    if kind == "lite" and more and status.note is not None:
        text = f"{text} · {words('ser_state_could_be_large')}"
    why = status.error.text(words.lang) if status.error else status.note.text(words.lang) if status.note else ""
    title = f' title="{escape(why)}"' if why else ""
    return (
        f'<div class="ser-chip ser-chip-{kind}" role="status"{title}><i aria-hidden="true"></i>'
        f"<span>{escape(text)}</span></div>"
    )


def _state(status: ModelStatus, name: str, words: Words) -> tuple[str, str]:
    percent = f"{status.percent:.0f}"
    if status.state == "failed":
        return "failed", words("ser_state_failed", name=name)
    if status.state in ("downloading", "loading"):
        return "busy", words(f"ser_state_{status.state}", name=name, percent=percent)
    if status.state == "ready" and status.info is not None:
        if status.info.embedded:
            return "lite", words("ser_state_embedded")
        return "ready", words("ser_state_ready", name=_shown(status.info.name, words))
    if status.note is not None and status.note.code == "embedded_model":
        return "lite", words("ser_state_not_loaded_lite")
    return "none", words("ser_state_not_loaded")


def _shown(name: str, words: Words) -> str:
    return words("ser_name_large") if name == "emotion2vec_plus_large" else name
