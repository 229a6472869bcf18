"""The page: header and tabs around the modules of this folder."""

from __future__ import annotations

import gradio as gr

from emotion_app.web.i18n import DEFAULT_LANG
from emotion_app.web.ui import about, analyze, api, calibrate, live
from emotion_app.web.ui.shell import Shell

TITLE = "语音情感识别 · Speech Emotion Recognition"  # until the browser's language is known
CACHE_EVERY_S, CACHE_AGE_S = 3600, 86400  # uploads are looked through each hour, those of yesterday go


def build_page(shell: Shell) -> gr.Blocks:
    """All pages in one Blocks; a later page is one more tab that calls its module's ``build``."""
    words = shell.first
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(CACHE_EVERY_S, CACHE_AGE_S)) as demo:
        with gr.Row(elem_id="ser-header", equal_height=False):
            brand = gr.HTML(_brand(words("ser_title")), elem_id="ser-brand", apply_default_css=False)
            chip = gr.HTML("", elem_id="ser-chip", apply_default_css=False)
            shell.lang = gr.Radio(
                [("中文", "zh"), ("EN", "en")],
                value=DEFAULT_LANG,
                label=words("ser_language"),
                show_label=False,
                container=False,
                min_width=0,
                elem_id="ser-lang",
                elem_classes="ser-segmented",
            )
        shell.bind(brand, lambda w: _brand(w("ser_title")))
        with gr.Tabs(elem_id="ser-tabs") as tabs:
            with gr.Tab(words("ser_tab_analyze"), id="analyze") as tab:
                parts = analyze.build(shell, chip)
            shell.bind(tab, lambda w: gr.Tab(w("ser_tab_analyze")))
            with gr.Tab(words("ser_tab_live"), id="live", elem_id="ser-live-tab") as tab:
                live.build(shell)
            shell.bind(tab, lambda w: gr.Tab(w("ser_tab_live")))
            with gr.Tab(words("ser_tab_calibrate"), id="calibrate", elem_id="ser-calibrate-tab") as tab:
                calibrate.build(shell, parts, tabs)
            shell.bind(tab, lambda w: gr.Tab(w("ser_tab_calibrate")))
            with gr.Tab(words("ser_tab_about"), id="about") as tab:
                about.build(shell)
            shell.bind(tab, lambda w: gr.Tab(w("ser_tab_about")))
        api.build(shell)
        shell.bind_switch(demo)

        def left(request: gr.Request) -> None:
            shell.forget(request.session_hash or "")

        demo.unload(left)
    return demo


def _brand(title: str) -> str:
    return f"<h1>{title}</h1>"
