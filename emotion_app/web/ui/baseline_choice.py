"""Which personal baseline the Analyze page uses: a native list, remembered by the browser.

Its value is a name or empty. ``gr.Dropdown`` would refuse a name that was saved after the page was opened, and says so
in English only.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import gradio as gr

from emotion_app.web.i18n import Words
from emotion_app.web.ui.theme import read_static


def make_baseline_choice(words: Words) -> gr.HTML:
    """The component; its names are the prop ``markup``, sent when the page opens and whenever they change."""
    return gr.HTML(
        value="",
        html_template="${markup}",
        js_on_load=read_static("baseline_choice.js"),
        apply_default_css=False,
        elem_id="ser-baseline",
        markup=choice_markup((), words),
    )


def choice_markup(names: Sequence[str], words: Words) -> str:
    """The list in one language; the script marks what is chosen."""
    options = "".join(f'<option value="{escape(name)}">{escape(name)}</option>' for name in names)
    return (
        f'<div class="ser-baseline"><label for="ser-baseline-list">{escape(words("ser_calibrate_choice"))}</label>'
        f'<div><select id="ser-baseline-list"><option value="">{escape(words("ser_calibrate_none"))}</option>{options}'
        f'</select><button type="button" data-act="calibrate">{escape(words("ser_calibrate_go"))}</button></div></div>'
    )
