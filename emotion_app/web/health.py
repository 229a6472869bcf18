"""``/healthz``: the process answers. ``/readyz``: it can take work."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import JSONResponse

from emotion_app.analyzer import Analyzer


def make_router(analyzer: Analyzer) -> APIRouter:
    """Both probes; they need no token and tell nothing private.

    ``/healthz`` answers as long as the process does. ``/readyz`` is 200 when the configured model is ready (or,
    without ``preload``, can be loaded at the first request), and 503 with the reason when it is not.
    """
    router = APIRouter(tags=["health"])

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/readyz")
    def readyz() -> JSONResponse:
        status = analyzer.status()
        error = status.error
        ready = status.state == "ready" or (status.state != "failed" and not analyzer.settings.preload)
        body = {
            "ready": ready,
            "model": status.info.name if status.info else analyzer.settings.model,
            "state": status.state,
            "percent": round(status.percent, 1),
            "note": status.note.text("en") if status.note else None,
            "error": {"code": error.code, "en": error.text("en"), "zh": error.text("zh")} if error else None,
        }
        return JSONResponse(body, status_code=200 if ready else 503)

    return router
