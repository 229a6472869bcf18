"""``/metrics`` for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from emotion_app.analyzer import Analyzer
from emotion_app.metrics import STATES, Metrics, Reading, gpu_readings
from emotion_app.streaming.account import Totals


def make_router(analyzer: Analyzer, metrics: Metrics) -> APIRouter:
    """The scrape route; the readings of queue, cache, models and GPUs are registered here."""
    router = APIRouter()
    metrics.watch(lambda: readings(analyzer))
    metrics.watch(gpu_readings)

    @router.get("/metrics")
    def scrape() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return router


def readings(analyzer: Analyzer) -> Iterable[Reading]:
    """Queue, cache and models as they are now."""
    load = analyzer.load()
    state = analyzer.status().state
    return (
        Reading("emotion_queue_requests", "Clips waiting for the model.", load.requests),
        Reading("emotion_queue_audio_seconds", "Seconds of audio waiting.", load.audio_s),
        Reading("emotion_queue_running", "Clips being computed.", load.running),
        Reading("emotion_late", "Requests dropped because their deadline passed.", load.late, counter=True),
        Reading("emotion_rejected", "Requests refused because the queue was full.", load.rejected, counter=True),
        Reading("emotion_workers_replaced", "Model threads replaced.", load.workers_replaced, counter=True),
        Reading("emotion_oom", "Times that memory ran out.", analyzer.pool.oom_steps(), counter=True),
        Reading("emotion_cache_hits", "Answers from the cache.", analyzer.cache.hits, counter=True),
        Reading("emotion_cache_misses", "Answers not in the cache.", analyzer.cache.misses, counter=True),
        Reading("emotion_model_state", "1 for the state of the configured model.",
                {name: float(name == state) for name in STATES}, label="state"),
        Reading("emotion_model_loaded", "1 for each model in memory.",
                {f"{m.name} {m.precision}": 1.0 for m in analyzer.pool.loaded()}, label="model"),
    )  # fmt: skip


def stream_readings(totals: Totals) -> Iterable[Reading]:
    """All live sessions together. ``unaccounted`` is 0 as long as no sample was lost without a word."""
    s = totals.stats
    fates = {"analysed": s.analysed, "silent": s.silent, "declared_dropped": s.declared_dropped}
    return (
        Reading("emotion_stream_sessions", "Live sessions.", totals.sessions),
        Reading("emotion_stream_connections", "Of these, connected now.", totals.connected),
        Reading("emotion_stream_started", "Sessions since the start.", totals.started, counter=True),
        Reading("emotion_stream_resumed", "Clients that came back.", totals.resumed, counter=True),
        Reading("emotion_stream_refused", "Clients refused at capacity.", totals.refused, counter=True),
        Reading("emotion_stream_slow", "Clients closed because they did not read.", totals.slow, counter=True),
        Reading("emotion_stream_events", "Events told.", totals.events, counter=True),
        Reading("emotion_stream_merged", "Partial events that gave way to newer ones.", totals.merged, counter=True),
        Reading("emotion_stream_received_samples", "Samples received at 16 kHz.", s.received, counter=True),
        Reading("emotion_stream_samples", "Samples by fate.", {k: float(v) for k, v in fates.items()}, True, "fate"),
        Reading("emotion_stream_buffered_samples", "Samples whose fate is open.", s.buffered),
        Reading("emotion_stream_unaccounted_samples", "Received minus all fates minus buffered: 0.",
                s.received - sum(fates.values()) - s.buffered),
        Reading("emotion_stream_utterances", "Final answers asked for.", s.utterances, counter=True),
        Reading("emotion_stream_windows", "Interval answers given.", s.windows, counter=True),
        Reading("emotion_stream_late", "Windows dropped as late.", s.late, counter=True),
        Reading("emotion_stream_replaced", "Windows that gave way to newer ones.", s.replaced, counter=True),
        Reading("emotion_stream_skipped", "Windows not asked for: loading or full.", s.skipped, counter=True),
        Reading("emotion_stream_alerts", "Monitoring rules that came true.", s.alerts, counter=True),
    )  # fmt: skip
