"""The endpoint ``/analyze`` for gradio_client and curl; its name and inputs stay as they are.

There is no input for a baseline: Gradio refuses calls by curl that lack the last input, so one more would break those
that are in use. The REST door has it.
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


def build(shell: Shell) -> None:
    """Declare the endpoint; its components are never shown."""
    file = gr.File(type="filepath", visible=False)
    granularity = gr.Textbox("utterance", visible=False)
    embedding = gr.Textbox("none", visible=False)
    model = gr.Textbox(AUTO, visible=False)
    answer, files = gr.JSON(visible=False), gr.File(file_count="multiple", visible=False)

    async def analyze(
        file: str, granularity: str = "utterance", embedding: str = "none", model: str = AUTO
    ) -> tuple[dict[str, Any], list[str]]:
        cancel = threading.Event()
        try:
            path = uploaded(file, shell.upload_dir)
            options = options_of(granularity, embedding, model)
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

    gr.Button(visible=False).click(
        analyze,
        [file, granularity, embedding, model],
        [answer, files],
        api_name="analyze",
        api_description=ABOUT,
        concurrency_id=MODEL_SLOT,
        concurrency_limit=shell.settings.limits.ui_running,
    )
