"""Structured logs: lines for people in a terminal, else JSON; request and session ids, never audio or names."""

from __future__ import annotations

import logging
import sys

import structlog

QUIET = ("httpx", "httpcore", "multipart", "matplotlib", "numba", "jieba", "funasr", "modelscope", "urllib3", "asyncio")


def set_up(level: str) -> None:
    """Send every logger of the process to stderr through structlog.

    Args:
        level: DEBUG, INFO, WARNING or ERROR.
    """
    steps: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=False),
        structlog.stdlib.PositionalArgumentsFormatter(),
    ]
    if sys.stderr.isatty():
        last: list[structlog.types.Processor] = [structlog.dev.ConsoleRenderer()]
    else:
        last = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False)]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=steps, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last]
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def bind(**ids: str) -> None:
    """Name the request or session that this task or thread works for; every following line of it carries the ids."""
    structlog.contextvars.bind_contextvars(**ids)


def unbind(*names: str) -> None:
    """Forget ids."""
    structlog.contextvars.unbind_contextvars(*names)
