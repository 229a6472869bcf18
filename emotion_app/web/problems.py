"""EmotionError as an HTTP answer, the same for every route."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from emotion_app.errors import EmotionError


def problem_response(error: EmotionError) -> JSONResponse:
    """JSON ``{"error": {"code", "en", "zh"}}`` with the status of the error table and Retry-After when it is known."""
    headers = {}
    retry_after_s = error.facts.get("retry_after_s")
    if isinstance(retry_after_s, int | float):
        headers["Retry-After"] = str(max(1, round(retry_after_s)))
    if error.problem.http == 401:
        headers["WWW-Authenticate"] = "Bearer"
    body = {"error": {"code": error.code, "en": error.text("en"), "zh": error.text("zh")}}
    return JSONResponse(body, status_code=error.problem.http, headers=headers)


async def on_problem(request: Request, error: Exception) -> Response:
    """Exception handler for FastAPI."""
    if not isinstance(error, EmotionError):
        raise error
    return problem_response(error)
