"""Shared and specific neurons: one marker of one group is found, and what any labels would give is not called so."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from plmscope.data.proteins import Protein
from plmscope.errors import StudyError
from plmscope.evaluation.interventions import Change, nothing
from plmscope.layout.attributions import per_protein
from plmscope.layout.measure import held, measuring
from plmscope.layout.shared import Grouped, shared_tables, transfer_table, with_q
from plmscope.models.sites import NeuronIndex
from plmscope.study.laying_shared import _train_of, groups_of
from tests.layout_planted import planted_run
from tests.planted import LABEL_ROLES

INDEX = NeuronIndex.of(layers=1, hidden=20, intermediate=60)
#: A neuron that every protein needs, and one that group A needs.
AND, MARKER = 17, 90


def grouped(n: int = 16, seed: int = 0) -> Grouped:
    """Two groups of proteins in which the AND neuron counts, and in the first the marker too; the rest is noise."""
    group = np.repeat([0, 1], n)
    attributions = np.random.default_rng(seed).random((2 * n, len(INDEX))) * 0.1
    attributions[:, AND] = 1
    attributions[group == 0, MARKER] = 0.6
    return Grouped(("A", "B"), group, attributions)


def test_the_and_neuron_is_shared_and_the_marker_specific() -> None:
    neurons, sharing = shared_tables(INDEX, {"1": grouped()})
    found = {INDEX.offsets[INDEX.sites[i]]: INDEX.sites[i].module for i in range(len(INDEX.sites))}
    first = {module: offset for offset, module in found.items()}
    places = [first[row.module] + row.neuron for row in neurons.itertuples()]
    assert dict(zip(places, neurons["kind"], strict=True)) == {AND: "independent", MARKER: "specific"}
    assert neurons["groups"].tolist() == ["A; B", "A"] and neurons["smallest_share"].tolist() == [1, 0]
    row = sharing.iloc[0]
    assert row["independent"] == row["specific"] == 1
    assert row["p_specific"] < 0.05 and row["jaccard"] == 0.5 and row["p_overlap"] <= 0.05


def test_specific_neurons_of_no_group_are_what_any_labels_give() -> None:
    # Every protein is strong in neurons of its own: small groups have neurons in common that the others lack.
    rng = np.random.default_rng(1)
    attributions = (rng.random((9, len(INDEX))) < 0.45).astype(np.float64)
    attributions[:, AND] = 1
    _, sharing = shared_tables(INDEX, {"1": Grouped(("A", "B", "C"), np.repeat([0, 1, 2], 3), attributions)})
    row = sharing.iloc[0]
    assert row["specific"] > 10  # what counting alone would report
    assert row["p_specific"] > 0.05 and row["specific_against"] == pytest.approx(row["specific"], rel=0.5)


def answers(name: str, proteins: Sequence[Protein], changes: Sequence[Change]) -> np.ndarray:
    """Class 1 is lost without the AND neuron, and in proteins of group A (W) without the marker."""
    out = np.tile(np.array([-3.0, 3.0]), (len(changes), len(proteins), 1))
    for k, change in enumerate(changes):
        for row, protein in enumerate(proteins):
            if change.selection.mask[AND] or (change.selection.mask[MARKER] and protein.sequence[0] == "W"):
                out[k, row] = [3.0, -3.0]
    return out


@pytest.mark.parametrize(("n", "shared"), [(1, True), (2, True), (2, False)])
def test_transfer_is_one_for_what_is_shared_and_zero_for_the_marker(n: int, shared: bool) -> None:
    one = grouped()
    if not shared:  # each group rests on its own neuron
        one.attributions[:, AND] = np.where(one.group == 1, 1.0, 0.0)
    proteins = [Protein(f"p{i}", ("W" if i < 8 else "A") + "L" * 9, "1") for i in range(16)]
    group = np.repeat([0, 1], 8)

    def measure(name: str, some: Sequence[Protein], changes: Sequence[Change]) -> np.ndarray:
        if shared:
            return answers(name, some, changes)
        out = np.tile(np.array([-3.0, 3.0]), (len(changes), len(some), 1))
        for k, change in enumerate(changes):
            for row, protein in enumerate(some):
                if change.selection.mask[MARKER if protein.sequence[0] == "W" else AND]:
                    out[k, row] = [3.0, -3.0]
        return out

    frame = transfer_table(
        measure, "t", INDEX, one, proteins, [p.id for p in proteins], group, 1, n=1 if not shared else n
    )
    frame = with_q(frame.assign(label="1")).set_index(["chosen_on", "measured_on"])
    assert frame["drop_own"].min() > 0.9 and (frame["against"] < frame["drop_own"]).all()
    ratio = frame["ratio"]
    assert ratio["A", "A"] == ratio["B", "B"] == 1
    for pair in (("A", "B"), ("B", "A")):
        assert ratio[pair] == pytest.approx(1 if shared else 0, abs=0.1)
    if not shared:
        assert frame.loc[("A", "B"), "ci_high"] < 0.1 and frame.loc[("A", "A"), "p_value"] < 0.1


def test_planted_roles_are_independent_of_groups(tmp_path_factory: pytest.TempPathFactory) -> None:
    run = planted_run(tmp_path_factory.mktemp("planted"))
    own = [p for p in run.train if p.label == "1"][:12]
    one = Grouped(("A", "B"), np.repeat([0, 1], 6), per_protein(run.model, own, run.means))
    neurons, sharing = shared_tables(run.model.index, {"1": one})
    table = run.model.index.table()
    rows = table.reset_index().merge(neurons, on=["layer", "module", "neuron"])
    independent = set(rows.loc[rows["kind"] == "independent", "index"])
    # The roles that differ between the classes, but for the key, and those that bring the W to the AND: a W is as
    # frequent in both classes, but in this one the AND reads it.
    roles = [role for role in LABEL_ROLES if role != "key_motif"]
    assert independent == set(run.positions(*roles, "read_w", "write_w_copied")) == set(rows["index"])
    assert sharing.iloc[0]["p_specific"] > 0.05
    test = [p for p in run.test if p.label == "1"][:8]
    frame = transfer_table(
        measuring(run.model, run.means), "t", run.model.index, one, test, [p.id for p in test],
        np.repeat([0, 1], 4), 1, n=len(independent), draws=20,
    )  # fmt: skip
    assert frame["ratio"].between(0.9, 1.1).all() and (frame["drop"] > 0.5).all() and (frame["p_value"] < 0.05).all()
    assert (frame["p_dealt"] > 0.05).all()  # dealt labels choose the same neurons
    # The class is lost without the key too. All attention is on the motif, so that its gradient is all but nothing.
    key = run.positions("key_motif")
    assert (one.attributions[:, key] < 0.02 * one.attributions.max(1, keepdims=True)).all()
    intact, without = measuring(run.model, run.means)("k", test, [nothing(run.model.index), held(run.model.index, key)])
    assert (intact.argmax(1) == 1).all() and (without.argmax(1) == 0).all()


def test_a_planted_marker_of_one_taxon_does_not_carry_over(tmp_path_factory: pytest.TempPathFactory) -> None:
    run = planted_run(tmp_path_factory.mktemp("marked"), marked=True)
    index, group = run.model.index, np.repeat([0, 1], 16)
    train, test = (
        [p for p in some if p.label == "1" and "U" in p.sequence][:n]
        + [p for p in some if p.label == "1" and "U" not in p.sequence][:n]
        for some, n in ((run.train, 16), (run.test, 8))
    )
    attributed = per_protein(run.model, train, run.means)
    inner = np.array([index.sites[site].module == "intermediate" for site in index.site_of])
    one = Grouped(("A", "B"), group, np.where(inner, attributed, 0.0))  # feed-forward neurons, as in the source
    both, marker = run.positions("and")[0], run.marker
    neurons, sharing = shared_tables(index, {"1": Grouped(one.names, group, attributed)})
    rows = index.table().reset_index().merge(neurons, on=["layer", "module", "neuron"])
    kinds = rows.loc[rows["module"] == "intermediate"].set_index("index")["kind"].to_dict()
    assert kinds == {both: "independent", marker: "specific"} and sharing.iloc[0]["p_specific"] < 0.05
    assert neurons.loc[neurons["kind"] == "specific", "groups"].iloc[0] == "A"
    assert [one.best(group, g, 1).tolist() for g in (0, 1)] == [[marker], [both]]
    frame = transfer_table(
        measuring(run.model, run.means), "t", index, one, test, [p.id for p in test], group[::2], 1, n=1, draws=20
    ).set_index(["chosen_on", "measured_on"])
    assert (frame["n_proteins"] == 8).all() and (frame["drop_own"] > 0.9).all()
    assert frame.loc[("B", "A"), "ratio"] == pytest.approx(1, abs=0.1)  # the AND neuron
    assert frame.loc[("A", "B"), "ratio"] == pytest.approx(0, abs=0.1)  # the marker


TAXA = (*["Bacteria"] * 9, *["Archaea"] * 5, *["Viruses"] * 2, *[""] * 3)


def laying(column: str, taxa: Sequence[str] = TAXA) -> Any:
    """A run whose proteins have a taxon, some of them none."""
    proteins = [Protein(f"p{i}", "A", "1", {"taxon": taxon}) for i, taxon in enumerate(taxa)]
    return SimpleNamespace(
        context=SimpleNamespace(
            study=SimpleNamespace(layout=SimpleNamespace(group_column=column)),
            inputs=SimpleNamespace(data=SimpleNamespace(proteins=proteins)),
        ),
        opened=SimpleNamespace(clusters={p.id: p.id for p in proteins}),
        seed=0, train=proteins,
    )  # fmt: skip


def test_groups_of_a_column_give_as_many_clusters() -> None:
    run = laying("taxon")
    of = groups_of(run)
    assert len(of) == 16 and set(of.values()) == {"Bacteria", "Archaea", "Viruses"}
    found = _train_of(run, run.train, of)
    assert {name: len(own) for name, own in found.items()} == {"Archaea": 5, "Bacteria": 5}  # two viruses are too few
    assert {p.columns["taxon"] for p in found["Archaea"]} == {"Archaea"}
    many = laying("taxon", "abcdefgh" * 12 + "bcdefgh")  # all have enough, the first by name fewest
    chosen = _train_of(many, many.train, groups_of(many))
    assert list(chosen) == list("bcdefg") and {len(own) for own in chosen.values()} == {12}
    parts = groups_of(laying(""))
    assert set(parts.values()) == {"part 1", "part 2", "part 3"} and len(parts) == 19
    with pytest.raises(StudyError, match=r"layout.group_column: the proteins have no column 'phylum'; there are taxon"):
        groups_of(laying("phylum"))
