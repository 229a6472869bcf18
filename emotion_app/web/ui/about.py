"""The About page: what this is, what scores mean, where the sound goes, where it must not be used."""

from __future__ import annotations

import gradio as gr

from emotion_app.web.i18n import Words
from emotion_app.web.ui.shell import Shell

SECTIONS = ("what", "scores", "privacy", "law", "keys")
EXAMPLE = """```python
from gradio_client import Client, handle_file

result, files = Client("http://127.0.0.1:7860").predict(
    file=handle_file("clip.wav"), granularity="frame",
    embedding="none", model="auto", api_name="/analyze")
```"""


def build(shell: Shell) -> None:
    """Lay the page out inside its tab."""
    with gr.Column(elem_classes="ser-card ser-about"):
        text = gr.Markdown(about_text(shell.first), elem_id="ser-about", buttons=[])
    shell.bind(text, about_text)


def about_text(words: Words) -> str:
    """The page as Markdown."""
    parts = [
        f"## {words('ser_about_what_title')}\n{words('ser_about_what')}",
        f"## {words('ser_about_model_title')}\n{words('ser_about_model_large')}\n\n{words('ser_about_model_lite')}",
    ]
    parts += [f"## {words(f'ser_about_{name}_title')}\n{words(f'ser_about_{name}')}" for name in SECTIONS[1:]]
    parts.append(f"## {words('ser_about_api_title')}\n{words('ser_about_api')}\n\n{EXAMPLE}")
    return "\n\n".join(parts)
