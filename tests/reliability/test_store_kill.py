"""Kills and crowds: no half folder, nothing lost, leftovers swept (reliability plan F1 and F2)."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from emotion_app.folders import ASIDE, ASIDE_MAX_AGE_S
from emotion_app.settings import Limits
from emotion_app.store import Store
from tests.results import make_result

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
LIMITS = Limits(disk_free_mb=0)
EXTRA = {"scores.png": bytes(20_000), "timeline.png": bytes(30_000)}


def fork(work: Callable[[], None]) -> int:
    """A child process that does ``work`` and ends without pytest noticing it."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
    return pid


def test_kill_at_any_moment_leaves_no_half_folder(tmp_path: Path) -> None:
    result = make_result(2.0, embedding=True)
    store = Store(tmp_path, LIMITS)
    rng = random.Random(2)
    left_aside = 0
    begun = time.monotonic()
    for _ in range(3):
        store.save(result, EXTRA)
    one_s = (time.monotonic() - begun) / 3  # kills come anywhere in the first saves, on a slow disk too

    def save_for_ever() -> None:
        while True:
            store.save(result, EXTRA)

    for _ in range(50):
        pid = fork(save_for_ever)
        time.sleep(rng.uniform(0.1, 3) * one_s)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        left_aside += any(name.startswith(ASIDE) for name in os.listdir(tmp_path))
        store.sweep()
        assert not [name for name in os.listdir(tmp_path) if name.startswith(ASIDE)]
    names = [s.name for s in store.list()]
    assert len(names) == len(os.listdir(tmp_path))
    for name in names:
        assert len(store.get(name).files) == 7
        assert store.open(name).frames is not None
    assert left_aside > 0  # the kills did hit the middle of a write


def test_32_processes_in_one_second(tmp_path: Path) -> None:
    result = make_result(1.0)
    store = Store(tmp_path, LIMITS)
    reading, writing = os.pipe()

    def save_at_the_signal() -> None:
        os.close(writing)
        os.read(reading, 1)  # returns for all when the parent closes its end
        store.save(result)

    children = [fork(save_at_the_signal) for _ in range(32)]
    os.close(reading)
    os.close(writing)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 32
    stem = "outputs_20261121_213000"
    assert sorted(os.listdir(tmp_path)) == sorted([stem] + [f"{stem}_{n}" for n in range(2, 33)])
    for summary in store.list():
        assert store.open(summary.name).segments


def test_sweep_spares_the_living(tmp_path: Path) -> None:
    store = Store(tmp_path, LIMITS)
    saved = store.save(make_result(0.5))
    living = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    dead = fork(lambda: None)
    os.waitpid(dead, 0)
    try:
        for pid in (living.pid, os.getpid(), dead, 2**31 + 5, 10**30):
            (tmp_path / f"{ASIDE}{pid}-abc").mkdir()
            (tmp_path / f"{ASIDE}{pid}-abc" / "result.json").write_text("{")
        (tmp_path / f"{ASIDE}not-ours").mkdir()
        (tmp_path / f"{ASIDE}{dead}-link").symlink_to(saved.path)
        assert store.sweep() == 3
        assert sorted(os.listdir(tmp_path)) == sorted(
            [saved.name, f"{ASIDE}{living.pid}-abc", f"{ASIDE}{os.getpid()}-abc", f"{ASIDE}not-ours",
             f"{ASIDE}{dead}-link"])
        then = time.time() - ASIDE_MAX_AGE_S - 60  # the number now belongs to another process
        os.utime(tmp_path / f"{ASIDE}{living.pid}-abc", (then, then))
        assert store.sweep() == 1
        assert saved.files[0].exists()
    finally:
        living.communicate(b"\n")


def test_deleting_and_reading_at_once(tmp_path: Path) -> None:
    """Readers see a result whole or not at all while another process deletes it."""
    store = Store(tmp_path, LIMITS)
    result = make_result(0.5, frame=False)
    names = [store.save(result).name for _ in range(40)]

    def delete_all() -> None:
        for name in names:
            store.delete(name)

    pid = fork(delete_all)
    while store.count():
        for summary in store.list():
            assert summary.readable or not (tmp_path / summary.name).exists()
    assert os.waitpid(pid, 0)[1] == 0
    assert os.listdir(tmp_path) == []
