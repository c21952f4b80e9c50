"""Run the same work on many items: on all the cores that PyTorch was given, and within the memory that there is.

Small models leave a second core idle when it only shares single operations. On a CPU every item is therefore worked
on by one thread with single-threaded operations: the results do not depend on the number of threads. On a GPU items
go one by one.

How much is worked on at once follows free memory where it is not given (:func:`fitting_budget`), and a batch that did
not fit after all is split and tried again (:func:`splitting`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Protocol, Self, TypeVar

import torch

from plmscope.errors import ModelError

A = TypeVar("A")
B = TypeVar("B")

#: Bounds of an automatic token budget: below, batches are too small to be fast; above, larger ones gain nothing.
FEWEST_TOKENS, MOST_TOKENS = 256, {"cpu": 4096, "cuda": 65536}


#: A token budget below any state: one state at a time, in the least memory that the function can do with.
LAST_RESORT = 1


def in_order(function: Callable[[A], B], items: Iterable[A], device: torch.device) -> Iterator[B]:
    """``function`` of every item, in order; at most twice as many items as threads are under way."""
    if device.type != "cpu":
        yield from map(function, items)
        return
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    waiting: deque[Future[B]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


class Divisible(Protocol):
    """A batch of proteins, as far as splitting needs to know it."""

    @property
    def rows(self) -> list[int]:
        """One entry a protein."""

    @property
    def input_ids(self) -> torch.Tensor:
        """``(B, T)``."""

    def halves(self) -> tuple[Self, Self]:
        """Two batches with half of the proteins each."""


D = TypeVar("D", bound=Divisible)


def splitting(function: Callable[[D, int], B], token_budget: int) -> Callable[[D], list[B]]:
    """``function(batch, token_budget)`` that is tried again in parts when memory runs out.

    Half of the proteins at a time; a single protein with half the budget, until one state of it at a time is left; and
    that with :data:`LAST_RESORT`.

    Args:
        function: Of a batch and a token budget.
        token_budget: 0 where the function has no use for one: a single protein is not tried again then.

    Returns:
        A function of a batch; its results are those of the parts in order, one if nothing had to be split.

    Raises:
        ModelError: from the returned function, if a single state of a single protein does not fit.
    """

    def run(item: D, budget: int) -> list[B]:
        try:
            return [function(item, budget)]
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        # Only here, past the handler, has the failed attempt let go of its tensors.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(item.rows) > 1:
            return [part for half in item.halves() for part in run(half, budget)]
        tokens = item.input_ids.shape[1]
        if budget <= LAST_RESORT:
            raise ModelError(
                f"a protein of {tokens - 2} residues does not fit into memory alone; lower data.max_length, or use a "
                "device with more memory"
            )
        return run(item, LAST_RESORT if budget <= tokens else budget // 2)

    return lambda item: run(item, token_budget)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: PyTorch's on a GPU, cuBLAS's, the CPU allocator's, or Python's."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    said = ("DefaultCPUAllocator", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(words in text for words in said)


def fitting_budget(token_budget: int, device: torch.device, bytes_per_token: int) -> int:
    """The token budget itself; for 0 as many tokens as half of the free memory holds, shared by the threads.

    Between :data:`FEWEST_TOKENS` and :data:`MOST_TOKENS`. What fits is an estimate: :func:`splitting` mends it.
    """
    if token_budget:
        return token_budget
    workers = torch.get_num_threads() if device.type == "cpu" else 1
    most = MOST_TOKENS.get(device.type, MOST_TOKENS["cuda"])
    return max(FEWEST_TOKENS, min(most, free_memory(device) // 2 // workers // max(1, bytes_per_token)))


def free_memory(device: torch.device) -> int:
    """Bytes that can still be used on a device; on a CPU within the limits of its control group."""
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + unused
    limits = [2**32]  # where the system tells nothing
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        limits = [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    with suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit, used = ((group / f"memory.{name}").read_text(encoding="ascii") for name in ("max", "current"))
        limits.append(max(0, int(limit) - int(used)))
    return min(limits)
