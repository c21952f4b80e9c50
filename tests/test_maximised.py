"""Windows made by gradient: the planted AND neuron asks for W-x-C from every start; what is told is what was run."""

import numpy as np
import pytest
import torch
from transformers import EsmForSequenceClassification

from plmscope.data.proteins import Protein
from plmscope.knowledge.maximised import LETTERS, REACH, STARTS, Leaky, around, bits_of, maximised_table
from plmscope.models.architectures import architecture_of
from plmscope.models.classifier import Classifier
from plmscope.models.hooks import record
from plmscope.models.sites import NeuronIndex
from tests.planted import has_motif, planted_model, planted_proteins, planted_tokenizer


@pytest.fixture(scope="module")
def found():
    model, roles = planted_model()
    index = NeuronIndex.of(2, 64, 256)
    classifier = Classifier(model, planted_tokenizer(), architecture_of("esm"), ("0", "1"), index, "planted")
    proteins = [p for p in planted_proteins(60) if len(p) >= 40]
    row = next(k for k, p in enumerate(proteins) if has_motif(p.sequence) and 12 < p.sequence.find("C") < 28)
    sequence = proteins[row].sequence
    peak = next(k for k in range(2, len(sequence)) if sequence[k - 2] + sequence[k] == "WC")
    neurons = {role: index.position(roles[role][0]) for role in ("and", "read_w")}
    wanted = [(position, 1, [(-1, 0), (row, peak)]) for position in neurons.values()]
    untrained = EsmForSequenceClassification(model.config).eval()
    control = Classifier(untrained, planted_tokenizer(), architecture_of("esm"), ("0", "1"), index, "untrained")
    return (
        classifier,
        neurons,
        sequence,
        peak,
        maximised_table(classifier, wanted, proteins, untrained=control),
        control,
    )


def test_the_and_neuron_asks_for_its_motif_from_every_start(found):
    _, neurons, sequence, peak, table, _ = found
    own = table[(table["position"] == neurons["and"]) & (table["of"] == "neuron")]
    assert own["start"].tolist() == list(STARTS)
    natural = around(Protein("x", sequence), peak)[0][16 - REACH : 16 + REACH + 1].lower()
    for row in own.itertuples():
        assert row.window[REACH - 2] == "W" and row.window[REACH] == "C" and row.nearest_letter == "C"
        assert sum(letter.isupper() for letter in row.window) == 2 and row.percentile > 0.95
        matrix = np.reshape(row.matrix, (-1, 20))
        assert matrix.shape == (15, 20) and matrix.sum(1) == pytest.approx(1)
        assert matrix[REACH].argmax() == LETTERS.index("C")
        rest = [place for place in range(15) if place not in (REACH - 2, REACH)]
        assert [row.window[place] for place in rest] == [natural[place] for place in rest]
    assert own["agreement"].nunique() == 1 and own["agreement"].iloc[0] > 4
    reader = table[(table["position"] == neurons["read_w"]) & (table["of"] == "neuron")]
    assert {window[REACH] for window in reader["window"]} == {"W"} == set(reader["nearest_letter"])
    directions = table[table["of"] == "direction"]
    assert len(directions) == len(table) / 3 and directions["agreement"].max() < own["agreement"].iloc[0]


def test_the_activation_is_that_of_the_real_sequence(found):
    classifier, neurons, sequence, peak, table, _ = found
    row = table[(table["position"] == neurons["and"]) & (table["of"] == "neuron")].iloc[0]
    residues, _ = around(Protein("x", sequence), peak)
    made = residues[: 16 - REACH] + row["window"].upper() + residues[16 + REACH + 1 :]
    (batch,) = classifier.batches([Protein("made", made)], 64)
    site = classifier.index.neuron(neurons["and"]).site
    with torch.no_grad(), record(classifier, [site]) as seen:
        classifier.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
    value = seen[site][0, 1 + 16, classifier.index.neuron(neurons["and"]).index].item()
    assert row["discrete_activation"] == pytest.approx(value, abs=1e-4)


def test_the_same_neuron_of_random_weights_asks_for_no_motif(found):
    _, neurons, sequence, peak, table, control = found
    own, untrained = (
        table[(table["position"] == neurons["and"]) & (table["of"] == of)] for of in ("neuron", "random_weights")
    )
    assert untrained["start"].tolist() == list(STARTS)
    assert untrained["agreement"].iloc[0] != own["agreement"].iloc[0]
    windows = {(row.window[REACH - 2], row.window[REACH]) for row in untrained.itertuples()}
    assert windows != {("W", "C")}
    # What it reaches is that of the model with random weights.
    row = untrained.iloc[0]
    residues, _ = around(Protein("x", sequence), peak)
    made = residues[: 16 - REACH] + row["window"].upper() + residues[16 + REACH + 1 :]
    (batch,) = control.batches([Protein("made", made)], 64)
    neuron = control.index.neuron(neurons["and"])
    with torch.no_grad(), record(control, [neuron.site]) as seen:
        control.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
    assert row["discrete_activation"] == pytest.approx(seen[neuron.site][0, 17, neuron.index].item(), abs=1e-4)


def test_where_a_gelu_is_shut_some_gradient_passes():
    x = torch.tensor([-9.0, -1.5, 2.0], requires_grad=True)
    with Leaky():
        y = torch.nn.functional.gelu(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(y.detach(), torch.nn.functional.gelu(x.detach())) and (gradient > 0.05).all()


def test_windows_of_short_proteins_and_ends():
    assert around(Protein("a", "A" * 31), 3) is None
    residues, window = around(Protein("a", "MKV" + "A" * 40), 1)
    assert residues == "MKV" + "A" * 29 and window == "------MKV" + "A" * 6
    assert bits_of(np.full((15, 20), 0.05)) == pytest.approx(0, abs=1e-9)
