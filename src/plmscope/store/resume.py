"""What long work has so far is saved now and then, so that a killed process loses seconds.

:func:`collect` is for a series of equal steps. Step k gives a few named arrays. They are stacked, and what is new goes
every twenty seconds into a file named after the inputs and the first step in it: ``STAMP-000000040.npz``. Whoever
continues takes the files that follow each other without a gap and were made from the same inputs, and throws damaged
ones away. :class:`Parts` is for sums over proteins: one file a name, written again as the sums grow.
"""

from __future__ import annotations

import shutil
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from plmscope.store.files import write_arrays

#: How often what is new is saved, in seconds.
SAVE_SECONDS = 20.0
#: The pause between two savings is at least so many times what one takes.
SAVE_PAUSE = 20.0

Arrays = dict[str, np.ndarray]


class Pace:
    """When what is new is due to be saved, and the saving itself.

    Args:
        seconds: Between two savings; left out: :data:`SAVE_SECONDS`.
        times: At least so many times what the last one took; left out: :data:`SAVE_PAUSE`.
    """

    def __init__(self, seconds: float | None = None, times: float | None = None) -> None:
        self._seconds = SAVE_SECONDS if seconds is None else seconds
        self._times = SAVE_PAUSE if times is None else times
        self._when, self._pause = time.monotonic(), self._seconds

    @property
    def due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() - self._when >= self._pause

    def save(self, path: Path, arrays: Mapping[str, np.ndarray]) -> None:
        """Write arrays to a file, atomically, and wait again.

        Raises:
            RunError: the folder is not writable or the disk is full.
        """
        before = time.monotonic()
        write_arrays(path, arrays)
        self._when = time.monotonic()
        self._pause = max(self._seconds, self._times * (self._when - before))


def collect(
    folder: Path,
    stamp: str,
    like: Mapping[str, np.ndarray],
    total: int,
    steps: Callable[[int], Iterable[Mapping[str, np.ndarray]]],
    say: Callable[[str], None] = lambda line: None,
) -> Arrays:
    """The stacked results of all steps, those of an earlier process included.

    Args:
        folder: Where parts are saved; made if it is missing. The caller removes it when the results are safe.
        stamp: Digest of the inputs; parts with another do not count.
        like: Name to an array with the shape and type of one step's result.
        total: Number of steps.
        steps: Called with the number of the first step that is wanted; gives its result, then the next ones.
        say: Told once if an earlier process had begun.

    Returns:
        Name to array ``(total, *shape)``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = {name: np.zeros((total, *one.shape), dtype=one.dtype) for name, one in like.items()}
    start = 0
    for path in sorted(folder.glob(f"{stamp}-*")):
        saved = read_part(path, like) if path.name == f"{stamp}-{start:09d}.npz" else None
        if saved is None:  # damaged, or after a damaged one
            path.unlink()
            continue
        stop = start + len(next(iter(saved.values())))
        for name, part in saved.items():
            found[name][start:stop] = part
        start = stop
    if start:
        say(f"continuing after {start:,} of {total:,}")
    saved_until, pace = start, Pace(times=0)
    for number, result in enumerate(steps(start), start):
        for name, one in result.items():
            found[name][number] = one
        if pace.due:
            stop = number + 1
            pace.save(folder / f"{stamp}-{saved_until:09d}.npz", {n: a[saved_until:stop] for n, a in found.items()})
            saved_until = stop
    return found


def read_arrays(path: Path) -> Arrays | None:
    """The arrays of a file; ``None`` if it is not there or damaged."""
    try:
        with np.load(path, allow_pickle=False) as saved:
            return dict(saved)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def read_part(path: Path, like: Mapping[str, np.ndarray]) -> Arrays | None:
    """One saved part, equally many steps of every name; ``None`` if it is damaged or of another shape."""
    arrays = read_arrays(path)
    if arrays is None or not like.keys() <= arrays.keys():
        return None
    arrays = {name: arrays[name] for name in like}
    shapes = {name: array.shape[1:] for name, array in arrays.items()}
    steps = {array.shape[:1] for array in arrays.values()}
    sound = len(steps) == 1 and shapes == {name: one.shape for name, one in like.items()}
    return arrays if sound else None


class Parts:
    """What a long stage has counted so far, so that it continues there after a kill.

    One ``.npz`` file a name, written atomically; files of other settings or another model are removed.

    Args:
        folder: Where they are; made with the first.
        stamp: Tells the settings and the model.
        seconds: How often :meth:`keep` writes, as of :class:`Pace`.
        pause: How long it waits after a slow writing, as ``times`` of :class:`Pace`.
    """

    def __init__(self, folder: Path, stamp: str, seconds: float | None = None, pause: float | None = None) -> None:
        self.folder, self._stamp, self._pace = folder, stamp[:16], Pace(seconds, pause)
        for path in folder.glob("*.npz"):
            if not path.name.startswith(f"{self._stamp}-"):
                path.unlink()

    def _path(self, name: str) -> Path:
        return self.folder / f"{self._stamp}-{name}.npz"

    def read(self, name: str) -> Arrays | None:
        """The arrays of a name; ``None`` if they are not there or damaged."""
        return read_arrays(self._path(name))

    def write(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write arrays under a name.

        Raises:
            RunError: the folder is not writable or the disk is full.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._pace.save(self._path(name), arrays)

    def keep(self, name: str, make: Callable[[], Mapping[str, np.ndarray]]) -> None:
        """Write what ``make`` gives if it is time to."""
        if self._pace.due:
            self.write(name, make())

    def drop(self, *names: str) -> None:
        """Remove names that are needed no more."""
        for name in names:
            self._path(name).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
