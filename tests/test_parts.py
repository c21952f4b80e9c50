"""Saving a long series of steps: what is continued, what is thrown away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import plmscope.store.resume
from plmscope.store.resume import Parts, collect, read_part

LIKE = {"predicted": np.zeros(5, dtype=np.int16), "log_prob": np.zeros(5, dtype=np.float32)}


def step(number: int) -> dict[str, np.ndarray]:
    return {"predicted": np.full(5, number, dtype=np.int16), "log_prob": np.full(5, number / 4, dtype=np.float32)}


def test_continues_where_it_was_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plmscope.store.resume, "SAVE_SECONDS", -1)
    folder, begun, said = tmp_path / "parts", [], []

    def steps(start: int, until: int = 12) -> Iterator[dict[str, np.ndarray]]:
        begun.append(start)
        for number in range(start, 12):
            if number == until:
                raise KeyboardInterrupt
            yield step(number)

    with pytest.raises(KeyboardInterrupt):
        collect(folder, "a", LIKE, 12, lambda start: steps(start, 7))
    names = sorted(path.name for path in folder.iterdir())
    assert names == [f"a-{number:09d}.npz" for number in range(7)]
    (folder / names[4]).write_bytes(b"half")  # what follows a damaged part does not count
    found = collect(folder, "a", LIKE, 12, steps, said.append)
    assert begun == [0, 4] and said == ["continuing after 4 of 12"]
    assert found["predicted"].dtype == np.int16 and found["predicted"].shape == (12, 5)
    assert found["predicted"][:, 0].tolist() == list(range(12)) and found["log_prob"][9, 4] == 2.25

    begun.clear()
    collect(folder, "b", LIKE, 12, steps)
    collect(folder, "a", LIKE, 12, steps)
    assert begun == [0, 12]  # of other inputs; finished


def test_damaged_part_counts_as_none(tmp_path: Path) -> None:
    path = tmp_path / "part.npz"
    good = {name: np.zeros((2, *one.shape), dtype=one.dtype) for name, one in LIKE.items()}
    np.savez(path, **good)
    assert read_part(path, LIKE) is not None
    assert read_part(path, {name: one[:4] for name, one in LIKE.items()}) is None
    whole = path.read_bytes()
    for size in (0, 3, 100, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert read_part(path, LIKE) is None
    flipped = bytearray(whole)
    flipped[200] ^= 255  # inside the first array: its checksum tells
    path.write_bytes(flipped)
    assert read_part(path, LIKE) is None
    np.savez(path, predicted=good["predicted"], log_prob=good["log_prob"][:1])
    assert read_part(path, LIKE) is None
    np.savez(path, predicted=good["predicted"])
    assert read_part(path, LIKE) is None


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
