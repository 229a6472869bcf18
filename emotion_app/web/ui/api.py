"""The endpoints ``/analyze`` and ``/analyze_with_baseline`` for gradio_client and curl.

Names and inputs stay as they are: Gradio refuses a call by curl that lacks the last input, so the baseline, which came
later, has an endpoint of its own.
"""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import gradio as gr

from emotion_app.result_json import result_to_dict
from emotion_app.web.ui.analyze import AUTO, options_of
from emotion_app.web.ui.jobs import Log, as_problem, in_thread
from emotion_app.web.ui.shell import MODEL_SLOT, Shell
from emotion_app.web.ui.sounds import uploaded

ABOUT = (
    "Analyze one clip. file: any sound or video file. granularity: utterance | frame. embedding: none | utterance | "
    "frame. model: auto | emotion2vec_plus_large | lite. Answers with result.json and the files of the result folder."
)
ABOUT_BASELINE = f"{ABOUT} baseline: name of a saved personal baseline; empty for none."


def build(shell: Shell) -> None:
    """Declare the endpoints; their components are never shown."""
    file = gr.File(type="filepath", visible=False)
    granularity = gr.Textbox("utterance", visible=False)
    embedding = gr.Textbox("none", visible=False)
    model = gr.Textbox(AUTO, visible=False)
    baseline = gr.Textbox("", visible=False)
    answer, files = gr.JSON(visible=False), gr.File(file_count="multiple", visible=False)

    async def analyze(
        file: str, granularity: str = "utterance", embedding: str = "none", model: str = AUTO
    ) -> tuple[dict[str, Any], list[str]]:
        return await answer_to(file, granularity, embedding, model, "")

    async def analyze_with_baseline(
        file: str, granularity: str = "utterance", embedding: str = "none", model: str = AUTO, baseline: str = ""
    ) -> tuple[dict[str, Any], list[str]]:
        return await answer_to(file, granularity, embedding, model, baseline)

    async def answer_to(
        file: str, granularity: str, embedding: str, model: str, baseline: str
    ) -> tuple[dict[str, Any], list[str]]:
        cancel = threading.Event()
        try:
            path = uploaded(file, shell.upload_dir)
            options = options_of(granularity, embedding, model, baseline)
            future = in_thread(lambda: shell.jobs.run(path, path.name, options, Log(), cancel))
            result, saved = await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            cancel.set()
            raise
        except Exception as error:
            problem = as_problem(error)
            raise gr.Error(
                f"{problem.code}: {problem.text('en')} / {problem.text('zh')}", print_exception=False
            ) from error
        copies = [files.move_resource_to_block_cache(str(p)) for p in saved.files]  # outputs/ itself is not served
        return {**result_to_dict(result), "folder": saved.name}, [str(Path(c)) for c in copies if c]

    inputs = [file, granularity, embedding, model]
    doors = (
        (analyze, inputs, "analyze", ABOUT),
        (analyze_with_baseline, [*inputs, baseline], "analyze_with_baseline", ABOUT_BASELINE),
    )
    for handler, given, name, about in doors:
        gr.Button(visible=False).click(
            handler,
            given,
            [answer, files],
            api_name=name,
            api_description=about,
            concurrency_id=MODEL_SLOT,
            concurrency_limit=shell.settings.limits.ui_running,
        )
