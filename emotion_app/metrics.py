"""Prometheus metrics of one process, in a registry of their own. No label names a session, a client or a file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from emotion_app.errors import EmotionError
from emotion_app.labels import KEYS
from emotion_app.types import Result

# Latency buckets: from one embedded-model window (5 ms) to a long clip of the large model on a CPU (2 min).
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
# Seconds of work per second of audio.
FACTORS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
BATCHES = (1, 2, 4, 8, 16, 32)
STATES = ("not_loaded", "downloading", "loading", "ready", "failed")


@dataclass(frozen=True)
class Reading:
    """One gauge or counter that is read when somebody scrapes.

    Attributes:
        name: metric name without the ``_total`` ending.
        help: one line.
        value: current value, or values by label.
        counter: True for a value that only grows.
        label: name of the label when ``value`` is by label.
    """

    name: str
    help: str
    value: float | dict[str, float]
    counter: bool = False
    label: str = ""


class _Read(Collector):
    def __init__(self, read: Callable[[], Iterable[Reading]]) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        for r in self._read():
            family = CounterMetricFamily if r.counter else GaugeMetricFamily
            if isinstance(r.value, dict):
                metric = family(r.name, r.help, labels=[r.label])
                for key, value in r.value.items():
                    metric.add_metric([key], value)
                yield metric
            else:
                yield family(r.name, r.help, value=r.value)


class Metrics:
    """Counters and histograms that the doors feed; gauges are read from the parts at each scrape."""

    def __init__(self) -> None:
        disable_created_metrics()  # no dashboard uses the _created series
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        r = self.registry
        self._requests = Counter("emotion_requests", "Clips by door and outcome.", ["door", "outcome"], registry=r)
        self._seconds = Histogram(
            "emotion_request_seconds", "Seconds of a clip by step.", ["door", "step"], buckets=SECONDS, registry=r
        )
        self._factor = Histogram(
            "emotion_realtime_factor",
            "Seconds of inference per second of audio.",
            ["model"],
            buckets=FACTORS,
            registry=r,
        )
        self._batch = Histogram("emotion_batch_size", "Clips computed together.", buckets=BATCHES, registry=r)
        self._audio = Counter("emotion_audio_seconds", "Seconds of audio analyzed.", ["door"], registry=r)
        self._results = Counter("emotion_results", "Answers by emotion.", ["door", "emotion"], registry=r)
        self._latency = Histogram(
            "emotion_event_seconds",
            "End of a live window at the server to its event.",
            ["type"],
            buckets=SECONDS,
            registry=r,
        )
        for key in KEYS:  # every class is there from the start, so that rates begin at 0
            for door in ("page", "rest", "stream"):
                self._results.labels(door, key)

    def watch(self, read: Callable[[], Iterable[Reading]]) -> None:
        """Ask ``read`` for its readings at every scrape."""
        self.registry.register(_Read(read))

    def answered(self, door: str, result: Result) -> None:
        """Count an answer."""
        t = result.timing
        self._requests.labels(door, "ok").inc()
        for step, seconds in (("decode", t.decode_s), ("queue", t.queue_s), ("infer", t.infer_s), ("total", t.total_s)):
            self._seconds.labels(door, step).observe(seconds)
        self._audio.labels(door).inc(result.waveform.duration_s)
        self._results.labels(door, result.prediction.label).inc()
        if t.infer_s > 0:
            self._factor.labels(result.model.name).observe(t.infer_s / result.waveform.duration_s)
            self._batch.observe(t.batch_size)

    def failed(self, door: str, error: EmotionError) -> None:
        """Count a failure by its code."""
        self._requests.labels(door, error.code).inc()

    def window(self, emotion: str, kind: str, latency_s: float) -> None:
        """Count a live answer with the time from its last sample to its event."""
        self._results.labels("stream", emotion).inc()
        self._latency.labels(kind).observe(latency_s)

    def text(self) -> bytes:
        """The scrape answer."""
        return generate_latest(self.registry)


def gpu_readings() -> list[Reading]:
    """Use and memory of every NVIDIA GPU through NVML; empty where there is none."""
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    busy, used, total = {}, {}, {}
    for i in range(pynvml.nvmlDeviceGetCount()):
        handle = pynvml.nvmlDeviceGetHandleByIndex(i)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        busy[str(i)] = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
        used[str(i)], total[str(i)] = float(memory.used), float(memory.total)
    pynvml.nvmlShutdown()
    return [
        Reading("emotion_gpu_busy_ratio", "Share of time the GPU computed.", busy, label="gpu"),
        Reading("emotion_gpu_memory_used_bytes", "GPU memory in use.", used, label="gpu"),
        Reading("emotion_gpu_memory_total_bytes", "GPU memory there is.", total, label="gpu"),
    ]
