"""The sound input: drop, choose, record or take an example. One component of our own.

``gr.Audio`` refuses webm and video, records through the browser's voice processing, and its words follow the browser
instead of the switch. This one sends any file through Gradio's own upload route and records plain PCM
(``static/sound_input.js``). Its value is ``{"path", "name"}``, ``{"example"}`` or None; see ``sounds.resolve_sound``.
"""

from __future__ import annotations

from html import escape

import gradio as gr

from emotion_app.settings import Limits
from emotion_app.web.i18n import Words
from emotion_app.web.ui.player import PLAY_ICON
from emotion_app.web.ui.sounds import Example
from emotion_app.web.ui.theme import read_static

EXAMPLES_URL = "app-examples"
ACCEPT = (
    "audio/*,video/*,.wav,.mp3,.m4a,.aac,.flac,.ogg,.oga,.opus,.webm,.weba,.amr,.wma,.aiff,.aif,.au,.caf,"
    ".mp4,.mov,.mkv,.avi,.3gp,.ts"
)
UPLOAD_ICON = (
    '<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M12 16V5m0 0L7.5 9.5M12 5l4.5 4.5'
    'M4 15.5V18a2 2 0 0 0 2 2h12a2 2 0 0 0 2-2v-2.5"/></svg>'
)


def make_sound_input(
    words: Words, limits: Limits, examples: tuple[Example, ...], elem_id: str = "ser-sound"
) -> gr.HTML:
    """The component; its markup is the prop ``markup``, sent again when the language changes.

    With another ``elem_id`` each sound is submitted as soon as it is there, and the next one is taken when the value
    is set to None.
    """
    return gr.HTML(
        value=None,
        html_template="${markup}",
        js_on_load=read_static("sound_input.js"),
        apply_default_css=False,
        elem_id=elem_id,
        markup=sound_markup(words, limits, examples),
    )


def sound_markup(words: Words, limits: Limits, examples: tuple[Example, ...]) -> str:
    """Markup in one language; texts that the script needs are data attributes."""
    said = {
        "max-mb": f"{limits.upload_mb:g}",
        "max-s": f"{limits.clip_s:g}",
        "too-large": words("ser_in_too_large", mb=f"{limits.upload_mb:g}"),
        "uploading": words("ser_in_uploading"),
        "upload-failed": words("ser_in_upload_failed"),
        "no-mic": words("ser_in_no_mic"),
        "denied": words("ser_in_mic_denied"),
        "insecure": words("ser_in_mic_insecure"),
        "no-preview": words("ser_in_no_preview"),
        "recording": words("ser_in_recording_name"),
        "play": words("ser_play"),
        "pause": words("ser_pause"),
        "seconds": words("ser_seconds", seconds="{s}"),
    }
    data = " ".join(f'data-{key}="{escape(text)}"' for key, text in said.items())

    def text(key: str, **facts: object) -> str:
        return escape(words(key, **facts))

    best = text("ser_in_best", mb=f"{limits.upload_mb:g}", minutes=f"{limits.clip_s / 60:g}")
    return (
        f'<div class="ser-input" {data}>'
        f'<div class="ser-row"><label class="ser-drop">'
        f'<input type="file" accept="{ACCEPT}" aria-label="{text("ser_in_choose")}">{UPLOAD_ICON}'
        f"<b>{text('ser_in_drop')}</b><span>{text('ser_in_formats')}</span><span>{best}</span></label>"
        f'<button type="button" class="ser-rec"><i aria-hidden="true">🎙</i> {text("ser_in_record")}</button></div>'
        f'<div class="ser-recording"><span class="ser-dot" aria-hidden="true"></span>'
        f'<span class="ser-clock">0:00</span><span class="ser-level" aria-hidden="true"><b></b></span>'
        f'<button type="button" class="ser-rec-stop">{text("ser_in_stop")}</button>'
        f'<button type="button" class="ser-rec-drop">{text("ser_in_discard")}</button></div>'
        f'<div class="ser-chosen"><button type="button" class="ser-preview" aria-label="{text("ser_play")}">'
        f'{PLAY_ICON}</button><div class="ser-file"><b></b><small></small></div><canvas aria-hidden="true"></canvas>'
        f'<button type="button" class="ser-remove" aria-label="{text("ser_in_remove")}" '
        f'title="{text("ser_in_remove")}">✕</button></div>'
        f'<p class="ser-trouble" role="alert"></p>{_examples(words, examples)}</div>'
    )


def _examples(words: Words, examples: tuple[Example, ...]) -> str:
    """Chips for the clips in the page's language, and the long one whose style changes."""
    shown = [e for e in examples if e.language == words.lang or e.style == "changing"]
    if not shown:
        return ""
    chips = "".join(
        f'<button type="button" class="ser-example" data-example="{escape(e.path.name)}" '
        f'data-url="{EXAMPLES_URL}/{escape(e.path.name)}" data-title="{escape(e.title(words.lang))}" '
        f'title="{escape(e.title(words.lang))} · {words("ser_seconds", seconds=f"{e.duration_s:.1f}")}">'
        f"{escape(e.short(words.lang))}</button>"
        for e in shown
    )
    return (
        f'<div class="ser-examples"><span>📝 {escape(words("ser_in_examples"))} '
        f"<small>{escape(words('ser_in_synthetic'))}</small></span>{chips}</div>"
    )
