"""Out of memory: what is tried again, what is not, and how large the first attempt is."""

from __future__ import annotations

import pytest
import torch

from plmscope import workers
from plmscope.errors import ModelError
from plmscope.model import Batch, Classifier
from plmscope.workers import fitting_budget, free_memory, in_order, splitting
from tests.conftest import make_proteins

#: What PyTorch's CPU allocator says.
ALLOCATOR = (
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "4398046511104 bytes. Error code 12 (Cannot allocate memory)"
)


def test_the_allocators_own_error_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert workers.out_of_memory(caught.value)
    assert workers.out_of_memory(RuntimeError(ALLOCATOR))
    assert not workers.out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_halves_come_in_order_and_lose_their_padding(tiny: Classifier) -> None:
    many = make_proteins(5, seed=3)
    (batch,) = tiny.batches(many, 10_000)
    tried = []

    def work(part: Batch, budget: int) -> list[int]:
        tried.append(len(part.rows))
        if len(part.rows) > 2:
            raise RuntimeError(ALLOCATOR)
        assert part.input_ids.shape[1] == max(len(many[row]) + 2 for row in part.rows)
        assert part.residue_mask.sum(1).tolist() == [len(many[row]) for row in part.rows]
        return part.rows

    found = splitting(work, 7)(batch)
    assert [row for rows in found for row in rows] == batch.rows
    assert tried == [5, 2, 3, 1, 2]


def test_one_protein_is_tried_with_less_and_then_given_up(tiny: Classifier) -> None:
    (batch,) = tiny.batches(make_proteins(1), 10_000)
    budgets = []

    def work(part: Batch, budget: int) -> None:
        budgets.append(budget)
        raise MemoryError

    with pytest.raises(ModelError, match=r"a protein of 35 residues does not fit into memory alone; lower"):
        splitting(work, 200)(batch)
    assert budgets == [200, 100, 50, 25]


def test_other_errors_are_not_tried_again(tiny: Classifier) -> None:
    calls = []

    def work(part: Batch, budget: int) -> None:
        calls.append(part)
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        list(in_order(splitting(work, 100), tiny.batches(make_proteins(3), 10_000), torch.device("cpu")))
    assert len(calls) == 1


def test_an_automatic_budget_follows_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert 2**20 < free_memory(cpu) < 2**50
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(workers, "free_memory", lambda device: 4_000_000)
    assert fitting_budget(123, cpu, 1000) == 123
    assert fitting_budget(0, cpu, 1000) == 1000  # half of it, for two threads
    assert fitting_budget(0, cpu, 10**9) == workers.FEWEST_TOKENS
    assert fitting_budget(0, cpu, 1) == workers.MOST_TOKENS["cpu"]
    assert fitting_budget(0, torch.device("cuda"), 1000) == 2000
