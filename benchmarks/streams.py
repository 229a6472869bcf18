"""Live streams against a running server: how many, how fast, whether anything is lost, and whether memory grows.

    python benchmarks/streams.py --streams 16 --minutes 2 --model lite
    python benchmarks/streams.py --streams 3 --minutes 2 --model DIRECTORY --precision bf16
    python benchmarks/streams.py --idle 32 --minutes 1          # connections that say nothing
    python benchmarks/streams.py --url ws://HOST:7860/ws/emotion --streams 8

Without ``--url`` a server is started (and ended) here. Each client speaks the project's own clips, with pauses, at real
time in messages of 100 ms; clients begin one after the other within a second, as strangers do. Prints a table and one
JSON line; exits with 1 when a sample was lost.

Latency of an interval result: from sending the message that holds its last sample to the arrival of its event, so the
100 ms of the message and the 32 ms of the speech detector are within. ``server_ms`` is the server's own figure, from
the arrival of the last sample. A final result is timed by the server's figure alone: what comes before is hang-over.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import psutil
from websockets.asyncio.client import connect

from emotion_app import audio
from emotion_app.settings import Limits
from emotion_app.types import SAMPLE_RATE

CLIPS = Path(__file__).resolve().parents[1] / "examples" / "clips"
STEP_S = 0.1
PAUSE_S = 1.0
SAMPLE_EVERY_S = 1.0
CONNECT_S = 15.0
SETTLE_S = 20.0  # memory is judged after this and on the second half: kernels for the lengths that occur come first


@dataclass
class Outcome:
    """What one client saw."""

    latency_ms: list[float] = field(default_factory=list)
    server_ms: list[float] = field(default_factory=list)
    final_ms: list[float] = field(default_factory=list)
    events: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    stats: dict[str, int] = field(default_factory=dict)


@dataclass
class Usage:
    """The server process over time."""

    at_s: list[float] = field(default_factory=list)
    rss_mb: list[float] = field(default_factory=list)
    cpu_s: float = 0.0
    wall_s: float = 0.0
    stolen: float = 0.0  # share of this machine's time that its host gave to others


def speech() -> bytes:
    """All clips with pauses, 16-bit 16 kHz."""
    pause = np.zeros(int(PAUSE_S * SAMPLE_RATE), np.float32)
    parts = [pause]
    for path in sorted(CLIPS.glob("*.flac")):
        parts += [audio.load(path, limits=Limits()).samples, pause]
    return (np.concatenate(parts).clip(-1, 1) * 32_767).astype("<i2").tobytes()


async def speak(url: str, sound: bytes, start_s: float, wait_s: float, seconds: float, out: Outcome) -> None:
    """One client at real time, from ``start_s`` of the sound on, after ``wait_s``."""
    step = int(STEP_S * SAMPLE_RATE) * 2
    await asyncio.sleep(wait_s)
    sent_at: list[float] = []
    async with connect(url, max_size=None, proxy=None, compression=None) as ws:
        await ws.send('{"type": "session.start", "stats_s": 0}')
        listening = asyncio.create_task(listen(ws, sent_at, out))
        began, at = time.monotonic(), int(start_s * SAMPLE_RATE) * 2 % len(sound)
        for i in range(int(seconds / STEP_S)):
            piece = (sound[at : at + step] + sound)[:step]
            at = (at + step) % len(sound)
            sent_at.append(time.monotonic())
            await ws.send(piece)
            await asyncio.sleep(max(0.0, began + (i + 1) * STEP_S - time.monotonic()))
        await ws.send('{"type": "session.end"}')
        await asyncio.wait_for(listening, 60)


async def listen(ws: object, sent_at: list[float], out: Outcome) -> None:
    """Take events until the session ends."""
    step = int(STEP_S * SAMPLE_RATE)
    async for text in ws:
        now, event = time.monotonic(), json.loads(text)
        out.events += 1
        if event["type"] == "emotion_result":
            if event["final"]:
                out.final_ms.append(event["latency_ms"])
            else:
                last = min((event["stop_sample"] - 1) // step, len(sent_at) - 1)
                out.latency_ms.append(1000 * (now - sent_at[last]))
                out.server_ms.append(event["latency_ms"])
        elif event["type"] == "error":
            out.errors[event["code"]] = out.errors.get(event["code"], 0) + 1
        elif event["type"] == "session.ended":
            out.stats = event["stats"]
            return


async def idle(url: str, seconds: float) -> None:
    """A session that says nothing but that it is there."""
    async with connect(url, max_size=None, proxy=None) as ws:
        await ws.send('{"type": "session.start", "stats_s": 0}')
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            await asyncio.sleep(min(30.0, seconds))
            await ws.send('{"type": "session.stats"}')


async def watch(process: psutil.Process | None, usage: Usage) -> None:
    """Memory and CPU of the server, once a second; connecting is over by the time it begins."""
    if process is None:
        return
    await asyncio.sleep(CONNECT_S)
    began, cpu, machine = time.monotonic(), sum(process.cpu_times()[:2]), psutil.cpu_times()
    while True:
        await asyncio.sleep(SAMPLE_EVERY_S)
        usage.wall_s = time.monotonic() - began
        usage.at_s.append(usage.wall_s)
        usage.rss_mb.append(process.memory_info().rss / 1e6)
        usage.cpu_s = sum(process.cpu_times()[:2]) - cpu
        usage.stolen = stolen(machine, psutil.cpu_times())


def stolen(before: Any, after: Any) -> float:
    """Share of the time between two readings that a virtual machine did not get although it had work."""
    spent = sum(after) - sum(before)
    return (getattr(after, "steal", 0.0) - getattr(before, "steal", 0.0)) / spent if spent else 0.0


@contextlib.contextmanager
def server(args: argparse.Namespace) -> Iterator[tuple[str, psutil.Process | None]]:
    """The address of a server and, when it was started here, its process."""
    if args.url:
        yield args.url, None
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "emotion_app", "serve", "--port", str(port), "--model", args.model, "--preload"]
    if args.precision:
        command += ["--precision", args.precision]
    with tempfile.TemporaryDirectory() as folder:
        env = {
            **os.environ,
            "EMOTION_OUTPUTS_DIR": folder,
            "EMOTION_OFFLINE": "true",
            "EMOTION_LIMITS__STREAM_SESSIONS": str(max(32, args.streams + args.idle)),
        }
        running = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
        try:
            wait_ready(port, running)
            yield f"ws://127.0.0.1:{port}/ws/emotion", psutil.Process(running.pid)
        finally:
            running.terminate()
            running.wait(15)


def wait_ready(port: int, running: subprocess.Popen[bytes]) -> None:
    """Until the model is loaded (``--preload``)."""
    import httpx

    until = time.monotonic() + 300
    while time.monotonic() < until and running.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False).status_code == 200:
                return
        time.sleep(0.5)
    raise SystemExit("the server did not become ready")


async def run(url: str, process: psutil.Process | None, args: argparse.Namespace) -> tuple[list[Outcome], Usage]:
    """All clients together."""
    sound, outcomes, usage = speech(), [Outcome() for _ in range(args.streams)], Usage()
    seconds = 60 * args.minutes
    watching = asyncio.create_task(watch(process, usage))
    dice = np.random.default_rng(1)
    clients = [speak(url, sound, 2.7 * i, dice.uniform(0, 1), seconds, out) for i, out in enumerate(outcomes)]
    clients += [idle(url, seconds) for _ in range(args.idle)]
    await asyncio.gather(*clients)
    watching.cancel()
    return outcomes, usage


def percentiles(values: list[float]) -> dict[str, float]:
    """p50, p95 and p99."""
    if not values:
        return {}
    return {f"p{p}": round(float(np.percentile(values, p)), 1) for p in (50, 95, 99)}


def report(outcomes: list[Outcome], usage: Usage, args: argparse.Namespace) -> dict[str, object]:
    """Everything as one object."""
    total = {key: sum(o.stats.get(key, 0) for o in outcomes) for key in (outcomes[0].stats if outcomes else {})}
    lost = sum(o.stats.get("declared_dropped", 0) for o in outcomes) + sum(not o.stats for o in outcomes)
    settled_s = max(SETTLE_S, usage.wall_s / 2)
    settled = [(t, m) for t, m in zip(usage.at_s, usage.rss_mb, strict=True) if t > settled_s]
    slope = float(np.polyfit(*zip(*settled, strict=True), 1)[0]) * 3600 if len(settled) > 10 else None
    cores = usage.cpu_s / usage.wall_s if usage.wall_s else None
    errors: dict[str, int] = {}
    for o in outcomes:
        for code, count in o.errors.items():
            errors[code] = errors.get(code, 0) + count
    return {
        "benchmark": "streams",
        "model": args.model,
        "precision": args.precision,
        "streams": args.streams,
        "idle": args.idle,
        "minutes": args.minutes,
        "cpus": len(os.sched_getaffinity(0)),
        "event_ms": percentiles([v for o in outcomes for v in o.latency_ms]),
        "server_ms": percentiles([v for o in outcomes for v in o.server_ms]),
        "final_ms": percentiles([v for o in outcomes for v in o.final_ms]),
        "events": sum(o.events for o in outcomes),
        "lost_samples": lost,
        "errors": errors,
        **total,
        "server_cores": round(cores, 3) if cores is not None else None,
        "streams_per_core": round(args.streams / cores, 1) if cores and args.streams else None,
        "rss_mb": round(usage.rss_mb[-1], 1) if usage.rss_mb else None,
        "rss_slope_mb_per_h": round(slope, 1) if slope is not None else None,
        "stolen": round(usage.stolen, 3),
        "load_average": round(os.getloadavg()[0], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--idle", type=int, default=0, help="connections with a session that say nothing")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--model", default="lite", help="for the server that is started here")
    parser.add_argument("--precision")
    parser.add_argument("--url", help="measure this server instead")
    args = parser.parse_args()
    if args.idle and not args.url and args.streams == parser.get_default("streams"):
        args.streams = 0
    with server(args) as (url, process):
        outcomes, usage = asyncio.run(run(url, process, args))
    figures = report(outcomes, usage, args)
    for key, value in figures.items():
        print(f"{key:20s} {value}")
    print(json.dumps(figures))
    raise SystemExit(1 if figures["lost_samples"] else 0)


if __name__ == "__main__":
    main()
