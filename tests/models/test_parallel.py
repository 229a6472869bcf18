"""Work side by side: order, shares, threads, errors, and a successor of a thread that hangs."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from emotion_app.models.parallel import clips_side_by_side, side_by_side


@pytest.fixture(params=[1, 2, 5])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("clips", range(12))
def test_clips_are_shared_out_evenly_and_come_back_in_order(threads: int, clips: int) -> None:
    answers = clips_side_by_side(lambda some: [(clip, len(some)) for clip in some], list(range(clips)))
    assert [clip for clip, _ in answers] == list(range(clips))
    full = clips - clips % threads
    assert all(size == clips // threads for _, size in answers[:full])
    assert all(size == 1 for _, size in answers[full:])


@pytest.mark.parametrize("jobs", [1, 2, 3, 9])
def test_threads_are_shared_out_and_given_back(threads: int, jobs: int) -> None:
    seen = side_by_side([torch.get_num_threads for _ in range(jobs)])
    assert seen == [max(1, threads // jobs) if jobs > 1 else threads] * jobs
    assert side_by_side([torch.get_num_threads for _ in range(jobs)], alone=True) == [1] * jobs
    assert torch.get_num_threads() == threads
    new: list[int] = []
    thread = threading.Thread(target=lambda: new.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert new == [threads]  # what comes later does not inherit a worker's single thread


def test_a_job_may_share_out_work_itself_and_needs_no_gradients(threads: int) -> None:
    def job() -> list[bool]:
        return side_by_side([torch.is_inference_mode_enabled for _ in range(3)])

    with torch.inference_mode():
        assert side_by_side([job, job, job]) == [[True] * 3] * 3


def test_an_error_is_raised_when_all_have_ended(threads: int) -> None:
    ended: list[int] = []

    def job(number: int) -> None:
        if number == 0:
            raise MemoryError("no room")
        ended.append(number)

    with pytest.raises(MemoryError, match="no room"):
        side_by_side([lambda n=n: job(n) for n in (0, 1, 2)])
    assert threads == 1 or sorted(ended) == [1, 2]
    assert torch.get_num_threads() == threads


def test_a_caller_that_hangs_does_not_hold_up_another() -> None:
    before, let_go = torch.get_num_threads(), threading.Event()
    torch.set_num_threads(2)
    try:
        hung = threading.Thread(target=lambda: side_by_side([let_go.wait, let_go.wait]), daemon=True)
        hung.start()
        assert side_by_side([lambda: 1, lambda: 2]) == [1, 2]
    finally:
        let_go.set()
        hung.join(10)
        torch.set_num_threads(before)
    assert not hung.is_alive()
