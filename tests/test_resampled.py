"""Resample ablation: which donors, which values, and what comes out, against hooks written by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import plmscope as ps
from plmscope.data.proteins import Protein
from plmscope.errors import SelectionError
from plmscope.evaluation.curves import INTACT, Grid, evaluate_points
from plmscope.evaluation.predict import predict
from plmscope.evaluation.resampled import Donors, donors, predict_resampled, tokens_of_donor
from plmscope.evaluation.selection import select_top
from plmscope.models.classifier import Classifier
from plmscope.models.hooks import module_of
from plmscope.models.sites import Site
from plmscope.scoring.scores import NeuronScores
from tests.conftest import make_proteins


def test_donors_are_of_other_classes_and_near_in_length() -> None:
    known = [(9, "1"), (10, "2"), (14, "3"), (30, "2")]
    pool = [Protein(f"d{i}", "A" * n, label) for i, (n, label) in enumerate(known)]
    asked = [Protein("p", "A" * 10, "1"), Protein("d1", "A" * 10, "3")]
    found = donors(asked, pool, k=2, seed=0)
    chosen = [[found.pool[place].id for place in row] for row in found.chosen]
    assert chosen == [["d1", "d2"], ["d0", "d3"]]  # never one's own class, never oneself
    with pytest.raises(SelectionError, match=r"ablation of 'p': 3 proteins of other classes, 4 are needed; lower"):
        donors(asked, pool, k=4)
    found = donors([Protein("q", "A" * 10, "1;2")], pool, k=1, task="multi")
    assert [found.pool[place].id for place in found.chosen[0]] == ["d2"]


def test_ties_are_for_the_seed() -> None:
    pool = [Protein(f"d{i}", "A" * 10, "2") for i in range(40)]
    asked = [Protein("p", "A" * 10, "1")]
    found = [donors(asked, pool, 1, seed) for seed in (0, 0, 1, 2)]
    first = [one.pool[int(one.chosen[0, 0])].id for one in found]
    assert first[0] == first[1] and len(set(first)) > 1


def by_hand(model: Classifier, protein: Protein, donor: Protein, site: Site, held: np.ndarray) -> np.ndarray:
    """Logits with some neurons of one site at a donor's values, with hooks of PyTorch alone."""
    module, place = module_of(model, site)
    seen: list[torch.Tensor] = []

    def look(_: object, given: object, out: torch.Tensor | None = None) -> None:
        seen.append(given[0] if place.side == "input" else out)  # type: ignore[index, arg-type]

    def change(_: object, given: object, out: torch.Tensor | None = None) -> object:
        own = (given[0] if place.side == "input" else out).clone()  # type: ignore[index, union-attr]
        own[0, :, held] = seen[0][0, tokens][:, held]
        return (own,) if place.side == "input" else own

    one, other = model.batch([protein]), model.batch([donor])
    tokens = tokens_of_donor(int(one.lengths[0]), int(other.lengths[0]), one.input_ids.shape[1])
    register = module.register_forward_pre_hook if place.side == "input" else module.register_forward_hook
    with torch.inference_mode():
        handle = register(look)  # type: ignore[operator]
        model.model(input_ids=other.input_ids, attention_mask=other.attention_mask)
        handle.remove()
        handle = register(change)  # type: ignore[operator]
        logits = model.model(input_ids=one.input_ids, attention_mask=one.attention_mask).logits
        handle.remove()
    return logits[0].double().numpy()


@pytest.mark.parametrize("module", ["query", "attention_output", "intermediate"])
def test_values_are_the_donors(tiny: Classifier, proteins: list[Protein], module: str) -> None:
    site = next(s for s in tiny.index.sites if s.layer == 1 and s.module == module)
    held = np.arange(0, tiny.index.widths[tiny.index.sites.index(site)], 2)
    mask = np.ones(len(tiny.index), dtype=bool)
    mask[np.arange(len(mask))[tiny.index.slice(site)][held]] = False
    pool = make_proteins(12, seed=5)
    given = donors(proteins, pool, k=2)
    (found,) = predict_resampled(tiny, proteins, [mask], given, 64)
    for row, protein in enumerate(proteins):
        each = [by_hand(tiny, protein, given.pool[place], site, held) for place in given.chosen[row]]
        p = torch.from_numpy(np.array(each)).softmax(1).mean(0)
        assert found.log_prob_true[row] == pytest.approx(float(p[tiny.targets([protein])[0]].log()), abs=1e-5)
        assert found.predicted[row] == int(p.argmax())


def test_nothing_held_is_the_intact_model_and_many_selections_come_in_order(
    tiny: Classifier, proteins: list[Protein], monkeypatch: pytest.MonkeyPatch
) -> None:
    import plmscope.evaluation.resampled as resampled

    monkeypatch.setattr(resampled, "CHUNK", 2)
    every = np.ones(len(tiny.index), dtype=bool)
    none = ~every
    given = donors(proteins, make_proteins(12, seed=5), k=2)
    found = list(predict_resampled(tiny, proteins, [every, none, every], given))
    intact = next(iter(predict(tiny, proteins, [(every, np.zeros((3, len(every))))])))
    for one in (found[0], found[2]):
        assert one.log_prob_true == pytest.approx(intact.log_prob_true, abs=1e-5)
        assert (one.predicted == intact.predicted).all() and one.predicted.dtype == intact.predicted.dtype
    assert np.abs(found[1].log_prob_true - intact.log_prob_true).max() > 0.01
    # A donor that is the protein itself changes nothing, whatever is held.
    own = Donors(tuple(proteins), np.arange(len(proteins))[:, None])
    (same,) = predict_resampled(tiny, proteins, [none], own)
    assert same.log_prob_true == pytest.approx(intact.log_prob_true, abs=1e-5)


def test_curves_and_single_evaluations_take_it(tiny: Classifier, proteins: list[Protein]) -> None:
    scores = NeuronScores("activation", tiny.index, np.arange(float(len(tiny.index))))
    grid = Grid({"activation": scores}, (0.5,), 0)
    points = grid.points(("keep",), ("mean", "resample"), ("pooled",), ("random",), 1, 1)
    constants = {"mean": np.zeros((3, len(tiny.index)))}
    pool = make_proteins(12, seed=5)
    given = donors(proteins, pool, k=1)
    found = dict(zip(points, evaluate_points(tiny, proteins, grid, points, constants, 64, given), strict=True))
    (own,) = (point for point in points if point.ablation == "resample" and point.method == "activation")
    (alone,) = predict_resampled(tiny, proteins, [grid.kept(own)], given, 64)
    assert found[own].log_prob_true == pytest.approx(alone.log_prob_true, abs=1e-6)
    assert INTACT in found and len(found) == 5
    with pytest.raises(SelectionError, match="resample needs donors"):
        list(evaluate_points(tiny, proteins, grid, points, constants))
    one = ps.evaluate(
        tiny, proteins, select_top(scores, 0.5), ablation="resample", pool=pool, n_random=2, allow_scored=True
    )
    assert "resample ablation" in repr(one)
    with pytest.raises(SelectionError, match="0 proteins of other classes"):
        ps.evaluate(tiny, proteins, select_top(scores, 0.5), ablation="resample", n_random=2)
