"""What long work has so far: which tasks are continued, which are done again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

import plmscope.store.resume
from plmscope.store.resume import Pace, Parts, collect, make_once, read_part

LIKE = {"predicted": np.zeros(5, dtype=np.int16), "log_prob": np.zeros(5, dtype=np.float32)}


def step(number: int) -> dict[str, np.ndarray]:
    return {"predicted": np.full(5, number, dtype=np.int16), "log_prob": np.full(5, number / 4, dtype=np.float32)}


def test_continues_where_it_was_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plmscope.store.resume, "SAVE_SECONDS", -1)
    folder, begun, said = tmp_path / "parts", list[Sequence[int]](), list[str]()

    def work(todo: Sequence[int], until: int = 12) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        begun.append(todo)
        for number in todo:
            if number == until:
                raise KeyboardInterrupt
            yield number, step(number)

    with pytest.raises(KeyboardInterrupt):
        collect(folder, "a", LIKE, 12, lambda todo: work(todo, 7))
    names = sorted(path.name for path in folder.iterdir())
    assert names == [f"a-{number:09d}.npz" for number in range(7)]
    (folder / names[4]).write_bytes(b"half")  # its task alone is done again
    found = collect(folder, "a", LIKE, 12, work, said.append)
    assert begun[1] == [4, *range(7, 12)] and said == ["continuing after 6 of 12"]
    assert found["predicted"].dtype == np.int16 and found["predicted"].shape == (12, 5)
    assert found["predicted"][:, 0].tolist() == list(range(12)) and found["log_prob"][9, 4] == 2.25

    begun.clear()
    collect(folder, "b", LIKE, 12, work)
    collect(folder, "a", LIKE, 12, work)
    assert begun == [list(range(12))]  # of other inputs; the finished ones are not begun at all


def test_results_may_come_in_any_order_and_are_saved_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they do where several workers share the tasks: whatever was saved is never done again."""
    order, done = np.random.default_rng(0).permutation(40).tolist(), list[int]()
    due = {6, 7, 20}
    monkeypatch.setattr(Pace, "due", property(lambda pace: len(done) in due))

    def work(todo: Sequence[int]) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        for number in (one for one in order if one in todo):
            done.append(number)
            yield number, step(number)
            if len(done) == 25:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(tmp_path, "a", LIKE, 40, work)
    assert len(list(tmp_path.iterdir())) == 3 and len(done) == 25
    found = collect(tmp_path, "a", LIKE, 40, work)
    assert done[25:] == order[20:]
    assert found["log_prob"][:, 0].tolist() == [number / 4 for number in range(40)]
    done.clear()
    shorter = collect(tmp_path, "a", LIKE, 30, work)  # files with tasks that there are no more do not count
    assert shorter["predicted"][:, 2].tolist() == list(range(30))


def test_a_file_is_made_once_for_what_it_is_made_from(tmp_path: Path) -> None:
    path, mark, made = tmp_path / "means", tmp_path / "means.fingerprint", list[str]()
    for stamp in ("a", "a", "b"):
        make_once(path, mark, stamp, lambda stamp=stamp: made.append(stamp) or stamp.encode())
    assert made == ["a", "b"] and path.read_bytes() == b"b"
    path.unlink()
    make_once(path, mark, "b", lambda: b"c")
    assert path.read_bytes() == b"c"


def test_damaged_part_counts_as_none(tmp_path: Path) -> None:
    path = tmp_path / "part.npz"
    good = {name: np.zeros((2, *one.shape), dtype=one.dtype) for name, one in LIKE.items()} | {
        "tasks": np.array([3, 1])
    }
    np.savez(path, **good)
    assert read_part(path, LIKE, 4) is not None
    assert read_part(path, LIKE, 3) is None  # task 3 is the fourth
    assert read_part(path, {name: one[:4] for name, one in LIKE.items()}, 4) is None
    whole = path.read_bytes()
    for size in (0, 3, 100, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert read_part(path, LIKE, 4) is None
    flipped = bytearray(whole)
    flipped[200] ^= 255  # inside the first array: its checksum tells
    path.write_bytes(flipped)
    assert read_part(path, LIKE, 4) is None
    np.savez(path, **good | {"log_prob": good["log_prob"][:1]})
    assert read_part(path, LIKE, 4) is None
    np.savez(path, **good | {"tasks": np.array([-1, 1])})
    assert read_part(path, LIKE, 4) is None
    np.savez(path, predicted=good["predicted"], tasks=good["tasks"])
    assert read_part(path, LIKE, 4) is None


def test_parts_are_kept_now_and_then_and_those_of_other_settings_go(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "parts", "a" * 64, seconds=0, pause=0)
    assert parts.read("sums") is None and not parts.folder.exists()
    parts.keep("sums", lambda: {"done": np.arange(3), "text": np.array(["x"])})
    found = Parts(tmp_path / "parts", "a" * 64).read("sums")
    assert found is not None and found["done"].tolist() == [0, 1, 2] and found["text"].tolist() == ["x"]
    Parts(parts.folder, "a" * 64).keep("sums", lambda: {"done": np.zeros(0)})  # too early
    assert len((parts.read("sums") or {})["done"]) == 3
    path = next(parts.folder.iterdir())
    path.write_bytes(path.read_bytes()[:-30])
    assert parts.read("sums") is None  # damaged: begun again
    assert Parts(parts.folder, "b" * 64).read("sums") is None and not path.exists()
    parts.write("sums", {})
    parts.remove()
    assert not parts.folder.exists()
