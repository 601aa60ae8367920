"""Work that takes hours, spread over the cores: a process each, of one thread, which beats threads that wait."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context
from typing import TypeVar

import torch

__all__ = ["on_all_cores", "telling"]

KEEP_PAGES = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**31)}
"""For glibc, which otherwise gives the pages of every large tensor back at once: up to a quarter of the time."""

T = TypeVar("T")


def on_all_cores(jobs: Sequence[Callable[[], T]], told: Callable[[int, int], None]) -> list[T]:
    """What each job returns, in their order; jobs start in it too, as many at once as there are cores.

    The first job that fails ends all of them: those that wait are not begun.

    Args:
        jobs: Functions of modules, and ``functools.partial`` of them, so that another process can read them.
        told: Called with (jobs done, jobs) when one is done.
    """
    with _environment(KEEP_PAGES), ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), _one_thread) as pool:
        begun = [pool.submit(job) for job in jobs]
        try:
            for i, done in enumerate(as_completed(begun)):
                done.result()
                told(i + 1, len(jobs))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [each.result() for each in begun]


def telling(where: str, pieces: str) -> Callable[[int, int], None]:
    """For ``on_all_cores``: how many pieces of work are done, as lines on stderr.

    Example:
        >>> from contextlib import redirect_stderr
        >>> with redirect_stderr(sys.stdout):
        ...     telling("scaling", "fields")(2, 3)
        scaling: 2 of 3 fields
    """
    return lambda done, jobs: print(f"{where}: {done} of {jobs} {pieces}", file=sys.stderr, flush=True)


def _one_thread() -> None:
    torch.set_num_threads(1)


@contextmanager
def _environment(changes: dict[str, str]) -> Iterator[None]:
    """Variables that the processes find which start meanwhile."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
