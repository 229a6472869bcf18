"""Mounts the page on the application with every door of Gradio closed that is not needed."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
from fastapi import FastAPI
from gradio.utils import get_upload_folder

from emotion_app.settings import Settings
from emotion_app.web.i18n import load_words
from emotion_app.web.ui.jobs import Jobs
from emotion_app.web.ui.page import build_page
from emotion_app.web.ui.shell import Shell
from emotion_app.web.ui.sounds import load_examples
from emotion_app.web.ui.theme import make_theme, read_static, style_sheet


def mount_page(app: FastAPI, settings: Settings, jobs: Jobs) -> None:
    """Build the page and mount it at ``/``; must be the last route of ``app``.

    Args:
        app: the application.
        settings: limits and the rest.
        jobs: runs the analyses.
    """
    shell = Shell(settings, jobs, load_words(), load_examples(), Path(get_upload_folder()))
    demo = build_page(shell)
    demo.queue(max_size=settings.limits.ui_clients, default_concurrency_limit=settings.limits.ui_running)
    gr.mount_gradio_app(
        app,
        demo,
        path="/",
        server_name=settings.host,
        server_port=settings.port,
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=int(settings.limits.upload_mb * 1_000_000),
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=make_theme(),
        # in <head>, not as `css=`: Gradio rewrites selectors there, and those inside @media were lost
        head=f"<style>{style_sheet()}</style><script>{read_static('shell.js')}</script>",
    )
    # Mounted Blocks count as "not launched", and then Gradio 6.31 skips its check of file paths: any readable file of
    # the machine could be fetched (processing_utils._check_allowed). tests/web/test_paths.py guards this line.
    demo.has_launched = True
