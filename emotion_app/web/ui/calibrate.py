"""The Calibrate page: a few ordinary sentences become a personal baseline; the saved ones, to choose and to delete.

Here are the handlers; what the page shows is drawn by ``calibrate_view``. The sentences go into a draft, kept for each
open page, until they are saved under a name; the sound itself is not kept.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import gradio as gr

from emotion_app.baseline import NAME_MAX, checked_name
from emotion_app.enrol import Said, enrol
from emotion_app.errors import EmotionError
from emotion_app.web.i18n import Words
from emotion_app.web.ui.analyze import LITE, QUIET, Parts, options_of
from emotion_app.web.ui.baseline_choice import choice_markup
from emotion_app.web.ui.calibrate_view import Draft, list_html, said_html, say_html, takes_html, told_html, why_html
from emotion_app.web.ui.jobs import as_problem, in_thread
from emotion_app.web.ui.shell import MODEL_SLOT, Shell
from emotion_app.web.ui.sound_input import make_sound_input, sound_markup
from emotion_app.web.ui.sounds import resolve_sound, uploaded
from emotion_app.web.ui.theme import read_static

UNNAMED = "draft"  # a baseline has a name from the first sentence on; the person's comes at the end
TAKES_SHOWN = 10


def build(shell: Shell, analyze: Parts, tabs: gr.Tabs) -> None:
    """Lay the page out inside its tab and connect it.

    Args:
        shell: services and language switch.
        analyze: the Analyze page, whose model is calibrated and whose choice of a baseline is filled here.
        tabs: to go there and back.
    """
    words, script = shell.first, read_static("calibrate.js")
    draft = gr.State(Draft())
    why = gr.HTML(why_html(words), apply_default_css=False)
    with gr.Row(elem_classes="ser-columns"):
        with gr.Column(scale=6, min_width=300, elem_classes="ser-card ser-say"):
            say = gr.HTML(say_html(Draft(), words), apply_default_css=False, elem_id="ser-say")
            sound = make_sound_input(words, shell.settings.limits, (), elem_id="ser-sentence")
            takes = gr.HTML("", js_on_load=script, apply_default_css=False, elem_id="ser-takes")
        with gr.Column(scale=6, min_width=300, elem_classes="ser-get"):
            with gr.Column(elem_classes="ser-card ser-say"):
                name = gr.Textbox(label=words("ser_calibrate_name"), placeholder=words("ser_calibrate_name_example"),
                                  max_length=NAME_MAX, elem_id="ser-name")  # fmt: skip
                save = gr.Button(words("ser_calibrate_save"), variant="primary", size="lg", interactive=False,
                                 elem_id="ser-save")  # fmt: skip
                told = gr.HTML("", js_on_load=script, apply_default_css=False, elem_id="ser-told")
            with gr.Column(elem_classes="ser-card"):
                saved = gr.HTML("", js_on_load=script, apply_default_css=False, elem_id="ser-saved")
    baselines = shell.jobs.analyzer.baselines
    shell.bind(why, why_html)
    shell.bind(say, lambda w, d: say_html(d, w), [draft])
    shell.bind(sound, lambda w: gr.HTML(markup=sound_markup(w, shell.settings.limits, ())))
    shell.bind(takes, lambda w, d: takes_html(d, w), [draft])
    shell.bind(name, lambda w: gr.Textbox(label=w("ser_calibrate_name"), placeholder=w("ser_calibrate_name_example")))
    shell.bind(save, lambda w: gr.Button(w("ser_calibrate_save")))
    shell.bind(told, lambda w, d: told_html(d, w), [draft])
    shell.bind(saved, lambda w: list_html(baselines, w))
    shell.bind(analyze.baseline, lambda w: gr.HTML(markup=choice_markup(baselines.names(), w)))
    drawn = [draft, say, takes, told, save]
    _connect_sentences(shell, analyze, sound, drawn)
    _connect_saved(shell, analyze, drawn, name, saved)
    analyze.baseline.submit(lambda: gr.Tabs(selected="calibrate"), None, tabs, queue=False, **QUIET)

    def leave(event: gr.EventData) -> gr.Tabs:
        return gr.Tabs(selected="analyze") if _text(event, "act") == "go" else gr.Tabs()

    told.submit(leave, None, tabs, queue=False, **QUIET)


def _connect_sentences(shell: Shell, analyze: Parts, sound: gr.HTML, drawn: list[Any]) -> None:
    """A sentence that arrives is listened to at once; the input is cleared for the next one."""
    draft, _, takes = drawn[:3]

    async def page_sentence(
        lang: str, draft: Draft, model: str, other: object, event: gr.EventData
    ) -> AsyncIterator[list[Any]]:
        words, given = shell.said(lang), {"path": _text(event, "path"), "name": _text(event, "name")}
        listening = replace(draft, listening=given["name"] or "?", problem=None, saved="")
        yield [*draw(listening, words), gr.HTML()]
        heard = await asyncio.wrap_future(in_thread(lambda: hear(shell, draft, given, model)))
        if not isinstance(other, dict) or other.get("path") != given["path"]:  # the Analyze page may hold the same file
            drop(shell, given["path"])
        yield [*draw(heard, words), gr.HTML(value=None)]

    def act(lang: str, draft: Draft, model: str, event: gr.EventData) -> list[Any]:
        if _text(event, "act") == "lite":
            return [*draw(replace(draft, problem=None), shell.said(lang)), LITE]
        return [*draw(Draft(), shell.said(lang)), model]

    slot: dict[str, Any] = {"concurrency_id": MODEL_SLOT, "concurrency_limit": shell.settings.limits.ui_running}
    given = [shell.lang, draft, analyze.model]
    sound.submit(page_sentence, [*given, analyze.sound], [*drawn, sound], **QUIET, **slot)
    takes.submit(act, given, [*drawn, analyze.model], queue=False, **QUIET)


def _connect_saved(shell: Shell, analyze: Parts, drawn: list[Any], name: gr.Textbox, saved: gr.HTML) -> None:
    baselines = shell.jobs.analyzer.baselines
    draft, _, _, told, save = drawn
    outputs = [*drawn, name, saved, analyze.baseline]

    def keep(lang: str, draft: Draft, name: str, over: bool = False) -> list[Any]:
        words = shell.said(lang)
        after = save_draft(shell, draft, str(name), over=over)
        if after.saved:
            choice = gr.HTML(markup=choice_markup(baselines.names(), words), value=after.saved)
            return [*draw(after, words), gr.Textbox(value=""), list_html(baselines, words), choice]
        return [*draw(after, words), gr.Textbox(), gr.HTML(), gr.HTML()]

    def answered(lang: str, draft: Draft, name: str, event: gr.EventData) -> list[Any]:
        if _text(event, "act") == "replace":
            return keep(lang, draft, name, over=True)
        return [*draw(replace(draft, problem=None, saved=""), shell.said(lang)), gr.Textbox(), gr.HTML(), gr.HTML()]

    def remove(lang: str, event: gr.EventData) -> list[Any]:
        words = shell.said(lang)
        try:
            baselines.delete(_text(event, "name"))
            trouble = ""
        except EmotionError as error:
            trouble = said_html(error.text(words.lang), "no")
        return [trouble + list_html(baselines, words), gr.HTML(markup=choice_markup(baselines.names(), words))]

    given = [shell.lang, draft, name]
    save.click(keep, given, outputs, queue=False, **QUIET)
    name.submit(keep, given, outputs, queue=False, **QUIET)
    told.submit(answered, given, outputs, queue=False, **QUIET)
    saved.submit(remove, [shell.lang], [saved, analyze.baseline], queue=False, **QUIET)


def draw(draft: Draft, words: Words) -> list[Any]:
    """Updates of draft, sentence, list of what was heard, message and button."""
    return [draft, say_html(draft, words), takes_html(draft, words), told_html(draft, words),
            gr.Button(interactive=draft.ready)]  # fmt: skip


def hear(shell: Shell, draft: Draft, sound: object, model: str) -> Draft:
    """Listen to one sentence. Blocks.

    Args:
        shell: whose analyzer does the work.
        draft: what there is so far.
        sound: what the sound input sent, not trusted.
        model: one of ``analyze.MODEL_CHOICES``.

    Returns:
        The draft with one more sentence accepted or refused, or with a problem that is not the sentence's.
    """
    limits = shell.settings.limits
    try:
        found = resolve_sound(sound, (), shell.upload_dir)
        made = enrol(
            shell.jobs.analyzer, [found.path], UNNAMED, names=[found.name], start=draft.baseline, isolated=True,
            model=options_of("utterance", "none", model).model, max_s=limits.clip_s, deadline_s=limits.deadline_s,
        )  # fmt: skip
    except EmotionError as error:
        if error.code != "BASELINE_EMPTY":
            return replace(draft, problem=error, saved="")
        why, cause = str(error.facts.get("why", "")), error.__cause__
        refused = Said(found.name, False, None, why, cause if isinstance(cause, EmotionError) else None)
        return replace(draft, takes=(*draft.takes, refused)[-TAKES_SHOWN:], problem=None, saved="")
    except Exception as error:  # noqa: BLE001 - the page must say something; the log has the rest
        return replace(draft, problem=as_problem(error), saved="")
    takes = (*draft.takes, *made.clips)[-TAKES_SHOWN:]
    return Draft(made.baseline, takes, least=made.min_clips or draft.least)


def drop(shell: Shell, path: str) -> None:
    """Delete an upload: of a sentence nothing but its numbers is kept."""
    with contextlib.suppress(EmotionError, OSError):  # it may be gone, or was never an upload
        uploaded(path, shell.upload_dir).unlink()


def save_draft(shell: Shell, draft: Draft, name: str, *, over: bool = False) -> Draft:
    """Save under a name; an empty draft that tells the name afterwards, or the same with a problem.

    Args:
        shell: whose store is used.
        draft: with enough sentences, else nothing happens.
        name: as typed.
        over: in place of one of the same name.
    """
    if draft.baseline is None or not draft.ready:
        return replace(draft, problem=None, saved="")
    try:
        baseline = replace(draft.baseline, name=checked_name(name.strip()))
        shell.jobs.analyzer.baselines.save(baseline, replace=over)
    except EmotionError as error:
        return replace(draft, problem=error, saved="")
    return Draft(saved=baseline.name, least=draft.least, kept=baseline.count)


def _text(event: gr.EventData, key: str) -> str:
    """A text that the page's script sent along; it comes from the client."""
    value = getattr(event, key, "")
    return value if isinstance(value, str) else ""
