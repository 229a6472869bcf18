"""The Analyze page: left what I give, right what I get."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from emotion_app.analyzer import Options
from emotion_app.errors import EmotionError, RequestError
from emotion_app.web.i18n import Words
from emotion_app.web.ui.baseline_choice import make_baseline_choice
from emotion_app.web.ui.chip import chip_html
from emotion_app.web.ui.render import render
from emotion_app.web.ui.shell import MODEL_SLOT, Shell
from emotion_app.web.ui.sound_input import make_sound_input, sound_markup
from emotion_app.web.ui.sounds import resolve_sound
from emotion_app.web.ui.theme import read_static
from emotion_app.web.ui.views import Done, Empty, Failed, Running, View

LARGE, LITE, AUTO = "emotion2vec_plus_large", "lite", "auto"
MODEL_CHOICES = (AUTO, LARGE, LITE)  # all that a client may name: a path or a hub id would make the server load it
CHIP_EVERY_S = 2.0
# Pressed while a file is still being sent: wait for it, instead of saying that there is none.
WAIT_FOR_UPLOAD = "async (...a) => { if (window.serSending) a[1] = (await window.serSending) || a[1]; return a; }"
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


@dataclass(frozen=True)
class Parts:
    """Components of the page that its handlers and the Calibrate page use."""

    sound: gr.HTML
    granularity: gr.Radio
    embedding: gr.Checkbox
    model: gr.Radio
    go: gr.Button
    stop: gr.Button
    result: gr.HTML
    view: gr.State
    baseline: gr.HTML

    @property
    def inputs(self) -> list[Any]:
        """What an analysis is asked with."""
        return [self.sound, self.granularity, self.embedding, self.model, self.baseline]


def build(shell: Shell, chip: gr.HTML) -> Parts:
    """Lay the page out inside its tab and connect it.

    Args:
        shell: services and language switch.
        chip: the model chip in the header, which shows the model chosen here.
    """
    words = shell.first
    view = gr.State(Empty())
    with gr.Row(elem_classes="ser-columns"):
        with gr.Column(scale=5, min_width=300, elem_classes="ser-give"):
            with gr.Column(elem_classes="ser-card"):
                sound = make_sound_input(words, shell.settings.limits, shell.examples)
            with gr.Column(elem_classes="ser-card ser-options"):
                granularity = gr.Radio(
                    _granularities(words),
                    value="utterance",
                    label=words("ser_granularity"),
                    elem_id="ser-granularity",
                    elem_classes="ser-segmented",
                )
                embedding = gr.Checkbox(
                    False, label=words("ser_embedding"), elem_id="ser-embedding", elem_classes="ser-switch"
                )
                model = gr.Radio(
                    _models(shell, words),
                    value=AUTO,
                    label=words("ser_model"),
                    elem_id="ser-model",
                    elem_classes="ser-segmented",
                )
                baseline = make_baseline_choice(words)
                go = gr.Button(words("ser_analyze"), variant="primary", size="lg", elem_id="ser-analyze")
                stop = gr.Button(words("ser_stop"), variant="secondary", size="lg", elem_id="ser-stop", visible=False)
                privacy = gr.HTML(_privacy(words))
        with gr.Column(scale=7, min_width=300, elem_classes="ser-get"):
            result = gr.HTML(
                render(Empty(), words),
                js_on_load=read_static("player.js"),
                apply_default_css=False,
                elem_id="ser-result",
            )
    parts = Parts(sound, granularity, embedding, model, go, stop, result, view, baseline)
    shell.bind(sound, lambda w: gr.HTML(markup=sound_markup(w, shell.settings.limits, shell.examples)))
    shell.bind(granularity, lambda w: gr.Radio(label=w("ser_granularity"), choices=_granularities(w)))
    shell.bind(embedding, lambda w: gr.Checkbox(label=w("ser_embedding")))
    shell.bind(model, lambda w: gr.Radio(label=w("ser_model"), choices=_models(shell, w)))
    shell.bind(go, lambda w: gr.Button(w("ser_analyze")))
    shell.bind(stop, lambda w: gr.Button(w("ser_stop")))
    shell.bind(privacy, _privacy)
    shell.bind(result, lambda w, shown: render(shown, w), [view])
    shell.bind(chip, lambda w, chosen: _chip(shell, chosen, w), [model])
    _connect(shell, parts, chip)
    return parts


def _connect(shell: Shell, parts: Parts, chip: gr.HTML) -> None:
    outputs = [parts.result, parts.view, parts.go, parts.stop]

    async def page_analyze(
        lang: str, sound: object, granularity: str, embedding: bool, model: str, baseline: object, request: gr.Request
    ) -> AsyncIterator[list[Any]]:
        session = request.session_hash or ""
        async for view in _analysis(shell, session, lang, sound, granularity, embedding, model, baseline):
            running = isinstance(view, Running) or (isinstance(view, Done) and not view.folder)
            yield [
                render(view, shell.spoken(session, lang)),
                view,
                gr.Button(visible=not running),
                gr.Button(visible=running),
            ]

    def look(lang: str, model: str) -> str:
        return _chip(shell, model, shell.said(lang))

    def choose(event: gr.EventData) -> Any:
        model = gr.Radio(value=LITE) if event.act == "lite" else gr.Radio()
        return model, gr.HTML(value="") if event.act == "plain" else gr.HTML()

    def stop(request: gr.Request) -> None:
        shell.jobs.cancel(request.session_hash or "")

    slot: dict[str, Any] = {"concurrency_id": MODEL_SLOT, "concurrency_limit": shell.settings.limits.ui_running}
    inputs = [shell.lang, *parts.inputs]
    parts.go.click(page_analyze, inputs, outputs, js=WAIT_FOR_UPLOAD, **QUIET, **slot).then(
        look, [shell.lang, parts.model], chip, queue=False, **QUIET
    )
    parts.result.submit(choose, None, [parts.model, parts.baseline], queue=False, **QUIET).then(
        page_analyze, inputs, outputs, **QUIET, **slot
    )
    parts.stop.click(stop, None, None, queue=False, **QUIET)
    parts.model.change(look, [shell.lang, parts.model], chip, queue=False, **QUIET)
    gr.Timer(CHIP_EVERY_S).tick(look, [shell.lang, parts.model], chip, queue=False, **QUIET)


async def _analysis(
    shell: Shell,
    session: str,
    lang: str,
    sound: object,
    granularity: str,
    embedding: bool,
    model: str,
    baseline: object,
) -> AsyncIterator[View]:
    """Views of one analysis; every failure is one of them."""
    try:
        found = resolve_sound(sound, shell.examples, shell.upload_dir)
        options = options_of(granularity, "utterance" if embedding else "none", model, baseline)
    except EmotionError as error:
        yield Failed(error, str(model))
        return
    async for view in shell.jobs.watch(session, found.path, found.name, options, shell.said(lang).lang):
        yield view


def options_of(granularity: str, embedding: str, model: str, baseline: object = None) -> Options:
    """Options of a request.

    Raises:
        RequestError: BAD_OPTION; also for a model that is not one of MODEL_CHOICES.
    """
    if model not in MODEL_CHOICES:
        raise RequestError("BAD_OPTION", option="model", value=str(model)[:80], choices=", ".join(MODEL_CHOICES))
    name = baseline if isinstance(baseline, str) and baseline else None
    return Options(granularity, embedding, None if model == AUTO else model, baseline=name)  # type: ignore[arg-type]  # checked there


def _granularities(words: Words) -> list[tuple[str, str]]:
    return [(words("ser_granularity_utterance"), "utterance"), (words("ser_granularity_frame"), "frame")]


def _models(shell: Shell, words: Words) -> list[tuple[str, str]]:
    """``auto`` stands for the setting, which may name another model."""
    first = words("ser_model_auto" if shell.settings.model == AUTO else "ser_model_default")
    return [(first, AUTO), (words("ser_model_large"), LARGE), (words("ser_model_lite"), LITE)]


def _chip(shell: Shell, model: object, words: Words) -> str:
    wanted = None if model not in (LARGE, LITE) else str(model)
    status = shell.jobs.analyzer.status(wanted)
    embedded = status.note is not None or LITE in (wanted, shell.settings.model)  # a note says who stands in
    name = words("ser_name_lite" if embedded else "ser_name_large")
    return chip_html(status, name, words, more=not shell.settings.offline)


def _privacy(words: Words) -> str:
    return f'<p class="ser-private">🔒 {words("ser_privacy_line")}</p>'
