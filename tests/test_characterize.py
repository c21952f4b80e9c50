"""Concepts of every neuron: numbers by scikit-learn and scipy, masks, nulls, the planted network."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import sklearn.metrics
import torch
from pandas.testing import assert_frame_equal

import plmscope.knowledge.characterize as module
from plmscope.data.annotations import FeatureSet
from plmscope.data.proteins import Protein
from plmscope.errors import InputError, SelectionError
from plmscope.evaluation.selection import Selection
from plmscope.knowledge.cards import UNEXPLAINED, neuron_cards
from plmscope.knowledge.characterize import Characterization, associate, characterize, motifs_of
from plmscope.knowledge.codes import FRACTIONS, Codes, firing_codes
from plmscope.knowledge.concepts import ConceptSet, build_concepts
from plmscope.knowledge.discovery import CharacterizeSettings
from plmscope.knowledge.residues import attributed_residues
from plmscope.knowledge.stream import Chunk
from plmscope.models.architectures import architecture_of
from plmscope.models.classifier import Classifier
from plmscope.models.sites import NeuronIndex
from plmscope.stats.ranks import auroc_of_histograms, rank_sum_p, signed_rank_p
from plmscope.store.resume import Parts
from tests.planted import LABEL_ROLES, neurons_of, planted_model, planted_proteins, planted_tokenizer

# --- codes


def test_codes_are_ranks():
    rng = np.random.default_rng(0)
    sample = torch.from_numpy(
        np.stack([rng.normal(50, 0.1, 4000), rng.standard_t(2, 4000) * 1e3], 1).astype(np.float32)
    )
    codes = Codes.fit(sample)
    found = codes(sample)
    firing = firing_codes(FRACTIONS)
    for column in range(2):
        values = sample[:, column].numpy()
        order = np.argsort(values)
        assert (np.diff(found[order, column].astype(int)) >= 0).all()
        for fraction, code in zip(FRACTIONS, firing, strict=True):
            for fires in (found[:, column] >= code, found[:, column] <= 255 - code):
                assert fires.mean() == pytest.approx(fraction, rel=0.25, abs=3e-3)
    assert len(np.unique(found[:, 0])) > 100


def test_a_constant_neuron_fires_nowhere_even_with_rounding_noise():
    noise = torch.from_numpy(np.random.default_rng(0).normal(0, 1e-6, (500, 1)).astype(np.float32))
    for sample in (torch.full((500, 1), 3.0), 100 + noise):
        found = Codes.fit(sample)(sample)
        assert (found < firing_codes(FRACTIONS).min()).all() and (found > 255 - firing_codes(FRACTIONS).min()).all()


def test_thresholds_are_where_firing_begins():
    values = torch.from_numpy(np.random.default_rng(1).normal(-3, 2, (3000, 1)).astype(np.float32))
    codes = Codes.fit(values)
    for code in firing_codes(FRACTIONS):
        for sign in (1, -1):
            edge = codes.threshold(np.array([0]), np.array([sign]), np.array([code]))[0]
            fires = codes(values)[:, 0] >= code if sign > 0 else codes(values)[:, 0] <= 255 - code
            far = np.abs(values[:, 0].numpy() - edge) > 2e-3  # half a step of the half-precision grid
            assert (fires == (sign * values[:, 0].numpy() >= sign * edge))[far].all()


# --- statistics by a second route


def test_auroc_of_histograms_equals_scikit_learn():
    rng = np.random.default_rng(0)
    values, labels = rng.integers(0, 9, 200), rng.random(200) < 0.3
    counts = [np.bincount(values[labels == side], minlength=9)[None] for side in (True, False)]
    assert auroc_of_histograms(*counts)[0] == pytest.approx(sklearn.metrics.roc_auc_score(labels, values))
    assert np.isnan(auroc_of_histograms(counts[0], np.zeros((1, 9)))[0])


def test_signed_ranks_equal_scipy():
    rng = np.random.default_rng(0)
    differences = rng.integers(-6, 9, (3, 40))
    bins = np.stack([np.bincount(row + 10, minlength=21) for row in differences])
    p, n = signed_rank_p(bins)
    for row, own, count in zip(differences, p, n, strict=True):
        test = scipy.stats.wilcoxon(row, zero_method="wilcox", alternative="greater", method="asymptotic")
        assert own == pytest.approx(test.pvalue) and count == (row != 0).sum()
    assert np.isnan(signed_rank_p(np.bincount([5 + 10] * 5, minlength=21)[None])[0][0])  # five clusters are too few
    assert signed_rank_p(np.eye(1, 21, 20, dtype=int) * 5000)[0][0] > 0  # 5,000 clusters that agree


def test_rank_sums_equal_scipy():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 8, 30), rng.integers(0, 6, 50)
    counts = [np.bincount(side, minlength=8)[None] for side in (a, b)]
    expected = scipy.stats.mannwhitneyu(a, b, alternative="greater", method="asymptotic", use_continuity=False).pvalue
    assert rank_sum_p(*counts)[0] == pytest.approx(expected)


# --- associations of made-up neurons, against scikit-learn on all their activations


def made_up(n: int, seed: int) -> tuple[list[Protein], FeatureSet]:
    """Random proteins of which half have a feature: two residues, the first a W if there is one."""
    rng = np.random.default_rng(seed)
    proteins, rows = [], []
    for i in range(n):
        letters = rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), rng.integers(40, 90))
        protein = Protein(f"{seed}:{i}", "".join(letters), "xy"[i % 2])
        proteins.append(protein)
        if i % 2:
            place = int(rng.integers(5, 30))
            rows.append((protein.id, "SITE", place, place + 2))
    return proteins, FeatureSet(pd.DataFrame(rows, columns=["id", "feature_type", "start", "end"]), {}, "made", "")


def activations(protein: Protein, features: FeatureSet) -> np.ndarray:
    """Six neurons: W with noise; the same upside down; the first residue of the site; length; noise; nothing."""
    rng = np.random.default_rng([len(protein), ord(protein.sequence[3])])
    noise = rng.normal(size=(len(protein), 4)).astype(np.float32)
    is_w = np.array([a == "W" for a in protein.sequence])
    own = features.table[features.table["id"] == protein.id]
    site = np.zeros(len(protein))
    site[own["start"].to_numpy(int)] = 1
    columns = [3 * is_w + noise[:, 0], 5 - 3 * is_w + noise[:, 1], 9 * site + noise[:, 2]]
    columns += [np.full(len(protein), len(protein)) + noise[:, 3] / 10, noise[:, 3], np.zeros(len(protein))]
    return np.stack(columns, 1).astype(np.float32)


@pytest.fixture(scope="module")
def worked():
    discovery, some = made_up(60, 1)
    confirmation, more = made_up(50, 2)
    features = replace(some, table=pd.concat([some.table, more.table]))
    concepts = build_concepts([*discovery, *confirmation], features=features)

    def stream(proteins, description):
        for rows in np.array_split(np.arange(len(proteins)), 7):
            parts = [activations(proteins[row], features) for row in rows]
            yield Chunk(rows.tolist(), [len(part) for part in parts], torch.from_numpy(np.concatenate(parts)))

    selected = np.ones(6, bool)
    found = module._joined(
        [associate(stream, 6, discovery, confirmation, concepts, selected, CharacterizeSettings())], 0.05
    )
    return found, concepts, confirmation, features


def test_the_best_concepts_are_those_built_in(worked):
    frame = worked[0].associations
    best = frame[(frame["rank"] == 1)].set_index(["position", "sign"])
    assert best.loc[(0, 1), "concept"] == best.loc[(1, -1), "concept"] == "tryptophan (W)"
    assert best.loc[(2, 1), "concept"] == "SITE"
    assert best.loc[(3, 1), "concept"] == "long protein" and best.loc[(3, -1), "concept"] == "short protein"
    assert best.loc[[(0, 1), (1, -1), (2, 1), (3, 1), (3, -1)], "confirmed"].all()
    rest = frame[frame["position"] >= 4]
    assert not rest["confirmed"].any()
    assert (rest.loc[rest["position"] == 5, "auroc"] - 0.5).abs().max() < 1e-9
    assert frame.groupby(["position", "sign"])["rank"].apply(list).map(lambda r: r == list(range(1, 6))).all()


def test_every_number_equals_scikit_learn(worked):
    found, concepts, confirmation, features = worked
    frame = found.associations[found.associations["position"] < 5]
    checked = 0
    for row in frame.itertuples():
        concept = concepts.concepts[concepts.number[row.concept]]
        labels, values, touched, stretches = [], [], 0, 0
        for protein in confirmation:
            annotation = concepts.annotate(protein)
            if not annotation.known[concepts.number[row.concept]]:
                continue
            own = activations(protein, features)[:, row.position]
            if concept.level == "protein":
                labels.append(concepts.number[row.concept] in annotation.holds)
                values.append(own.mean())
                continue
            mark = np.zeros(len(protein), bool)
            mark[annotation.positions.get(concepts.number[row.concept], np.zeros(0, int))] = True
            labels += mark.tolist()
            values += own.tolist()
            for start, stop in annotation.stretches.get(concepts.number[row.concept], []):
                stretches += 1
                touched += bool((row.sign * own[start:stop] >= row.sign * row.threshold).any())
        labels, values = np.array(labels), row.sign * np.array(values)
        edge = 0.05 if row.position == 3 else 5e-3  # a value rounded over the threshold is worth 1 / positives
        tolerance = 3e-3 if concept.level == "residue" else 0.02  # codes of means come from 60 proteins
        fires = values >= row.sign * row.threshold
        if not fires.any():
            assert row.precision == row.f1 == 0
            continue
        assert row.auroc == pytest.approx(sklearn.metrics.roc_auc_score(labels, values), abs=tolerance)
        assert row.precision == pytest.approx(sklearn.metrics.precision_score(labels, fires), abs=edge)
        assert row.recall == pytest.approx(sklearn.metrics.recall_score(labels, fires), abs=edge)
        assert row.iou == pytest.approx(sklearn.metrics.jaccard_score(labels, fires), abs=edge)
        recall = touched / stretches if stretches else row.recall
        assert row.recall_domain == pytest.approx(recall, abs=edge)
        if row.precision + recall:
            assert row.f1 == pytest.approx(2 * row.precision * recall / (row.precision + recall), abs=edge)
        chance = 2 * labels.mean() / (1 + labels.mean())
        assert row.f1_gain == pytest.approx((row.f1 - chance) / (1 - chance), abs=3e-3)
        checked += 1
    assert checked > 30


def test_a_touched_stretch_counts_whole(worked):
    frame = worked[0].associations
    row = frame[(frame["position"] == 2) & (frame["sign"] == 1) & (frame["rank"] == 1)].iloc[0]
    assert row["recall"] == pytest.approx(0.5, abs=0.05) and row["recall_domain"] == 1 and row["precision"] > 0.8
    assert row["n_clusters"] == 25  # proteins without the feature are unknown, not negative


def test_nobody_is_on_both_sides(worked):
    _, concepts, confirmation, _ = worked
    with pytest.raises(InputError, match="of discovery and of confirmation"):
        associate(
            lambda p, d: iter([]), 6, confirmation, confirmation, concepts, np.zeros(6, bool), CharacterizeSettings()
        )
    with pytest.raises(InputError, match="no proteins"):
        associate(lambda p, d: iter([]), 6, [], confirmation, concepts, np.zeros(6, bool), CharacterizeSettings())


# --- the planted network


@pytest.fixture(scope="module")
def planted():
    model, roles = planted_model()
    index = NeuronIndex.of(2, 64, 256)
    classifier = Classifier(model, planted_tokenizer(), architecture_of("esm"), ("0", "1"), index, "planted")
    classifier.freeze()
    proteins = planted_proteins(160)
    return classifier, roles, proteins[:100], proteins[100:]


@pytest.fixture(scope="module")
def found(planted) -> Characterization:
    classifier, roles, discovery, confirmation = planted
    selected = np.zeros(len(classifier.index), bool)
    for neuron in neurons_of(roles, (*LABEL_ROLES, "read_w", "query_constant")):
        selected[classifier.index.position(neuron)] = True
    return characterize(classifier, discovery, confirmation, build_concepts(discovery), selected)


def test_planted_motif_consensus_and_sentence(planted, found):
    classifier, roles, discovery, _ = planted
    chosen = np.unique(found.motifs.neurons)
    selections = pd.DataFrame({"method": "m", "rank": range(1, len(chosen) + 1), "position": chosen})
    index = classifier.index
    cards = neuron_cards(selections, index, found.associations, found.motifs, found.motifs.concepts, discovery)
    table = found.motifs.table.merge(cards.assign(position=chosen), on=["position", "sign"], suffixes=("_", ""))
    rows = table.set_index("position")
    for role in ("and", "write_motif", "key_motif", "value_motif"):
        row = rows.loc[index.position(roles[role][0])]
        assert row["consensus"] == "W-x-C" and row["anchor"] == 2 and row["auroc_held_out"] > 0.95
        assert "W-x-C, at its C" in row["sentence"] and row["explained"] and row["enrichment"] > 20
        classes = json.loads(row["classes"])
        assert classes["1"]["share"] > 0.95 and classes["1"]["enrichment"] > 1.5
        top = json.loads(row["top_proteins"])[0]
        peak = top["position"] - top["start"]
        assert top["sequence"][peak - 2] == "W" and top["sequence"][peak] == "C"
        assert np.argmax(np.array(top["activation"]) * row["sign"]) == peak
    groups = rows.loc[[index.position(roles[r][0]) for r in ("and", "key_motif", "value_motif")], "group"]
    assert groups.nunique() == 1
    read_w = rows.loc[index.position(roles["read_w"][0])]
    assert read_w["concept"] == "tryptophan (W)" and read_w["sentence"].startswith("Fires on tryptophan: F1 1.00")
    constant = rows.loc[index.position(roles["query_constant"][0])]
    assert constant["sentence"].startswith(UNEXPLAINED) and not constant["explained"] and constant["consensus"] == ""


def test_a_given_pattern_is_the_concept_and_leads_the_card(planted):
    """Class 0 is low in the AND neuron with an AUROC of 1 too; and its mirror image goes low on the pattern."""
    classifier, roles, discovery, confirmation = planted
    concepts = build_concepts(discovery, patterns={"W-x-C": "W-x-C"})
    chosen = [classifier.index.position(neuron) for neuron in (roles["and"][0], *roles["write_motif"])]
    selected = np.isin(np.arange(len(classifier.index)), chosen)
    found = characterize(classifier, discovery[:60], confirmation, concepts, selected)
    frame = found.associations
    best = frame[frame["rank"] == 1].set_index(["position", "sign"])
    row = best.loc[(chosen[0], 1)]
    assert row["concept"] == "W-x-C" and row["f1"] == row["f1_gain"] == 1 and row["confirmed"]
    others = frame[~frame["position"].isin(chosen)]
    assert len(others) <= 2 * (~selected).sum() and (others["rank"] == 1).all()  # not selected: the best alone
    selections = pd.DataFrame({"method": "m", "rank": range(1, 4), "position": chosen})
    cards = neuron_cards(selections, classifier.index, frame, found.motifs, concepts, discovery[:60])
    for card, sign, verb in zip(cards.itertuples(), (1, 1, -1), ("Fires on", "Fires on", "Goes low on"), strict=True):
        assert card.sign == sign and card.concept == "W-x-C" and card.motif == "W-x-C"
        said = card.sentence.split("; ")
        assert (
            said[0].startswith(f"{verb} the pattern W-x-C: F1 1.00") and said[1] == "motif W-x-C, at its C, AUROC 1.00"
        )
        # Low in class 0 and high in class 1 are one finding, told once and second.
        of_class = [part for part in said if part.startswith("also")]
        assert len(of_class) <= 1 and sum("in class 0: F1" in part or "in class 1: F1" in part for part in said) <= 1


class Shifted(ConceptSet):
    """The same concepts, all of them moved around every protein: nothing is true any more."""

    def __init__(self, concepts: ConceptSet) -> None:
        self.__dict__ = concepts.__dict__

    def annotate(self, protein):
        annotation = super().annotate(protein)
        length = len(protein)
        by = int(np.random.default_rng([7, length, ord(protein.sequence[0])]).integers(10, length - 9))
        positions = {i: np.sort((where + by) % length) for i, where in annotation.positions.items()}
        stretches = {i: np.stack([positions[i], positions[i] + 1], 1) for i in annotation.stretches}
        return replace(annotation, positions=positions, stretches=stretches)


def test_shifted_annotations_are_not_confirmed(planted, found):
    classifier, _, discovery, confirmation = planted
    kinds = ("amino acid", "group", "property", "pattern")
    concepts = Shifted(build_concepts(discovery, kinds=kinds))
    null = characterize(classifier, discovery, confirmation, concepts)
    assert null.tested > 1000 and null.associations["confirmed"].sum() <= 0.05 * null.tested
    assert null.control <= 0.05 * null.tested and found.control <= 0.05 * found.tested
    assert found.associations["confirmed"].mean() > 0.5  # random layer-0 neurons do read letters


def test_batches_and_passes_change_nothing(planted, monkeypatch):
    classifier, roles, discovery, confirmation = planted
    concepts = build_concepts(discovery)
    selected = np.zeros(len(classifier.index), bool)
    selected[[classifier.index.position(roles[role][0]) for role in ("and", "key_motif")]] = True
    arguments = (classifier, discovery[:40], confirmation[:30], concepts, selected)
    once = characterize(*arguments)
    monkeypatch.setattr(module, "NEURONS_AT_ONCE", 600)
    twice = characterize(*arguments, token_budget=500)
    keys = ["position", "sign", "rank"]
    one, other = (x.associations.sort_values(keys, ignore_index=True) for x in (once, twice))
    same = one["concept"] == other["concept"]
    assert same.mean() > 0.97  # a padded batch rounds otherwise, which can decide ties
    names = ["auroc", "f1", "precision"]
    assert_frame_equal(one.loc[same, names], other.loc[same, names], atol=0.05)
    assert (one.loc[same, names] - other.loc[same, names]).abs().mean().max() < 2e-3
    assert (
        once.motifs.table["consensus"].tolist()
        == twice.motifs.table.sort_values(["sign", "position"], ascending=[False, True])["consensus"].tolist()
    )


def test_motifs_of_a_selection_are_those_of_the_characterization(planted):
    """Other neurons, of the same and of other sites, make no difference."""
    classifier, roles, discovery, confirmation = planted
    discovery, confirmation = discovery[:40], confirmation[:20]
    mask = np.zeros(len(classifier.index), bool)
    mask[[classifier.index.position(roles[role][0]) for role in ("and", "key_motif")]] = True
    chosen, concepts = Selection(classifier.index, mask), build_concepts(discovery)
    whole = characterize(classifier, discovery, confirmation, concepts, chosen)
    found = motifs_of(classifier, chosen, discovery, confirmation)
    assert found["consensus"].any() and len(found) == 4
    assert_frame_equal(found, classifier.index.placed(whole.motifs.table)[list(found)], check_exact=True)
    with pytest.raises(SelectionError, match="has no neuron"):
        motifs_of(classifier, chosen - chosen, discovery, confirmation)
    with pytest.raises(SelectionError, match="another shape"):
        motifs_of(classifier, Selection(NeuronIndex.of(1, 2, 4), np.ones(14, bool)), discovery, confirmation)


def test_every_pass_continues_after_an_interruption(planted, monkeypatch, tmp_path):
    """Stopped in each pass, of two groups of sites: the same tables, and no protein is looked at again in vain."""
    classifier, roles, discovery, confirmation = planted
    monkeypatch.setattr(module, "NEURONS_AT_ONCE", 600)  # two groups of sites
    discovery, confirmation = discovery[:24], confirmation[:16]
    concepts = build_concepts(discovery, kinds=("amino acid", "pattern", "class"), patterns={"W-x-C": "W-x-C"})
    selected = np.zeros(len(classifier.index), bool)
    selected[[classifier.index.position(roles[role][0]) for role in ("and", "key_motif")]] = True
    batches, stops = [], []

    def track(items, description, total):
        for number, item in enumerate(items):
            if stops and stops[0] == description and number == 1:
                stops.pop(0)
                raise KeyboardInterrupt
            batches.append(description)
            yield item

    def everything(parts):
        arguments = {"token_budget": 400, "track": track, "parts": parts}
        found = characterize(classifier, discovery, confirmation, concepts, selected, **arguments)
        more = attributed_residues(classifier, confirmation, concepts, {"top": selected}, **arguments)
        return found, more

    once, attributed = everything(None)
    passes = ("discovering", "confirming", "attributing to residues")
    needed = [batches.count(name) for name in passes]
    batches.clear()
    group = ["sampling activations", "discovering", "confirming"]
    stops += [*group, *group, "attributing to residues"]
    for _ in range(len(stops)):
        with pytest.raises(KeyboardInterrupt):
            everything(Parts(tmp_path, "a" * 16, seconds=0, pause=0))  # kept after every batch
    again, again_attributed = everything(Parts(tmp_path, "a" * 16, seconds=0, pause=0))
    assert [batches.count(name) for name in passes] == needed
    assert_frame_equal(once.associations, again.associations, check_exact=True)
    assert_frame_equal(once.motifs.table, again.motifs.table, check_exact=True)
    for name in ("value", "protein", "position", "strip"):
        np.testing.assert_array_equal(getattr(once.motifs.windows, name), getattr(again.motifs.windows, name))
    assert_frame_equal(attributed, again_attributed, check_exact=True)
    assert once.control == again.control and len(attributed)
