"""Theme and style sheet: calm greys, one saturated button, one colour per emotion, the system's own fonts."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from emotion_app.labels import EMOTIONS

STATIC = Path(__file__).resolve().parent.parent / "static"
FONTS = ["ser-emoji", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "Noto Sans SC", "system-ui", "sans-serif"]
MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]


def read_static(name: str) -> str:
    """A file of ``static/``."""
    return (STATIC / name).read_text("utf-8")


def style_sheet() -> str:
    """Emotion colours from ``labels`` and then the style sheets of the pages."""
    colours = "".join(f"--ser-{e.key}:{e.colour};--ser-{e.key}-ink:{e.ink};" for e in EMOTIONS)
    return f":root{{{colours}}}\n{read_static('app.css')}\n{read_static('live.css')}\n{read_static('calibrate.css')}"


def make_theme() -> gr.themes.Base:
    """Gradio's own parts in the page's colours, light and dark; fonts by name only, so nothing is fetched."""
    theme = gr.themes.Base(primary_hue="blue", neutral_hue="gray", radius_size="lg", font=FONTS, font_mono=MONO)
    return theme.set(
        body_background_fill="#f7f7f5",
        body_background_fill_dark="#121315",
        body_text_color="#1c1d1f",
        body_text_color_dark="#ececec",
        body_text_color_subdued="#5d626a",
        body_text_color_subdued_dark="#9aa0a8",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="#1b1d20",
        background_fill_secondary="#f2f2ef",
        background_fill_secondary_dark="#24272b",
        border_color_primary="#e2e2dd",
        border_color_primary_dark="#2f3338",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        block_border_width="0px",
        block_shadow="none",
        block_padding="0px",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_title_text_color="#5d626a",
        block_title_text_color_dark="#9aa0a8",
        block_title_text_size="13px",
        block_title_text_weight="400",
        color_accent="#2f5bd8",
        button_primary_background_fill="#2f5bd8",
        button_primary_background_fill_dark="#3f6ae6",
        button_primary_background_fill_hover="#2850c0",
        button_primary_background_fill_hover_dark="#4f79f0",
        button_primary_text_color="#ffffff",
        button_primary_border_color="transparent",
        button_primary_border_color_dark="transparent",
        button_secondary_background_fill="#ffffff",
        button_secondary_background_fill_dark="#24272b",
        button_large_radius="10px",
        button_large_text_weight="600",
        layout_gap="18px",
        form_gap_width="0px",
    )
