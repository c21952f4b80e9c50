"""The letter baseline: known answers, scikit-learn's numbers, and letters told apart from more."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LinearRegression
from sklearn.metrics import roc_auc_score

from plmscope.data.proteins import Protein
from plmscope.knowledge.cards import IS_LETTER, neuron_cards
from plmscope.knowledge.characterize import Characterization, characterize
from plmscope.knowledge.concepts import build_concepts
from plmscope.knowledge.letters import MIN_MARKED, WIDTH, Letters, within
from plmscope.knowledge.motifs import LETTERS
from plmscope.models.architectures import architecture_of
from plmscope.models.classifier import Classifier
from plmscope.models.sites import NeuronIndex
from tests.planted import neurons_of, planted_model, planted_proteins, planted_tokenizer

NONE = np.zeros(0, np.int64)


def proteins(n: int, seed: int) -> list[Protein]:
    rng = np.random.default_rng(seed)
    return [
        Protein(f"{seed}:{i}", "".join(rng.choice(list(LETTERS), rng.integers(40, 80))), "xy"[i % 2]) for i in range(n)
    ]


def units(some: list[Protein]) -> np.ndarray:
    """A letter's embedding; the letter before; both; W and, two on, C; noise; 5 everywhere."""
    rng = np.random.default_rng(0)
    table = rng.normal(size=WIDTH)
    parts = []
    for protein in some:
        letters = np.array(list(protein.sequence))
        own = table[[LETTERS.index(a) for a in letters]]
        before = np.concatenate([[table[20]], own[:-1]])
        w_c = (letters == "C") & (np.concatenate([["-", "-"], letters[:-2]]) == "W")
        parts.append(np.stack([own, before, own + before, w_c, rng.normal(size=len(own)), np.full(len(own), 5.0)], 1))
    return np.concatenate(parts).astype(np.float32)


def added(some: list[Protein], cuts: tuple[int, ...] = ()) -> Letters:
    letters = Letters(torch.tensor([0.1, 0, 0, 0, 0, 5]), NONE)
    for part in np.split(np.arange(len(some)), cuts):
        own = [some[row] for row in part]
        letters.discover(torch.from_numpy(units(some))[_rows(some, part)], np.zeros((0, 0), np.uint8), own)
    return letters


def _rows(some: list[Protein], part: np.ndarray) -> slice:
    ends = np.concatenate([[0], np.cumsum([len(p) for p in some])])
    return slice(int(ends[part[0]]), int(ends[part[-1] + 1]))


def test_known_answers_and_linear_regression():
    some = proteins(60, 1)
    found = added(some).table()
    assert found["r2_letter"][0] == pytest.approx(1, abs=1e-5) and found["r2_window"][1] == pytest.approx(1, abs=2e-3)
    assert found["r2_letter"][1] < 0.05 and found["r2_letter"][3] < 0.5 and found["r2_letter"][4] < 0.05
    assert found.loc[5, ["r2_letter", "r2_window"]].isna().all()
    values = units(some)
    codes = [np.array([20, *(LETTERS.index(a) for a in p.sequence), 20]) for p in some]
    around = np.concatenate([np.stack([c[:-2], c[1:-1], c[2:]], 1) for c in codes])
    for name, columns in (("r2_letter", [1]), ("r2_window", [0, 1, 2])):
        x = (around[:, columns, None] == np.arange(WIDTH)).reshape(len(around), -1)
        for unit in range(5):
            expected = LinearRegression().fit(x, values[:, unit]).score(x, values[:, unit])
            assert found[name][unit] == pytest.approx(expected, abs=3e-3)  # the ridge takes a little
    means = pd.Series(values[:, 0]).groupby([a for p in some for a in p.sequence]).mean().sort_values()
    assert found["lowest"][0] == "".join(means.index[:3]) and found["highest"][0] == "".join(means.index[::-1][:3])


def test_parts_of_the_stream_change_nothing():
    some = proteins(30, 2)
    whole, parts = added(some).table(), added(some, (7, 19)).table()
    np.testing.assert_allclose(whole["r2_window"], parts["r2_window"], atol=1e-6)
    np.testing.assert_allclose(whole["r2_letter"], parts["r2_letter"], atol=1e-6)


def test_within_a_letter_equals_scikit_learn_where_the_letter_is_known():
    """Marks sit on two letters, of which one knows them; the halves find it, and the AUROC is that of its residues."""
    rng = np.random.default_rng(0)
    n = 4000
    half, letter, marked = rng.integers(0, 2, n), rng.integers(0, 3, n), rng.random(n) < 0.3
    marked &= letter < 2
    value = rng.normal(size=n) + 1.2 * (marked & (letter == 1)) + 5 * (letter == 0)
    rank = np.empty(n)
    for one in range(3):
        rank[letter == one] = (np.argsort(np.argsort(value[letter == one])) + 0.5) / (letter == one).sum()
    sums = np.zeros((4, 2, 1, 3))
    for h in (0, 1):
        for one in range(3):
            here = (half == h) & (letter == one)
            sums[:, h, 0, one] = [rank[here & marked].sum(), (here & marked).sum(), rank[here].sum(), here.sum()]
    found = within(*sums, np.array([1]))[0]
    here = letter == 1
    assert found == pytest.approx(roc_auc_score(marked[here], value[here]), abs=0.01) and found > 0.75
    # Over all letters 5 higher on letter 0 says nothing of it within them.
    assert within(*sums, np.array([-1]))[0] < 0.55
    few = sums.copy()
    few[:2] *= (MIN_MARKED - 1) / sums[1].sum(0).max()  # no letter has enough: all together, or none at all
    together = within(*few, np.array([1]))[0]
    assert few[1].sum() < 2 * MIN_MARKED and np.isnan(together)
    few[:2] *= 1.5
    few[2:] = few[:2] + sums[2:] - sums[:2]  # those that are not marked stay
    assert few[1].sum() >= 2 * MIN_MARKED and (few[1] < MIN_MARKED).any(0).all()
    areas = [roc_auc_score(marked[letter == one], value[letter == one]) for one in (0, 1)]
    assert within(*few, np.array([1]))[0] == pytest.approx(np.mean(areas), abs=0.02)


@pytest.fixture(scope="module")
def planted() -> tuple[Classifier, dict, list[Protein], Characterization]:
    model, roles = planted_model()
    index = NeuronIndex.of(2, 64, 256)
    classifier = Classifier(model, planted_tokenizer(), architecture_of("esm"), ("0", "1"), index, "planted")
    classifier.freeze()
    some = planted_proteins(240)
    discovery, confirmation = some[:120], some[120:]
    concepts = build_concepts(discovery, patterns={"W-x-C": "W-x-C"})
    selected = np.zeros(len(index), bool)
    for neuron in neurons_of(roles, ("and", "write_motif", "read_w", "query_constant")):
        selected[index.position(neuron)] = True
    return classifier, roles, discovery, characterize(classifier, discovery, confirmation, concepts, selected)


def test_planted_neurons_are_their_letter_or_more(planted):
    classifier, roles, discovery, found = planted
    index = classifier.index
    letters = found.letters.set_index("position")
    assert len(letters) == len(index)
    place = {role: index.position(roles[role][0]) for role in ("and", "write_motif", "read_w", "query_constant")}
    assert letters.loc[place["read_w"], "r2_letter"] > 0.999 and letters.loc[place["read_w"], "highest"][0] == "W"
    assert letters.loc[place["and"], "r2_letter"] < 0.5 and np.isnan(letters.loc[place["query_constant"], "r2_letter"])
    frame = found.associations
    pattern = frame[(frame["concept"] == "W-x-C") & (frame["position"] == place["and"]) & (frame["sign"] == 1)].iloc[0]
    assert pattern["auroc_beyond_letter"] > 0.95  # among C alone, though the pattern marks W and any residue too
    motifs = found.motifs.table.set_index(["position", "sign"])
    assert motifs.loc[(place["and"], 1), "auroc_beyond_letter"] > 0.9
    of_letters = frame["concept"].str.contains(r"\([A-Z]\)$")
    assert frame.loc[of_letters, "auroc_beyond_letter"].isna().all()
    # W alone is as frequent in both classes: the neuron that reads it knows neither class beyond composition.
    of_class = frame[(frame["position"] == place["read_w"]) & frame["concept"].str.startswith("class")]
    assert not (of_class["auroc_beyond_letter"] > 0.65).any()
    selections = pd.DataFrame({"method": "m", "rank": [1, 2, 3, 4], "position": list(place.values())})
    cards = neuron_cards(
        selections, index, frame, found.motifs, found.motifs.concepts, discovery, letters=found.letters
    ).set_index(pd.Index(place))
    assert cards["knows"].to_dict() == {"and": "more", "write_motif": "more", "read_w": "letter", "query_constant": ""}
    assert "more than its letter, which explains " in cards.loc["and", "sentence"]
    assert "is its letter, which explains 100% of its variance" in cards.loc["read_w", "sentence"]
    assert cards.loc["read_w", "r2_letter"] >= IS_LETTER and not cards.loc["query_constant", "explained"]


def test_an_embedding_is_explained_by_being_one(planted):
    """Hydropathy is no single letter and no group, yet all of it is the letter."""
    _, _, discovery, found = planted
    classifier, roles = planted[:2]
    position = classifier.index.position(roles["read_w"][0])
    letters = found.letters.assign(highest="ILV", lowest="RKN", r2_letter=0.97)
    selections = pd.DataFrame({"method": ["m"], "rank": [1], "position": [position]})
    none = found.associations.assign(confirmed=False)
    motifs = found.motifs
    whole, motifs.table = motifs.table, motifs.table.assign(auroc_held_out=0.5)
    card = neuron_cards(selections, classifier.index, none, motifs, motifs.concepts, discovery, letters=letters).iloc[0]
    motifs.table = whole
    assert card["sentence"].startswith("Is its letter, which explains 97% of its variance")
    assert "highest on I, L, V, lowest on R, K, N" in card["sentence"]
    assert card["explained"] and card["knows"] == "letter"
