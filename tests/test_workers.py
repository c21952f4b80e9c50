"""Out of memory: what is tried again, what is not, and how large the first attempt is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from plmscope.errors import ModelError
from plmscope.evaluation.predict import predict
from plmscope.knowledge.stream import stream_of
from plmscope.models import workers
from plmscope.models.classifier import Batch, Classifier
from plmscope.models.hooked import Hooked
from plmscope.models.loading import load_model
from plmscope.models.workers import LAST_RESORT, fitting_budget, free_memory, in_order, splitting
from tests.conftest import make_proteins
from tests.families import HOOKED

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
    blas = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
    assert workers.out_of_memory(RuntimeError(blas))
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
    assert budgets == [200, 100, 50, 25, LAST_RESORT]


@pytest.fixture
def little_memory(tiny: Classifier) -> Iterator[list[int]]:
    """The tiny model takes two proteins at a time; the sizes that were tried."""
    tried: list[int] = []

    def refuse(module: torch.nn.Module, args: tuple[object, ...], kwargs: dict[str, torch.Tensor]) -> None:
        tried.append(len(kwargs["input_ids"]))
        if tried[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    handle = tiny.model.register_forward_pre_hook(refuse, with_kwargs=True)
    yield tried
    handle.remove()


def test_streams_and_probabilities_come_in_parts(tiny: Classifier, little_memory: list[int]) -> None:
    many = make_proteins(5, seed=3)
    sites = tiny.index.sites[:2]
    one_by_one = [next(stream_of(tiny, sites)([protein], "")).values for protein in many]
    alone = np.concatenate([tiny.log_probabilities([protein]) for protein in many])
    little_memory.clear()
    chunks = list(stream_of(tiny, sites, 10_000)(many, ""))
    assert little_memory == [5, 2, 3, 1, 2]
    assert sorted(row for chunk in chunks for row in chunk.rows) == list(range(5))
    for chunk in chunks:
        want = torch.cat([one_by_one[row] for row in chunk.rows])
        torch.testing.assert_close(chunk.values, want, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(tiny.log_probabilities(many, 10_000), alone, atol=1e-6)


def test_hooked_networks_are_evaluated_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, many = load_model(HOOKED["esm_mean"](tmp_path)), make_proteins(5, seed=3)
    keep = [(np.random.default_rng(1).random(len(model.index)) < 0.5, np.zeros((3, len(model.index))))]
    (reference,) = predict(model, many, keep, 10_000)
    real = Hooked.logits

    def small(network: Hooked, batch: Batch) -> torch.Tensor:
        if len(batch.rows) > 2:
            raise MemoryError
        return real(network, batch)

    monkeypatch.setattr(Hooked, "logits", small)
    (found,) = predict(model, many, keep, 10_000)
    np.testing.assert_allclose(found.log_prob_true, reference.log_prob_true, atol=1e-5)


def test_batches_are_made_when_it_is_their_turn(tiny: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    real = Classifier.batch
    monkeypatch.setattr(Classifier, "batch", lambda *args: made.append(args[2]) or real(*args))
    stream = stream_of(tiny, tiny.index.sites[:1], 60)(make_proteins(9, seed=3), "")
    assert len(made) == 0 and next(stream).rows == made[0] and len(made) == 1


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
