"""REST: ``POST /api/v1/analyze`` and the stored results. Same road and same numbers as every other door."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Form, Query, UploadFile
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from emotion_app.analyzer import Analyzer, Options
from emotion_app.charts import result_charts
from emotion_app.errors import AudioError, EmotionError, ModelError
from emotion_app.labels import Lang
from emotion_app.metrics import Metrics
from emotion_app.models.loader import known_models, resolve
from emotion_app.result_json import result_to_dict
from emotion_app.settings import Settings
from emotion_app.store import Store
from emotion_app.types import Result

COPY_BYTES = 1 << 20
LOOK_S = 0.5  # how often a running analysis looks whether its client is still there


def make_router(settings: Settings, analyzer: Analyzer, store: Store, metrics: Metrics) -> APIRouter:
    """Routes under ``/api/v1``.

    Args:
        settings: limits.
        analyzer: who computes.
        store: where results are kept when ``save`` is asked for.
        metrics: where answers and failures are counted.
    """
    router = APIRouter(prefix="/api/v1")
    _add_analysis(router, settings, analyzer, store, metrics)
    _add_results(router, store)
    return router


def _add_analysis(router: APIRouter, settings: Settings, analyzer: Analyzer, store: Store, metrics: Metrics) -> None:
    @router.post("/analyze")
    async def analyze(
        request: Request,
        file: Annotated[UploadFile, File(description="Sound or video file.")],
        granularity: Annotated[str, Form()] = "utterance",
        embedding: Annotated[str, Form(description="none, utterance or frame.")] = "none",
        model: Annotated[str | None, Form()] = None,
        precision: Annotated[str | None, Form()] = None,
        window_s: Annotated[float | None, Form()] = None,
        baseline: Annotated[str | None, Form(description="Name of a saved baseline of the speaker.")] = None,
        save: Annotated[bool, Form(description="Keep a result folder.")] = False,
        lang: Annotated[Literal["zh", "en"], Form(description="Language of the charts in a kept folder.")] = "en",
    ) -> JSONResponse:
        try:
            options = Options(granularity, embedding, model, precision, window_s, baseline)  # type: ignore[arg-type]
            _check_model(model, settings)
            if save:
                await run_in_threadpool(store.check_space)
            async with _on_disk(file, settings) as path, _while_connected(request) as gone:
                result = await run_in_threadpool(
                    analyzer.analyze,
                    path,
                    options,
                    name=file.filename or "upload",
                    max_s=settings.limits.clip_s,
                    isolated=True,
                    deadline_s=settings.limits.deadline_s,
                    cancel=gone,
                )
            document = await run_in_threadpool(_document, result, store if save else None, lang)
        except EmotionError as error:
            metrics.failed("rest", error)
            raise
        metrics.answered("rest", result)
        return JSONResponse(document)

    @router.get("/models")
    def models() -> list[dict[str, Any]]:
        return [
            {
                "name": known.name,
                "hub": known.modelscope or None,
                "summary": {"en": known.summary, "zh": known.summary_zh},
                "here": resolve(known.name, settings).ready,
                "state": analyzer.status(known.name).state,
            }
            for known in known_models()
        ]


def _add_results(router: APIRouter, store: Store) -> None:
    @router.get("/results")
    def results(
        limit: Annotated[int, Query(ge=1, le=1000)] = 50, offset: Annotated[int, Query(ge=0)] = 0
    ) -> list[dict[str, Any]]:
        return [
            {"id": s.name, "created": s.created.isoformat(), "emotion": s.emotion, "confidence": s.confidence,
             "duration_s": s.duration_s, "source": s.source, "model": s.model}
            for s in store.list(limit, offset)
        ]  # fmt: skip

    @router.get("/results/{name}.zip")
    def archive(name: str) -> FileResponse:
        with tempfile.NamedTemporaryFile(suffix=".zip", delete=False) as target:
            path = Path(target.name)
        try:
            store.zip(name, path)
        except EmotionError:
            path.unlink(missing_ok=True)
            raise
        return FileResponse(path, filename=f"{name}.zip", background=BackgroundTask(path.unlink, missing_ok=True))

    @router.get("/results/{name}")
    def result_document(name: str) -> FileResponse:
        return FileResponse(store.file(name, "result.json"), media_type="application/json")

    @router.get("/results/{name}/{filename}")
    def result_file(name: str, filename: str) -> FileResponse:
        return FileResponse(store.file(name, filename), filename=filename)

    @router.delete("/results/{name}", status_code=204)
    def delete(name: str) -> Response:
        store.delete(name)
        return Response(status_code=204)


def _check_model(model: str | None, settings: Settings) -> None:
    """A client may name models that are here; it may not name directories, nor make the server download.

    Raises:
        ModelError: MODEL_UNKNOWN, MODEL_MISSING.
    """
    if model in (None, "auto", settings.model):
        return
    known = [m.name for m in known_models()]
    if model not in known:
        raise ModelError("MODEL_UNKNOWN", name=model, known=", ".join(known))
    if not resolve(model, settings).ready:
        raise ModelError("MODEL_MISSING", name=model)


def _document(result: Result, store: Store | None, lang: Lang) -> dict[str, Any]:
    document = result_to_dict(result)
    if result.embedding is not None:
        document["embedding"] = {**(document.get("embedding") or {}), "values": result.embedding.tolist()}
    if result.frame_embeddings is not None:
        document["frame_embeddings"] = {
            **(document.get("frame_embeddings") or {}),
            "values": result.frame_embeddings.round(6).tolist(),
        }
    if store is not None:
        document["id"] = store.save(result, result_charts(result, lang)).name
    return document


@asynccontextmanager
async def _on_disk(file: UploadFile, settings: Settings) -> AsyncIterator[Path]:
    """The upload as a file of its own, gone afterwards: the decoder process reads paths, not sockets."""
    limit, size = settings.limits.upload_mb * 1e6, 0
    with tempfile.TemporaryDirectory(prefix="emotion-upload-") as folder:
        path = Path(folder) / "upload"
        with path.open("wb") as target:
            while block := await file.read(COPY_BYTES):
                size += len(block)
                if size > limit:
                    raise AudioError("TOO_LARGE", limit_mb=settings.limits.upload_mb)
                await run_in_threadpool(target.write, block)
        yield path


@asynccontextmanager
async def _while_connected(request: Request) -> AsyncIterator[threading.Event]:
    """An event that is set when the client hangs up: nobody computes for nobody."""
    gone = threading.Event()

    async def look() -> None:
        while not await request.is_disconnected():
            await asyncio.sleep(LOOK_S)
        gone.set()

    watcher = asyncio.create_task(look())
    try:
        yield gone
    finally:
        watcher.cancel()
