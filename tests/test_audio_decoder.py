"""The decoder processes: same samples, own memory and time, replaced when they break."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from emotion_app.audio import Decoder, load
from emotion_app.audio.worker import SEND_SAMPLES
from emotion_app.errors import AudioError, BusyError
from emotion_app.settings import Limits
from tests.audio_files import encode, put, silence, tone

LIMITS = Limits()


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return put(tmp_path, "你好 clip.m4a", encode(tone(3, 44_100, 2), 44_100, "ipod", "aac"))


def pids(decoder: Decoder) -> set[int]:
    return {worker._process.pid for worker in decoder._all}


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_same_waveform_as_in_this_process(clip: Path) -> None:
    decoder = Decoder(LIMITS)
    assert not pids(decoder)  # lazy
    here, there = load(clip, limits=LIMITS), decoder.load(clip)
    np.testing.assert_array_equal(here.samples, there.samples)
    assert (here.name, here.notes, here.origin) == (there.name, there.notes, there.origin)
    assert there.samples.flags.writeable
    assert decoder.load(clip, name="../<b>.wav").name == "<b>.wav"
    (pid,) = pids(decoder)  # one worker served all
    decoder.close()
    assert not alive(pid)
    with pytest.raises(BusyError, match="shutting down"):
        decoder.load(clip)


def test_long_clips_come_in_many_messages(tmp_path: Path) -> None:
    samples = tone(60.5)
    path = put(tmp_path, "long.flac", encode(samples, 16_000, "flac", "flac"))
    decoder = Decoder(LIMITS)
    wave = decoder.load(path)
    assert len(wave.samples) == samples.shape[1] > 3 * SEND_SAMPLES
    np.testing.assert_allclose(wave.samples, samples[0], atol=3e-5)
    decoder.close()


def test_caps_of_uploads(tmp_path: Path, clip: Path) -> None:
    decoder = Decoder(Limits(upload_mb=0.02, clip_s=2))
    with pytest.raises(AudioError) as caught:
        decoder.load(clip)
    assert caught.value.code == "TOO_LARGE" and not pids(decoder)
    short = put(tmp_path, "s.mp3", encode(tone(3), 16_000, "mp3", "mp3"))
    with pytest.raises(AudioError) as caught:
        decoder.load(short)
    assert caught.value.code == "TOO_LONG" and caught.value.facts == {"limit_s": 2}
    assert decoder.load(short, max_s=4).duration_s == pytest.approx(3, abs=0.1)
    decoder.close()


def test_a_killed_worker_is_replaced(clip: Path) -> None:
    decoder = Decoder(LIMITS)
    decoder.load(clip)
    (pid,) = pids(decoder)
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.1)
    assert decoder.load(clip).samples.size
    assert pids(decoder) and pid not in pids(decoder)
    decoder.close()


def test_a_crash_in_the_middle_is_this_files_error_only(clip: Path) -> None:
    decoder = Decoder(LIMITS)
    decoder.load(clip)
    (pid,) = pids(decoder)
    os.kill(pid, signal.SIGSTOP)  # so that it is surely busy when it dies
    killer = threading.Timer(0.3, os.kill, (pid, signal.SIGSEGV))
    resume = threading.Timer(0.4, os.kill, (pid, signal.SIGCONT))
    killer.start(), resume.start()
    with pytest.raises(AudioError) as caught:
        decoder.load(clip)
    resume.join()
    assert caught.value.code == "UNDECODABLE" and "SIGSEGV" in str(caught.value)
    assert decoder.load(clip).samples.size
    decoder.close()


def test_a_hanging_worker_is_killed_at_the_wall_limit(clip: Path) -> None:
    decoder = Decoder(Limits(decode_wall_s=0.5))
    decoder.load(clip)
    (pid,) = pids(decoder)
    os.kill(pid, signal.SIGSTOP)
    started = time.monotonic()
    with pytest.raises(AudioError) as caught:
        decoder.load(clip)
    assert caught.value.code == "DECODE_LIMIT" and caught.value.facts == {"limit_s": 0.5}
    assert time.monotonic() - started < 5
    assert not alive(pid)
    assert decoder.load(clip).samples.size
    decoder.close()


def test_a_decode_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    path = put(tmp_path, "hours.opus", silence(2.0, "libopus"))
    decoder = Decoder(Limits(decode_wall_s=0.4))
    with pytest.raises(AudioError) as caught:
        decoder.load(path, max_s=4 * 3600)
    assert caught.value.code == "DECODE_LIMIT"
    decoder.close()


def test_memory_is_limited(tmp_path: Path) -> None:
    path = put(tmp_path, "big.flac", encode(tone(30, 48_000, 8), 48_000, "flac", "flac"))
    decoder = Decoder(Limits(decode_memory_mb=1, clip_s=31))
    with pytest.raises(AudioError) as caught:
        decoder.load(path)
    assert caught.value.code == "DECODE_LIMIT"
    (bare,) = pids(decoder) or {0}
    assert not bare  # it is not used again
    roomy = Decoder(LIMITS)
    assert roomy.load(path).duration_s == 30
    decoder.close(), roomy.close()


def test_many_callers_share_few_workers(clip: Path) -> None:
    decoder = Decoder(Limits(decode_workers=2))
    expected, answers = load(clip, limits=LIMITS).samples, []
    threads = [threading.Thread(target=lambda: answers.append(decoder.load(clip).samples)) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 12 and all(np.array_equal(answer, expected) for answer in answers)
    assert len(pids(decoder)) <= 2
    decoder.close()


def test_no_free_worker_is_said(clip: Path) -> None:
    decoder = Decoder(Limits(decode_workers=1, deadline_s=0.2, decode_wall_s=3))
    decoder.load(clip)
    (pid,) = pids(decoder)
    os.kill(pid, signal.SIGSTOP)
    told: list[str] = []

    def wait() -> None:
        try:
            decoder.load(clip)
        except BusyError as error:
            told.append(error.code)

    stuck = threading.Thread(target=wait)
    stuck.start()
    time.sleep(0.1)
    with pytest.raises(BusyError) as caught:
        decoder.load(clip)
    assert caught.value.code == "BUSY"
    decoder.close()  # ends the stuck one with SHUTTING_DOWN
    stuck.join(5)
    assert told == ["SHUTTING_DOWN"]


def test_workers_are_bare_and_end_with_their_parent(clip: Path, tmp_path: Path) -> None:
    program = (
        "import os, sys, torch; torch.rand(500, 500) @ torch.rand(500, 500)\n"
        "from emotion_app.audio import Decoder\nfrom emotion_app.settings import Limits\n"
        "d = Decoder(Limits()); d.load(sys.argv[1]); print(next(iter(d._all))._process.pid, flush=True)\n"
        "sys.stdin.read(); os._exit(1)\n"  # no clean-up at all
    )
    environment = {**os.environ, "EMOTION_TOKEN": "very secret", "OMP_NUM_THREADS": "2"}
    root = Path(__file__).parents[1]
    parent = subprocess.Popen([sys.executable, "-c", program, str(clip)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              cwd=root, env=environment)
    pid = int(parent.stdout.readline())
    maps, secrets = Path(f"/proc/{pid}/maps").read_text(), Path(f"/proc/{pid}/environ").read_bytes()
    assert "libavcodec" in maps and "torch" not in maps and "pydantic" not in maps
    assert b"very secret" not in secrets
    parent.communicate(b"")
    for _ in range(50):
        if not alive(pid) or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2]:
            break
        time.sleep(0.1)
    else:
        pytest.fail("the worker outlived its parent")
