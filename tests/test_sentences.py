"""Sentences: the planted motif is said and predicts, others' sentences do not; numbers by scipy and scikit-learn."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from plmscope.errors import InputError
from plmscope.knowledge.concepts import build_concepts
from plmscope.knowledge.sentences import (
    Prediction,
    Vocabulary,
    answers,
    describe,
    evidence,
    exemplars,
    predicted,
    score_sentences,
    simulate,
)
from plmscope.knowledge.units import read_units
from plmscope.models.architectures import architecture_of
from plmscope.models.classifier import Classifier
from plmscope.models.sites import NeuronIndex
from plmscope.store.resume import Parts
from tests.planted import planted_model, planted_proteins, planted_tokenizer


@pytest.fixture(scope="module")
def found():
    model, roles = planted_model()
    index = NeuronIndex.of(2, 64, 256)
    classifier = Classifier(model, planted_tokenizer(), architecture_of("esm"), ("0", "1"), index, "planted")
    proteins = planted_proteins(160)
    concepts = build_concepts(proteins, patterns={"W-x-C": "W-x-C"})
    wanted = [roles["and"][0], roles["read_w"][0], roles["idle"][0]]
    first = [index.position(neuron) for neuron in wanted]
    neurons = np.sort([*first, *range(index.slice(wanted[0].site).start + 1, index.slice(wanted[0].site).start + 25)])
    units = read_units(classifier, neurons, proteins[:100], proteins[100:], concepts)
    vocabulary = Vocabulary(units, concepts)
    rng = np.random.default_rng(0)
    and_unit = int(np.searchsorted(neurons, first[0]))
    written = []
    for unit in range(2 * len(neurons)):
        own = [*vocabulary.common, *([vocabulary.pattern("W-x-C", "motif W-x-C", 2)] if unit == and_unit else [])]
        sentence = describe(units, unit, own, rng)
        if sentence is not None:
            written.append(sentence)
    sites = np.array([int(p in range(index.slice(wanted[0].site).start, index.slice(wanted[0].site).stop))
                      for p in neurons])  # fmt: skip
    return units, vocabulary, written, and_unit, score_sentences(units, written, sites)


def test_the_planted_motif_is_said_and_predicts(found):
    units, _, written, unit, table = found
    row = table.set_index("unit").loc[unit]
    assert row["sentence"] == "Highest on motif W-x-C" and row["exemplars_explained"] == 15
    assert row["simulation_auroc"] >= 0.95 and row["others_auroc"] == pytest.approx(0.5, abs=0.05)
    assert row["letter_auroc"] < row["simulation_auroc"] and row["simulation_r"] > 0.05
    assert row["n_others"] >= 19 and row["p_value"] == 1 / (1 + row["n_others"])
    assert all((residues < len(units.discovery.proteins[p])).all() for p, residues in exemplars(units, unit))
    assert len(written) == len(table) and set(table.columns) >= {"q_value", "counts"}


def test_of_equal_peaks_the_first_is_not_taken_for_a_place(found):
    units, vocabulary, _, _, _ = found
    side = units.discovery
    codes, peaks = side.codes.copy(), tuple(part.copy() for part in units.peaks)
    codes[:, 0] = 255  # as high everywhere; the peak that was listed is the first residue
    peaks[0][0], peaks[1][0] = np.arange(15), 0
    same = replace(units, discovery=replace(side, codes=codes), peaks=peaks)
    middles = [residues.mean() / len(side.proteins[row]) for row, residues in exemplars(same, 0)]
    assert 0.3 < np.mean(middles) < 0.7 and {row for row, _ in exemplars(same, 0)} == set(range(15))
    sentence = describe(same, 0, vocabulary.common, np.random.default_rng(0))
    assert sentence is None or not any(phrase.text.startswith("first") for phrase in sentence.phrases)


def test_numbers_agree_with_scipy_and_sklearn(found):
    units, _, written, unit, table = found
    sentence = next(one for one in written if one.unit == unit + 1)
    prediction = predicted(units, sentence.unit, sentence.phrases)
    values, truth = prediction.level[prediction.category], units.codes(units.confirmation, sentence.unit)
    row = table.set_index("unit").loc[sentence.unit]
    assert row["simulation_r"] == pytest.approx(spearmanr(values, truth)[0], abs=1e-4)
    least = max(code for code in range(256) if (truth >= code).mean() >= 0.01)
    assert row["simulation_auroc"] == pytest.approx(roc_auc_score(truth >= least, values), abs=1e-4)
    other = Prediction(prediction.category[::-1].copy(), prediction.level)
    r, area = simulate([prediction, other], np.stack([truth, truth[::-1]], axis=1))
    np.testing.assert_allclose(r, r.T, atol=1e-5)
    np.testing.assert_allclose(area[0, 0], area[1, 1], atol=1e-6)


def test_sentences_of_a_program_are_scored_the_same(found):
    units, vocabulary, written, unit, _ = found
    place = {"layer": 0, "module": "intermediate", "neuron": 0, "sign": 1}
    told = evidence(units, unit, place, written[0])
    assert len(told["exemplars"]) == 15 and json.loads(json.dumps(told)) == told
    one = told["exemplars"][0]
    assert one["sequence"][one["fires"][0] - one["start"]] == "C"
    line = json.dumps({**place, "sentence": "Likes a W two before a C", "phrases": ["W-x-C"]})
    theirs = answers([line, ""], lambda row: unit, vocabulary)
    assert theirs[0].text == "Likes a W two before a C" and theirs[0].source == "program"
    own = score_sentences(units, theirs, np.zeros(len(units.neurons)))
    assert own.loc[0, "simulation_auroc"] > 0.95 and np.isnan(own.loc[0, "p_value"])
    for lines, text in (
        (["nonsense"], "line 1 of the program's answer: 'nonsense' is no JSON"),
        ([line, line], "line 2 .* second time"),
        ([line.replace("W-x-C", "a nice helix")], "line 1 .*'a nice helix' is no concept of this run"),
        ([line.replace('["W-x-C"]', "[]")], "phrases is empty"),
    ):
        with pytest.raises(InputError, match=text):
            answers(lines, lambda row: unit, vocabulary)


def test_reading_continues_after_an_interruption(tmp_path):
    model, _ = planted_model()
    index = NeuronIndex.of(2, 64, 256)
    classifier = Classifier(model, planted_tokenizer(), architecture_of("esm"), ("0", "1"), index, "planted")
    proteins = planted_proteins(24)
    concepts = build_concepts(proteins, kinds=("amino acid",))
    batches, stops = [], ["sampling activations", "discovering", "confirming"]

    def track(items, description, total):
        for number, item in enumerate(items):
            if stops and stops[0] == description and number == 1:
                stops.pop(0)
                raise KeyboardInterrupt
            batches.append(description)
            yield item

    def read(parts, track):
        return read_units(
            classifier, np.array([3, 400, 401]), proteins[:12], proteins[12:], concepts, token_budget=120, track=track,
            parts=parts,
        )  # fmt: skip

    for _ in range(len(stops)):
        with pytest.raises(KeyboardInterrupt):
            read(Parts(tmp_path, "a" * 16, seconds=0, pause=0), track)
    again, once = read(Parts(tmp_path, "a" * 16, seconds=0, pause=0), track), read(None, lambda items, *_: items)
    read(Parts(tmp_path, "a" * 16), track)
    assert batches.count("discovering") == len(list(classifier.batches(proteins[:12], 120)))  # none of them twice
    for side, other in ((again.discovery, once.discovery), (again.confirmation, once.confirmation)):
        for name in ("codes", "fires", "shifted", "atoms"):
            np.testing.assert_array_equal(getattr(side, name), getattr(other, name))
    for own, other in zip(again.peaks, once.peaks, strict=True):
        np.testing.assert_array_equal(own, other)
