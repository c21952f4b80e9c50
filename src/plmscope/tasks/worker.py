"""The other end of a process of the engine ``processes``: takes a task, does it, sends what became of it.

It ends when the process that started it does: a worker that waits sees its pipe close, and one that is at work looks
every second whether its parent is still there. With it goes whatever it has started.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

from plmscope.tasks.task import do

#: How often a worker looks for its parent, in seconds.
LOOKS = 1.0


def main(handle: int, parent: int) -> None:
    """Do tasks until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started it decides
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    pipe = Connection(handle)
    shared: dict[str, Any] = {}
    while True:
        try:
            task = pipe.recv()
            while isinstance(task, dict):  # what the next tasks have in common
                shared = task
                task = pipe.recv()
        except (EOFError, OSError):
            return
        outcome = do(task, **shared)
        try:
            pipe.send(outcome)
        except OSError:  # nobody is there any more
            return


def _follow(parent: int) -> None:
    """End this process and its children when its parent has ended; it leads a group of its own."""
    while os.getppid() == parent:
        time.sleep(LOOKS)
    os.killpg(os.getpgid(0), signal.SIGKILL)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
