"""Selections: sizes, ties, draws, files, set algebra and density, each worked out by hand."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import hypergeom

from plmscope.errors import SelectionError
from plmscope.evaluation.density import agreement, density, layer_deciles
from plmscope.evaluation.selection import Selection, draw, of_module, select_top, size_of, strata
from plmscope.models.architectures import MODULES
from plmscope.models.sites import Neuron, NeuronIndex, Site
from plmscope.scoring.scores import NeuronScores

INDEX = NeuronIndex.of(layers=2, hidden=20, intermediate=80)  # 360 neurons
SMALL = NeuronIndex.of(layers=2, hidden=2, intermediate=4)  # 28 neurons: 2 2 2 2 4 2 in each layer


def scored(values: np.ndarray, index: NeuronIndex = INDEX, method: str = "some") -> NeuronScores:
    return NeuronScores(method, index, np.asarray(values, dtype=np.float64), proteins=("a", "b"))


def chosen(positions: list[int], index: NeuronIndex = SMALL, name: str = "chosen", proteins: tuple[str, ...] = ()):  # type: ignore[no-untyped-def]
    return Selection(index, np.isin(np.arange(len(index)), positions), name, proteins)


@pytest.fixture
def scores() -> NeuronScores:
    return scored(np.random.default_rng(0).normal(size=len(INDEX)))


# --- the best share


@pytest.mark.parametrize(
    ("fraction", "total", "size"),
    [(0.001, 360, 1), (0.1, 360, 36), (0.0125, 360, 5), (0.0124, 360, 4), (0.0375, 40, 2), (1.0, 360, 360)],
)
def test_sizes_round_half_up_and_are_never_zero(fraction: float, total: int, size: int) -> None:
    assert size_of(fraction, total) == size


@pytest.mark.parametrize("fraction", [0.001, 0.0125, 0.02, 0.333, 1.0])
def test_pooled_takes_the_best_of_all(scores: NeuronScores, fraction: float) -> None:
    top = select_top(scores, fraction)
    assert len(top) == max(1, int(np.floor(fraction * 360 + 0.5)))
    assert scores.values[top.mask].min() >= scores.values[~top.mask].max(initial=-np.inf)
    assert top.proteins == ("a", "b")


@pytest.mark.parametrize(("fraction", "narrow", "wide"), [(0.01, 1, 1), (0.125, 3, 10), (0.12, 2, 10), (1.0, 20, 80)])
def test_per_site_takes_the_best_of_each(scores: NeuronScores, fraction: float, narrow: int, wide: int) -> None:
    top = select_top(scores, fraction, "per_site")
    for site, mask in INDEX.split(top.mask).items():
        values = INDEX.split(scores.values)[site]
        assert mask.sum() == (wide if site.module == "intermediate" else narrow)
        assert values[mask].min() >= values[~mask].max(initial=-np.inf)


def test_ties_go_to_the_earlier_site_and_the_lower_index() -> None:
    values = np.zeros(len(SMALL))
    values[[5, 9, 20]] = 1, 1, 2
    assert np.flatnonzero(select_top(scored(values, SMALL), 2 / 28).mask).tolist() == [5, 20]
    assert np.flatnonzero(select_top(scored(values, SMALL), 5 / 28).mask).tolist() == [0, 1, 5, 9, 20]
    firsts = [SMALL.slice(site).start for site in SMALL.sites]
    level = np.arange(len(SMALL.sites), dtype=float)[SMALL.site_of]
    assert np.flatnonzero(select_top(scored(level, SMALL), 0.01, "per_site").mask).tolist() == firsts


@pytest.mark.parametrize("scope", ["pooled", "per_site"])
def test_scores_that_are_all_equal_rank_nothing(scope: str) -> None:
    with pytest.raises(SelectionError, match=r"some: all 28 neurons have the same score \(3\), so none is better"):
        select_top(scored(np.full(28, 3.0), SMALL), 0.1, scope)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_no_number_is_named(scores: NeuronScores, bad: float) -> None:
    scores.values[[25, 300]] = bad
    with pytest.raises(SelectionError, match=f"some: the score of layer 0 key 5 is .*{bad}"):
        select_top(scores, 0.1)


@pytest.mark.parametrize("fraction", [0, -0.1, 1.01, float("nan")])
def test_an_impossible_share_is_refused(scores: NeuronScores, fraction: float) -> None:
    with pytest.raises(SelectionError, match="must be above 0 and at most 1"):
        select_top(scores, fraction)


def test_an_unknown_scope_is_refused(scores: NeuronScores) -> None:
    with pytest.raises(SelectionError, match="'sites' is not known; choose one of pooled, per_site"):
        select_top(scores, 0.1, "sites")


# --- draws


def test_strata_of_the_three_controls() -> None:
    assert not strata("random", INDEX).any()
    assert (strata("random_matched", INDEX) == INDEX.site_of).all()
    activity = np.random.default_rng(1).normal(size=len(INDEX))
    groups = strata("random_active", INDEX, activity)
    for number, site in enumerate(INDEX.sites):
        group, values = groups[INDEX.slice(site)] - 10 * number, activity[INDEX.slice(site)]
        assert np.bincount(group).tolist() == [len(values) // 10] * 10
        for decile in range(9):
            assert values[group == decile].max() < values[group == decile + 1].min()
    # fewer neurons than deciles: each is a group of its own, and never one of the next site
    few = strata("random_active", SMALL, np.arange(28.0))
    assert few[:4].tolist() == [0, 5, 10, 15] and few.max() < 10 * len(SMALL.sites)
    with pytest.raises(SelectionError, match="needs the activation_std"):
        strata("random_active", INDEX)
    with pytest.raises(SelectionError, match="'shuffled' is not known"):
        strata("shuffled", INDEX)


@pytest.mark.parametrize("control", ["random", "random_matched", "random_active"])
def test_draws_copy_the_counts_and_are_nested(scores: NeuronScores, control: str) -> None:
    groups = strata(control, INDEX, np.abs(scores.values))
    tops = [select_top(scores, fraction) for fraction in (0.01, 0.05, 0.2, 0.6)]
    drawn = draw(INDEX, groups, tops, (0, 1), "a draw")
    for top, one in zip(tops, drawn, strict=True):
        assert (
            np.bincount(groups[one.mask], minlength=400).tolist()
            == np.bincount(groups[top.mask], minlength=400).tolist()
        )
    for smaller, larger in pairwise(drawn):
        assert not (smaller.mask & ~larger.mask).any()
    if control != "random_active":  # there the best are the whole of the top decile
        assert (drawn[0].mask != tops[0].mask).any()


def test_draws_follow_from_the_seed(scores: NeuronScores) -> None:
    groups, tops = strata("random_matched", INDEX), [select_top(scores, 0.1)]
    masks = [draw(INDEX, groups, tops, seed, "")[0].mask for seed in ((7, 0), (7, 0), (7, 1), (8, 0))]
    assert (masks[0] == masks[1]).all()
    assert (masks[0] != masks[2]).any() and (masks[0] != masks[3]).any() and (masks[2] != masks[3]).any()


def test_draws_are_uniform(scores: NeuronScores) -> None:
    """Every neuron of a group is drawn equally often: 4,000 draws of 5 of 20 give 1,000 each, within 5 sd."""
    top = Selection(INDEX, np.arange(len(INDEX)) < 5)
    hits = sum(draw(INDEX, strata("random_matched", INDEX), [top], (1, r), "")[0].mask.astype(int) for r in range(4000))
    assert not hits[20:].any()
    assert np.abs(hits[:20] - 1000).max() < 5 * np.sqrt(4000 * 0.25 * 0.75)


# --- files


def test_a_file_brings_the_same_selection_back(scores: NeuronScores, tmp_path: Path) -> None:
    top = select_top(scores, 0.07)
    top.to_tsv(tmp_path / "mine.tsv")
    assert (tmp_path / "mine.tsv").read_text().splitlines()[0] == "layer\tmodule\tneuron"
    back = Selection.from_tsv(tmp_path / "mine.tsv", INDEX)
    assert (back.mask == top.mask).all() and back.name == "mine"
    lines = (tmp_path / "mine.tsv").read_text().splitlines()
    (tmp_path / "other.tsv").write_text("\n".join([lines[0] + "\tnote", *(f"{x}\thm" for x in lines[:0:-1])]))
    assert (Selection.from_tsv(tmp_path / "other.tsv", INDEX).mask == top.mask).all()  # any order, more columns


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("layer\tmodule\n0\tkey\n", "lacks the column 'neuron'; needed are layer, module, neuron"),
        ("layer,module,neuron\n0,key,1\n", "lacks the column 'layer'"),
        ("layer\tmodule\tneuron\n0\tkey\t1\n2\tkey\t1\n", "row 3: the model has no neuron layer 2 key 1"),
        ("layer\tmodule\tneuron\n0\tkeys\t1\n", "row 2: the model has no neuron layer 0 keys 1"),
        ("layer\tmodule\tneuron\n0\tkey\t20\n", "row 2: the model has no neuron layer 0 key 20"),
        ("layer\tmodule\tneuron\n0\tkey\t-1\n", "row 2: the model has no neuron layer 0 key -1"),
        ("layer\tmodule\tneuron\n0\tkey\t1\n0\tkey\t1\n", "row 3: neuron layer 0 key 1 is listed twice"),
        ("layer\tmodule\tneuron\n0\tkey\t1.5\n", "row 2: .*'1.5'"),
        ("layer\tmodule\tneuron\none\tkey\t1\n", "row 2: .*'one'"),
        ("layer\tmodule\tneuron\n0\tkey\t\n", "row 2: "),
        ("layer\tmodule\tneuron\n0\tkey\t1\t2\t3\t4\n0\tkey\n0\tkey\t1\t1\t1\t1\t1\t1\n", "cannot be read"),
        ("", "cannot be read"),
    ],
)
def test_a_bad_file_is_named_with_its_row(tmp_path: Path, text: str, error: str) -> None:
    (tmp_path / "bad.tsv").write_text(text)
    with pytest.raises(SelectionError, match=f"bad.tsv.*{error}") as caught:
        Selection.from_tsv(tmp_path / "bad.tsv", INDEX)
    assert "\n" not in str(caught.value)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SelectionError, match=r"absent\.tsv: cannot be read"):
        Selection.from_tsv(tmp_path / "absent.tsv", INDEX)


# --- algebra


def test_selections_combine_as_sets() -> None:
    one, other = chosen([1, 2, 3], name="one", proteins=("a",)), chosen([3, 4], name="other", proteins=("b",))

    def members(selection: Selection) -> set[int]:
        return set(np.flatnonzero(selection.mask).tolist())

    assert members(one | other) == {1, 2, 3, 4}
    assert members(one & other) == {3}
    assert members(one - other) == {1, 2}
    assert members(~one) == set(range(28)) - {1, 2, 3}
    assert (one | other).proteins == ("a", "b") and (one - other).name == "one - other"
    assert (~one).proteins == ("a",)
    assert one.neurons() == [Neuron(Site(0, "query"), 1), Neuron(Site(0, "key"), 0), Neuron(Site(0, "key"), 1)]
    assert repr(one) == "Selection(one: 3 of 28 neurons, 10.7%; query 1, key 2)"
    assert repr(one & chosen([])) == "Selection(one & chosen: 0 of 28 neurons, 0.0%; none)"
    with pytest.raises(SelectionError, match="models of different shape"):
        one | chosen([1], INDEX)


# --- density


def test_density_by_hand() -> None:
    """7 of 28 neurons: both keys of layer 0, one key of layer 1, three of four intermediate of layer 1, one output."""
    at = SMALL.offsets
    top = chosen([at[Site(0, "key")], at[Site(0, "key")] + 1, at[Site(1, "key")] + 1,
                  *(at[Site(1, "intermediate")] + np.arange(3)), at[Site(1, "output")]])  # fmt: skip
    table = density(top).set_index(["layer", "module"])
    want = {
        (-1, "query"): (4, 0), (-1, "key"): (4, 3), (-1, "intermediate"): (8, 3), (-1, "output"): (4, 1),
        (0, "all"): (14, 2), (1, "all"): (14, 5), (0, "key"): (2, 2), (1, "key"): (2, 1), (1, "intermediate"): (4, 3),
        (0, "value"): (2, 0),
    }  # fmt: skip
    for key, (total, selected) in want.items():
        row = table.loc[key]
        assert (row.n_total, row.n_selected, row.density) == (total, selected, selected / total), key
        assert row.enrichment == pytest.approx(selected / total / 0.25)
        assert row.p_value == pytest.approx(hypergeom(28, 7, total).sf(selected - 1))
    assert len(table) == 6 + 2 + 12
    assert table.loc[(0, "key"), "p_value"] == pytest.approx(7 / 28 * 6 / 27)
    assert table["ci_low"].isna().all()


def test_density_q_values_are_those_of_modules_layers_and_sites_apart() -> None:
    table = density(chosen([2, 3, 8, 17, 18, 22]), activity=np.arange(len(SMALL)) % 5, seed=1)
    kinds = [table["layer"] < 0, table["module"] == "all", (table["layer"] >= 0) & (table["module"] != "all")]
    assert [int(kind.sum()) for kind in kinds] == [6, 2, 12]
    assert table.loc[kinds[1], ["p_permutation", "q_value"]].isna().all().all()  # a whole layer stays as it is
    for kind in (kinds[0], kinds[2]):  # the step-up procedure, word for word
        p = table.loc[kind, "p_permutation"].to_numpy()
        n, order = len(p), np.argsort(p)
        want = np.empty(n)
        for rank, row in enumerate(order, 1):
            want[row] = min(1, *(n * p[later] / place for place, later in enumerate(order, 1) if place >= rank), 1)
        np.testing.assert_allclose(table.loc[kind, "q_value"], want)


def test_density_permutes_scores_within_layer_and_decile() -> None:
    """Against the plain way: permute the scores themselves, select, count."""
    index = NeuronIndex.of(layers=2, hidden=10, intermediate=30)
    rng = np.random.default_rng(0)
    activity, values = rng.random(len(index)), rng.normal(size=len(index))
    keys = of_module(index, "key")
    values[keys] += 1.0
    selection = select_top(NeuronScores("m", index, values), 0.2)
    table = density(selection, activity=activity, seed=3).set_index(["layer", "module"])
    groups = layer_deciles(index, activity)
    assert len(np.unique(groups)) == 20 and set(np.bincount(groups)) == {8}  # 80 neurons a layer
    layer = np.array([site.layer for site in index.sites])[index.site_of]
    assert (groups // 10 == layer).all()
    order = np.argsort(activity[layer == 0])
    assert (np.diff(groups[layer == 0][order]) >= 0).all()
    counts = []
    for _ in range(600):
        permuted = values.copy()
        for group in np.unique(groups):
            permuted[groups == group] = rng.permutation(permuted[groups == group])
        mask = select_top(NeuronScores("m", index, permuted), 0.2).mask
        counts.append([int((mask & keys).sum()), int((mask & keys & (layer == 1)).sum())])
    for place, row in enumerate((table.loc[(-1, "key")], table.loc[(1, "key")])):
        plain = (1 + (np.array(counts)[:, place] >= row.n_selected).sum()) / 601
        assert row.p_permutation == pytest.approx(plain, abs=0.05)
        share = np.mean(np.array(counts)[:, place]) / row.n_total / (len(selection) / len(index))
        assert row.enrichment_permuted == pytest.approx(share, rel=0.05)
    assert table.loc[(-1, "key"), "p_permutation"] < 0.05 < table.loc[(-1, "output"), "p_permutation"]
    assert density(selection)["p_permutation"].isna().all()


def test_density_test_holds_its_level_where_the_module_tells_nothing() -> None:
    """Scores that follow scale, which differs between modules: the hypergeometric p claims, the other does not."""
    index = NeuronIndex.of(layers=2, hidden=20, intermediate=80)
    rng, said = np.random.default_rng(1), np.zeros(2)
    for repeat in range(200):
        activity = np.exp(rng.normal(size=len(index))) * np.where(of_module(index, "value"), 2.0, 1.0)
        scores = NeuronScores("m", index, activity * np.exp(0.3 * rng.normal(size=len(index))))
        row = (
            density(select_top(scores, 0.1), activity=activity, seed=repeat)
            .set_index(["layer", "module"])
            .loc[(-1, "value")]
        )
        said += row.p_value <= 0.05, row.p_permutation <= 0.05
    assert said[0] / 200 > 0.3 and said[1] / 200 < 0.12


def test_density_interval_is_the_spread_of_the_resampled_enrichment() -> None:
    per_site = np.zeros((201, 12), dtype=int)
    per_site[:, 0], per_site[:, 1] = np.arange(201) % 3, 2  # query of layer 0: 0, 1 or 2; its key: always both
    row = density(chosen([0, 2, 3]), per_site).set_index(["layer", "module"])
    query = np.array([c / 2 / ((c + 2) / 28) for c in np.arange(201) % 3])
    assert row.loc[(0, "query"), ["ci_low", "ci_high"]].tolist() == pytest.approx(np.quantile(query, [0.025, 0.975]))
    assert row.loc[(0, "key"), ["ci_low", "ci_high"]].tolist() == pytest.approx([7, 14])
    assert row.loc[(0, "value"), ["ci_low", "ci_high"]].tolist() == [0, 0]


def test_an_empty_selection_has_no_density() -> None:
    with pytest.raises(SelectionError, match="'nobody' is empty"):
        density(chosen([], name="nobody"))


def test_every_module_and_site_has_its_row() -> None:
    table = density(chosen([0]))
    assert table[table["layer"] < 0]["module"].tolist() == list(MODULES)
    assert table["n_selected"].sum() == 3  # once as module, as layer and as site


# --- agreement


def test_agreement_of_a_method_with_itself_and_its_opposite(scores: NeuronScores) -> None:
    twin, mirror = scored(2 * scores.values + 1, method="twin"), scored(-scores.values, method="mirror")
    table = agreement([scores, twin, mirror], [0.1, 0.5]).set_index(["method", "other", "fraction"])
    assert len(table) == 6
    assert table.loc[("some", "twin", 0.1)].tolist() == pytest.approx([1, 1, 0.1])
    assert table.loc[("some", "mirror", 0.1)].tolist() == pytest.approx([-1, 0, 0.1])
    half = scored(np.where(np.arange(360) < 18, 10.0, scores.values), method="half")
    both = len(set(np.argsort(-scores.values)[:36]) & set(np.argsort(-half.values)[:36]))
    assert agreement([scores, half], [0.1])["overlap"].tolist() == [both / 36]
