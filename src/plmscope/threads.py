"""How OpenMP's threads wait for each other: asleep.

PyTorch divides one operation among the cores and then waits for the slowest. The OpenMP library that it brings waits by
spinning, which is quickest on an idle machine; beside a busy neighbour the thread that has work and the one that waits
for it compete for the same core, and two threads together are slower than one (``benchmarks/neighbour.py``). The
library reads these variables once, when it is loaded, so ``import plmscope`` sets them before anything loads PyTorch;
the processes that it starts inherit them.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

#: What makes waiting threads sleep: of every OpenMP library, and of GNU's, which spins a little even so.
ASLEEP = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
#: Whoever has set one of these has made a choice of their own; the last is that of LLVM's and Intel's library.
CHOICES = (*ASLEEP, "KMP_BLOCKTIME")


def wait_asleep(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let OpenMP's threads sleep while they wait, unless the user has said how they wait.

    >>> mine, own = {}, {"GOMP_SPINCOUNT": "infinity"}
    >>> wait_asleep(mine), wait_asleep(own)
    (None, None)
    >>> mine, own
    ({'OMP_WAIT_POLICY': 'PASSIVE', 'GOMP_SPINCOUNT': '0'}, {'GOMP_SPINCOUNT': 'infinity'})
    """
    if not any(name in environment for name in CHOICES):
        environment.update(ASLEEP)
