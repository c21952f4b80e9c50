"""What long work has so far, so that a killed process loses seconds: the one place for it.

Every long piece of work is a list of tasks. A task has an id and gives the same result whenever, wherever and however
often it is done. What the tasks gave is kept in a folder, and whoever continues does those that are missing. There are
two ways to keep it:

- *By id.* :func:`collect` is for many small tasks, each of which gives arrays of the same shape; several are kept in
  one file, and some of the tasks may be done by another process (:func:`collect_share`). :class:`Parts` is for few
  large ones, a file each.
- *As a sum*, where results only matter together: a file of :class:`Parts` has the sum so far and which tasks are in
  it.

Files are named ``STAMP-NAME.npz``, after a digest of what the tasks depend on, so that results of other settings are
never taken for these. They are written whole or not at all, and a damaged one counts as none. Whoever does the tasks is
told no more than which are missing, and may give results in any order: it may be this process, or several others.

Two things continue in another way. A training goes on from the checkpoints of the library that trains it
(:mod:`plmscope.models.finetune`): its steps depend on each other, and only that library knows its whole state. A
download goes on from the last page that the service sent (:mod:`plmscope.data.fetch`): the next page is known from it.
"""

from __future__ import annotations

import shutil
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from plmscope.errors import RunError, unwritten_advice
from plmscope.store.files import write_arrays, write_atomic

#: How often what is new is saved, in seconds.
SAVE_SECONDS = 20.0
#: The pause between two savings is at least so many times what one takes.
SAVE_PAUSE = 20.0
#: In a file of :func:`collect`, the numbers of the tasks that are in it.
NUMBERS = "tasks"

Arrays = dict[str, np.ndarray]
#: Does tasks by their numbers, in any order; gives the number of each with its result.
Work = Callable[[Sequence[int]], Iterable[tuple[int, Mapping[str, np.ndarray]]]]


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


class Parts:
    """Results of tasks, or sums of them, each under a name, in a folder.

    Args:
        folder: Where they are; made with the first.
        stamp: Tells what they depend on.
        seconds: How often :meth:`keep` writes, as of :class:`Pace`.
        pause: How long it waits after a slow writing, as ``times`` of :class:`Pace`.
        shared: Leave what has another stamp; else it is removed, because nobody will ask for it again.
    """

    def __init__(
        self, folder: Path, stamp: str, seconds: float | None = None, pause: float | None = None, shared: bool = False
    ) -> None:
        self.folder, self._stamp, self._pace = folder, stamp[:16], Pace(seconds, pause)
        for path in () if shared else folder.glob("*.npz"):
            if not path.name.startswith(f"{self._stamp}-"):
                path.unlink()

    def path(self, name: str) -> Path:
        """The file of a name."""
        return self.folder / f"{self._stamp}-{name}.npz"

    def names(self) -> list[str]:
        """The names that have a file."""
        return sorted(path.stem.removeprefix(f"{self._stamp}-") for path in self.folder.glob(f"{self._stamp}-*.npz"))

    def read(self, name: str) -> Arrays | None:
        """The arrays of a name; ``None`` if they are not there or damaged."""
        return read_arrays(self.path(name))

    def write(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write arrays under a name.

        Raises:
            RunError: the folder is not writable or the disk is full.
        """
        make_folder(self.folder)
        self._pace.save(self.path(name), arrays)

    def keep(self, name: str, make: Callable[[], Mapping[str, np.ndarray]]) -> None:
        """Write what ``make`` gives if it is time to."""
        if self._pace.due:
            self.write(name, make())

    def drop(self, *names: str) -> None:
        """Remove names that are needed no more."""
        for name in names:
            self.path(name).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


def collect(
    folder: Path,
    stamp: str,
    like: Mapping[str, np.ndarray],
    total: int,
    work: Work,
    say: Callable[[str], None] = lambda line: None,
) -> Arrays:
    """The stacked results of the tasks 0, 1, 2, ..., those of earlier processes included.

    What is new is saved every :data:`SAVE_SECONDS`, in a file named after the first task in it.

    Args:
        folder: Where results are kept; made if it is missing. The caller removes it when they are safe elsewhere.
        stamp: Digest of what the tasks depend on; files with another one do not count.
        like: Name to an array with the shape and type of one task's result.
        total: Number of tasks.
        work: Does those that are missing; not called if none is.
        say: Told once if some were done before.

    Returns:
        Name to array ``(total, *shape)``.

    Raises:
        RunError: the folder is not writable or the disk is full.
    """
    results, missing = _kept(folder, stamp, like, total)
    todo = np.flatnonzero(missing).tolist()
    if len(todo) < total:
        say(f"continuing after {total - len(todo):,} of {total:,}")
    _do(folder, stamp, results, work, todo)
    return results


def collect_share(
    folder: Path, stamp: str, like: Mapping[str, np.ndarray], total: int, work: Work, numbers: Sequence[int]
) -> bool:
    """Do some of the tasks of :func:`collect`, and keep all that they gave; others may do theirs at the same time.

    Args:
        folder: As for :func:`collect`.
        stamp: As there.
        like: As there.
        total: Of all tasks.
        work: Does those of ``numbers`` that are missing.
        numbers: Of the tasks that are to be done.

    Returns:
        Whether the results of all tasks are there now.

    Raises:
        RunError: the folder is not writable or the disk is full.
    """
    results, missing = _kept(folder, stamp, like, total)
    new = _do(folder, stamp, results, work, [number for number in numbers if missing[number]])
    if new:
        _save(folder, stamp, results, new, Pace())
    return not _kept(folder, stamp, like, total)[1].any()


def _kept(folder: Path, stamp: str, like: Mapping[str, np.ndarray], total: int) -> tuple[Arrays, np.ndarray]:
    """What is known of the tasks of :func:`collect`, and ``(total,)`` which are missing; damaged files go."""
    make_folder(folder)
    results = {name: np.zeros((total, *one.shape), dtype=one.dtype) for name, one in like.items()}
    missing = np.ones(total, dtype=bool)
    for path in sorted(folder.glob(f"{stamp}-*.npz")):
        saved = read_part(path, like, total)
        if saved is None:
            path.unlink()
            continue
        tasks = saved.pop(NUMBERS)
        for name, part in saved.items():
            results[name][tasks] = part
        missing[tasks] = False
    return results, missing


def _do(folder: Path, stamp: str, results: Arrays, work: Work, todo: Sequence[int]) -> list[int]:
    """Put the results of tasks in their places, and save them now and then; those that are not saved yet."""
    pace, new = Pace(times=0), list[int]()
    for number, result in work(todo) if todo else ():
        for name, one in result.items():
            results[name][number] = one
        new.append(number)
        if pace.due:
            _save(folder, stamp, results, new, pace)
            new = []
    return new


def _save(folder: Path, stamp: str, results: Arrays, new: list[int], pace: Pace) -> None:
    """Write new results into a file that is named after the first of them."""
    saved = {NUMBERS: np.array(new)} | {name: array[new] for name, array in results.items()}
    pace.save(folder / f"{stamp}-{min(new):09d}.npz", saved)


def read_arrays(path: Path) -> Arrays | None:
    """The arrays of a file; ``None`` if it is not there or damaged."""
    try:
        with np.load(path, allow_pickle=False) as saved:
            return dict(saved)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def read_part(path: Path, like: Mapping[str, np.ndarray], total: int) -> Arrays | None:
    """A file of :func:`collect`; ``None`` if it is damaged, of results of another shape, or of more tasks."""
    arrays = read_arrays(path)
    if arrays is None or arrays.keys() != {NUMBERS, *like}:
        return None
    tasks = arrays[NUMBERS]
    sound = tasks.ndim == 1 and tasks.dtype.kind == "i" and bool(((tasks >= 0) & (tasks < total)).all())
    sound = sound and all(arrays[name].shape == (*tasks.shape, *one.shape) for name, one in like.items())
    return arrays if sound else None


def make_once(path: Path, mark: Path, stamp: str, make: Callable[[], bytes]) -> None:
    """Write a file that is not there yet, or was made from something else: one task whose result stays.

    Args:
        path: The file.
        mark: A file beside it that says what it was made from.
        stamp: Digest of what it is made from now.
        make: Gives its content.

    Raises:
        RunError: the folder is not writable or the disk is full.
    """
    if not (path.is_file() and mark.is_file() and mark.read_text() == stamp):
        write_atomic(path, make())
        write_atomic(mark, stamp.encode())


def make_folder(folder: Path) -> None:
    """Make a folder and those above it.

    Raises:
        RunError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot be made ({error.strerror}); {unwritten_advice(error.errno)}") from None
