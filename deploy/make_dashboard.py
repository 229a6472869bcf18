"""Write ``grafana-dashboard.json`` for import in Grafana (no network): ``python -m deploy.make_dashboard``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from emotion_app.labels import EMOTIONS

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
P95 = "histogram_quantile(0.95, sum by (le, {by}) (rate({name}_bucket{{{where}}}[$__rate_interval])))"


def quantile(name: str, by: str, where: str = "", q: float = 0.95) -> str:
    """A quantile of a histogram by one label."""
    return P95.replace("0.95", str(q)).format(name=name, by=by, where=where)


PANELS: list[tuple[str, str, str, list[tuple[str, str]]]] = [  # title, kind, unit, [(expression, legend)]
    (
        "Clips per second",
        "timeseries",
        "reqps",
        [("sum by (door, outcome) (rate(emotion_requests_total[$__rate_interval]))", "{{door}} {{outcome}}")],
    ),
    ("Clip latency P95 by step", "timeseries", "s", [(quantile("emotion_request_seconds", "step"), "{{step}}")]),
    (
        "Live event latency",
        "timeseries",
        "s",
        [
            (quantile("emotion_event_seconds", "type"), "P95 {{type}}"),
            (quantile("emotion_event_seconds", "type", q=0.5), "P50 {{type}}"),
        ],
    ),
    (
        "Emotions over time",
        "heatmap",
        "short",
        [("sum by (emotion) (increase(emotion_results_total[$__rate_interval]))", "{{emotion}}")],
    ),
    (
        "Share of each emotion",
        "piechart",
        "percentunit",
        [
            (
                "sum by (emotion) (increase(emotion_results_total[1h])) "
                "/ scalar(sum(increase(emotion_results_total[1h])) > 0 or vector(1))",
                "{{emotion}}",
            )
        ],
    ),
    (
        "Live sessions",
        "timeseries",
        "short",
        [("emotion_stream_sessions", "sessions"), ("emotion_stream_connections", "connections")],
    ),
    (
        "Live audio by fate",
        "timeseries",
        "short",
        [("sum by (fate) (rate(emotion_stream_samples_total[$__rate_interval])) / 16000", "{{fate}} s/s")],
    ),
    (
        "Dropped, late, refused",
        "timeseries",
        "reqps",
        [
            ("rate(emotion_late_total[$__rate_interval])", "late"),
            ("emotion_stream_unaccounted_samples", "unaccounted samples"),
            ("rate(emotion_rejected_total[$__rate_interval])", "refused"),
        ],
    ),
    (
        "Alerts",
        "timeseries",
        "short",
        [("increase(emotion_stream_alerts_total[$__rate_interval])", "alerts")],
    ),
    (
        "Queue",
        "timeseries",
        "short",
        [
            ("emotion_queue_requests", "waiting"),
            ("emotion_queue_running", "running"),
            ("emotion_queue_audio_seconds", "audio s"),
        ],
    ),
    (
        "Batch size (mean)",
        "timeseries",
        "short",
        [
            (
                "rate(emotion_batch_size_sum[$__rate_interval])"
                " / (rate(emotion_batch_size_count[$__rate_interval]) > 0)",
                "clips",
            )
        ],
    ),
    ("Real-time factor P95", "timeseries", "short", [(quantile("emotion_realtime_factor", "model"), "{{model}}")]),
    ("Model", "stat", "short", [("emotion_model_state == 1", "{{state}}"), ("emotion_model_loaded", "{{model}}")]),
    (
        "Cache hits",
        "timeseries",
        "percentunit",
        [
            (
                "rate(emotion_cache_hits_total[$__rate_interval]) / (rate(emotion_cache_hits_total[$__rate_interval])"
                " + rate(emotion_cache_misses_total[$__rate_interval]) > 0)",
                "share",
            )
        ],
    ),
    ("CPU", "timeseries", "short", [('rate(process_cpu_seconds_total{job="emotion"}[$__rate_interval])', "cores")]),
    ("Memory", "timeseries", "bytes", [('process_resident_memory_bytes{job="emotion"}', "resident")]),
    ("GPU busy", "timeseries", "percentunit", [("emotion_gpu_busy_ratio", "GPU {{gpu}}")]),
    ("GPU memory", "timeseries", "bytes", [("emotion_gpu_memory_used_bytes", "GPU {{gpu}}")]),
]


def panel(index: int, title: str, kind: str, unit: str, queries: list[tuple[str, str]]) -> dict[str, Any]:
    """One panel, two a row; the emotions keep their colours."""
    colours = (
        [
            {
                "matcher": {"id": "byName", "options": e.key},
                "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": e.colour}}],
            }
            for e in EMOTIONS
        ]
        if "{{emotion}}" in queries[0][1]
        else []
    )
    return {
        "id": index + 1,
        "title": title,
        "type": kind,
        "datasource": SOURCE,
        "gridPos": {"h": 8, "w": 12, "x": 12 * (index % 2), "y": 8 * (index // 2)},
        "fieldConfig": {"defaults": {"unit": unit}, "overrides": colours},
        "targets": [
            {"refId": chr(65 + i), "datasource": SOURCE, "expr": expr, "legendFormat": legend, "range": True}
            for i, (expr, legend) in enumerate(queries)
        ],
    }


def dashboard() -> dict[str, Any]:
    """The whole document."""
    variable = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    return {
        "uid": "emotion-app",
        "title": "Speech emotion",
        "tags": ["emotion"],
        "schemaVersion": 39,
        "version": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [variable]},
        "panels": [panel(i, *row) for i, row in enumerate(PANELS)],
    }


if __name__ == "__main__":
    target = Path(__file__).with_name("grafana-dashboard.json")
    target.write_text(json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(target)
