"""One answer at a time, a few that wait, the quick ones first.

PyTorch uses all cores for one answer, and hooks on the model belong to one at a time, so answers are made by a single
thread. What waits is bounded: a request that finds the line full, or is not begun in time, is told so at once instead
of being kept. Long answers are asked for in parts, between which the others have their turn. One that nobody waits for
any more is not begun.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from plmscope.errors import PlmscopeError

T = TypeVar("T")
#: Requests that may wait, and how long each may, in seconds.
MOST_WAITING, LONGEST_WAIT = 4, 30.0


class FullError(PlmscopeError):
    """As many requests wait already as may."""


class Line:
    """A thread that does what it is given, and what waits for it.

    Args:
        most: How many may wait besides the one under way.
    """

    def __init__(self, most: int = MOST_WAITING) -> None:
        self.most = most
        self._waiting: list[tuple[int, int, Callable[[], Any], Future[Any]]] = []
        self._number, self._open, self._changed = 0, True, threading.Condition()
        self._thread = threading.Thread(target=self._work, name="plmscope-explore", daemon=True)
        self._thread.start()

    def add(self, work: Callable[[], T], *, quick: bool = False) -> Future[T]:
        """Have something done; quick work comes before the rest that waits.

        Raises:
            FullError: too much waits already.
        """
        found: Future[T] = Future()
        with self._changed:
            self._waiting = [one for one in self._waiting if not one[3].cancelled()]
            heapq.heapify(self._waiting)
            if not self._open or len(self._waiting) >= self.most:
                raise FullError(f"busy: {len(self._waiting)} requests wait already; try again in a moment")
            self._number += 1
            heapq.heappush(self._waiting, (0 if quick else 1, self._number, work, found))
            self._changed.notify()
        return found

    def close(self, patience: float = 10.0) -> None:
        """Do nothing more; what waits is cancelled, what is under way is waited for a few seconds."""
        with self._changed:
            self._open = False
            for *_, found in self._waiting:
                found.cancel()
            self._waiting.clear()
            self._changed.notify()
        self._thread.join(patience)

    def _work(self) -> None:
        while True:
            with self._changed:
                while self._open and not self._waiting:
                    self._changed.wait()
                if not self._waiting:
                    return
                _, _, work, found = heapq.heappop(self._waiting)
            if not found.set_running_or_notify_cancel():
                continue
            try:
                found.set_result(work())
            except BaseException as error:
                found.set_exception(error)
