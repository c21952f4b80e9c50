"""One protein explained: known answers on the planted network, the same numbers by other routes, and a whole run."""

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import plmscope as ps
from plmscope.data.proteins import Protein
from plmscope.errors import InputError, SelectionError
from plmscope.evaluation.interventions import Change, outcomes
from plmscope.evaluation.selection import Selection
from plmscope.explaining import training
from plmscope.explaining.activations import as_protein
from plmscope.explaining.contributions import contributions
from plmscope.explaining.decision import Decision
from plmscope.explaining.explainer import Explainer, ExplainSettings
from plmscope.explaining.explanation import ALIKE, SAME, SCHEMA, acting, neuron_text, remarks, verdict
from plmscope.explaining.held import held_alone, held_together
from plmscope.explaining.page import with_trust
from plmscope.explaining.residues import outside_p, residue_attribution, shuffled_band, shuffled_copies
from plmscope.explaining.training import Distances, place, sample_of
from plmscope.models.architectures import architecture_of
from plmscope.models.classifier import Classifier
from plmscope.models.hooked import network_of
from plmscope.models.hooks import record
from plmscope.models.hooks import replace as put
from plmscope.models.sites import Neuron, NeuronIndex, Site
from plmscope.progress import silent
from plmscope.scoring.integrated_gradients import integrated_gradients
from tests.planted import neurons_of, planted_model, planted_proteins, planted_tokenizer

FEW = ExplainSettings(copies=20, supporting=8, opposing=2, draws=5)


@pytest.fixture(scope="module")
def planted():
    model, roles = planted_model()
    classifier = Classifier(
        model, planted_tokenizer(), architecture_of("esm"), ("0", "1"), NeuronIndex.of(2, 64, 256), "planted"
    )
    classifier.freeze()
    positives = [p for p in planted_proteins(12, seed=2) if p.label == "1"]
    return classifier, roles, positives


@pytest.fixture(scope="module")
def explained(planted):
    classifier, _, positives = planted
    return ps.explain(classifier, positives, settings=FEW)


def chosen(classifier: Classifier, neurons: list[Neuron]) -> Selection:
    """Some neurons as a selection."""
    mask = np.zeros(len(classifier.index), bool)
    mask[[classifier.index.position(neuron) for neuron in neurons]] = True
    return Selection(classifier.index, mask, "some")


def motif(protein: Protein) -> int:
    """Where ``W.C`` begins."""
    return next(i for i in range(len(protein) - 2) if protein.sequence[i] == "W" and protein.sequence[i + 2] == "C")


# --- the planted network


def test_the_motif_carries_the_attribution(planted, explained):
    beyond = []
    for protein, one in zip(planted[2], explained, strict=True):
        values, at = one.residues["attribution"].to_numpy(), motif(protein)
        carriers = {at, at + 2}
        assert set(np.argsort(-values)[:2].tolist()) == carriers
        rest = np.array([i not in carriers for i in range(len(protein))])
        assert np.abs(values[rest]).max() < 0.01 * values.sum()
        outside = one.residues["outside"].to_numpy()
        assert outside[rest].mean() <= 0.1  # what the band leaves out by chance
        assert one.strongest_residues["position"].iloc[0] == at + 1
        beyond += [outside[at], outside[at + 2]]
    assert np.mean(beyond) > 0.9  # a shuffled copy may have a motif at the same place


def test_residues_sum_to_the_change_of_the_log_odds(planted, explained):
    for one in explained:
        s = one.summary
        change = s["log_odds"] - s["start_log_odds"]
        assert change > 15
        assert one.residues["attribution"].sum() == pytest.approx(change + s["gap"])
        assert abs(s["gap"]) < 0.1 * change
    classifier, _, positives = planted
    fine = residue_attribution(Decision.of(classifier, network_of(classifier), positives[0]), points=512)
    assert abs(fine.gap) < 0.005 * (fine.end - fine.start)


def test_the_and_neuron_leads(planted, explained):
    """It alone takes the whole decision; nothing but the planted chain contributes as much."""
    _, roles, _ = planted
    chain = set(neurons_of(roles))
    for protein, one in zip(planted[2], explained, strict=True):
        frame = one.neurons
        units = [
            Neuron(Site(la, m), n)
            for la, m, n in frame[["layer", "module", "neuron"]].itertuples(index=False, name=None)
        ]
        row = units.index(roles["and"][0])
        assert set(units[: row + 1]) <= chain and row < 5
        assert frame["contribution"].iloc[row] > 0.9 * frame["contribution"].max()
        own = frame.iloc[row]
        assert own["effect"] > 15 and (own["residue"], own["position"]) == ("C", motif(protein) + 3)
        assert np.abs(one.tracks[row]).argmax() == motif(protein) + 2
        assert math.isnan(own["percentile"])  # a model without its run has no training proteins
        assert one.summary["held_effect"] > 15 and one.summary["held_decided"] == "0"
        assert one.summary["held_draws"] < 0.5 * one.summary["held_effect"]


def test_without_the_w_the_neuron_is_silent(planted, explained):
    classifier, roles, positives = planted
    for protein, before in zip(positives, explained, strict=True):
        at = motif(protein)
        mutant = replace(protein, sequence=protein.sequence[:at] + "A" + protein.sequence[at + 1 :])
        with_it, without = (ps.activations(classifier, p, roles["and"]).iloc[:, -1] for p in (protein, mutant))
        assert with_it.max() > 4 and without.max() < 0.1
        after = ps.explain(classifier, mutant, label="1", settings=FEW)
        assert before.summary["decided"] == "1" and after.summary["decided"] == "0"
        assert after.summary["explained"] == "1" and after.summary["probability"] < 0.01


def test_through_the_and_neuron_and_through_idle_ones(planted):
    classifier, roles, positives = planted

    def through(neurons):
        return ps.explain(classifier, positives[0], neurons=chosen(classifier, neurons), settings=FEW)

    one, at = through(roles["and"]), motif(positives[0])
    part = one.residues["through"].to_numpy()
    assert set(np.argsort(-part)[:2].tolist()) == {at, at + 2}
    assert part.sum() == pytest.approx(one.summary["attribution"], rel=0.1)  # all of it passes this neuron
    assert one.summary["chosen_n"] == 1 and one.summary["chosen_effect"] > 15
    assert np.abs(through(roles["idle"]).residues["through"]).max() < 1e-4


# --- the same by another route


def test_residues_by_hooks_and_a_fine_sum(tiny):
    """The embeddings moved by a hook on the Hugging Face model, and a midpoint sum of 400 points."""
    protein = Protein("p", "MKTAYIAKQRQISFV")
    decision = Decision.of(tiny, network_of(tiny), protein, "2")
    found = residue_attribution(decision, points=64)
    batch = tiny.batch([protein])
    embedded = []

    def keep(module, arguments, output):
        embedded.append(output.detach())

    embeddings = tiny.model.esm.embeddings
    with torch.no_grad():
        for sequence in ("MKTAYIAKQRQISFV", *(letter * 15 for letter in "ACDEFGHIKLMNPQRSTVWY")):
            handle = embeddings.register_forward_hook(keep)
            other = tiny.batch([Protein("q", sequence)])
            tiny.model(input_ids=other.input_ids, attention_mask=other.attention_mask)
            handle.remove()
    end, mean = embedded[0], torch.cat(embedded[1:]).mean(0)
    start = end.clone()
    start[0, 1:-1] = mean[1:-1]
    total = torch.zeros_like(end)
    for step in range(400):
        leaf = (start + (step + 0.5) / 400 * (end - start)).requires_grad_()
        handle = embeddings.register_forward_hook(lambda m, a, o, leaf=leaf: leaf)
        logits = tiny.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[0]
        handle.remove()
        (logits[1] - torch.logsumexp(logits[[0, 2]], 0)).backward()
        total += leaf.grad / 400
    expected = (total * (end - start)).sum(-1)[0, 1:-1].numpy()
    assert np.abs(found.values - expected).max() < 0.01 * np.abs(expected).max()


def test_contributions_are_the_integrated_gradients_of_one_protein(tiny, proteins):
    rng = np.random.default_rng(0)
    constants = rng.normal(0, 0.3, (3, len(tiny.index)))
    protein = proteins[4]
    decision = Decision.of(tiny, network_of(tiny), protein, protein.label)
    found = contributions(decision, constants, points=32, tolerance=1.0)
    known = integrated_gradients(tiny, [protein], baseline=constants, points=32)[0].values
    assert found.values == pytest.approx(known, abs=1e-4 * np.abs(known).max())
    assert np.abs(found.got - found.expected).max() < 0.05
    for position, own in found.places.items():
        assert own.sum() == pytest.approx(found.values[position], abs=1e-6)


def test_held_by_hooks(tiny, proteins):
    rng = np.random.default_rng(1)
    constants = rng.normal(0, 0.5, (3, len(tiny.index)))
    protein, neuron = proteins[3], Neuron(Site(1, "intermediate"), 7)
    position = tiny.index.position(neuron)
    decision = Decision.of(tiny, network_of(tiny), protein)
    batch = tiny.batch([protein])

    def held(activation):
        changed = activation.clone()
        changed[0, :, 7] = torch.tensor(constants[2, position], dtype=activation.dtype)
        changed[0, 0, 7], changed[0, -1, 7] = constants[0, position], constants[1, position]
        return changed

    with torch.no_grad(), put(tiny, {neuron.site: held}):
        logits = tiny.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[0].double()
    others = [c for c in range(3) if c != decision.label]
    odds = float(logits[decision.label] - torch.logsumexp(logits[others], 0))
    assert held_alone(decision, [position], constants)[0] == pytest.approx(decision.value - odds, abs=1e-4)
    mask = np.arange(len(tiny.index)) == position
    together = held_together(decision, mask, constants, draws=6, seed=3)
    assert together.effect == pytest.approx(decision.value - odds, abs=1e-4)
    assert len(together.draws) == 6 and 1 / 7 - 1e-9 <= together.p_value <= 1
    again = held_together(decision, mask, constants, draws=6, seed=3)
    assert np.array_equal(together.draws, again.draws)


def test_fast_ways_and_plain_ones_agree(tiny, proteins):
    """Neurons held from their own layer up against whole passes; a path that two modules share against its own."""
    rng = np.random.default_rng(2)
    decision = Decision.of(tiny, network_of(tiny), proteins[5])
    constants = rng.normal(0, 0.5, (3, len(tiny.index)))
    some = [tiny.index.offsets[site] + int(rng.integers(24)) for site in tiny.index.sites for _ in range(2)]
    changes = [Change(Selection(tiny.index, np.arange(len(tiny.index)) == n, "one"), None) for n in some]
    plain = [decision.value - odds[0, decision.label] for odds in outcomes(tiny, proteins[5:6], changes, constants)]
    assert held_alone(decision, some, constants) == pytest.approx(np.array(plain), abs=2e-5)
    assert held_alone(decision, [], constants).shape == (0,)
    # Means of intermediate and output over the same tokens: output = W intermediate + b, so that their paths are one.
    own = constants.copy()
    for layer in range(3):
        module = tiny.model.esm.encoder.layer[layer].output.dense
        inner, outer = (tiny.index.slice(Site(layer, m)) for m in ("intermediate", "output"))
        own[:, outer] = own[:, inner] @ module.weight.double().numpy().T + module.bias.double().numpy()
    found = contributions(decision, own, points=8, tolerance=1.0)
    apart = own.copy()
    for layer in range(3):
        apart[:, tiny.index.slice(Site(layer, "output"))] += 0.1
    for layer in range(3):
        part = tiny.index.slice(Site(layer, "intermediate"))
        again = contributions(decision, apart, points=8, tolerance=1.0).values[part]
        assert found.values[part] == pytest.approx(again, abs=1e-4 * np.abs(again).max())


def test_one_more_copy_lies_outside_the_band_one_time_in_ten(tiny):
    protein = Protein("p", "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ")
    decision = Decision.of(tiny, network_of(tiny), protein)
    known = residue_attribution(decision)
    band = shuffled_band(decision, known, points=6, seed=0)
    others = [
        residue_attribution(Decision.of(tiny, decision.network, copy, decision.name), points=8)
        for copy in shuffled_copies(protein, 40, seed=9)
    ]
    assert np.mean([band.outside(one.values) for one in others]) == pytest.approx(0.1, abs=0.035)
    fine = shuffled_band(decision, known, points=32, seed=0)
    assert np.abs(band.low - fine.low).mean() < 0.05 * (fine.high - fine.low).mean()


def test_many_residues_outside_the_band_are_told_from_chance(tiny, planted):
    """Counts against those of the copies, each held against the others: uniform where the order says nothing."""
    rng = np.random.default_rng(0)
    smooth = np.array([[np.convolve(rng.normal(size=70), np.ones(11), "valid") for _ in range(21)] for _ in range(200)])
    chance = np.array([outside_p(maps[0], maps[1:]) for maps in smooth])
    assert (chance <= 0.05).mean() < 0.09 and 0.4 < chance.mean() < 0.7  # though neighbours go together
    assert outside_p(5 * smooth[0, 0], smooth[0, 1:]) == pytest.approx(1 / 21)
    # The same in words.
    one = {"length": 160, "residues_outside": 12, "outside_p": 0.7}
    assert verdict(one) == "no more than chance"
    assert verdict(one | {"residues_outside": 20, "outside_p": 0.19}) == "no more than chance (p = 0.19)"
    assert verdict(one | {"residues_outside": 40, "outside_p": 1 / 21}) == "more than chance (p = 0.048)"
    protein = Protein("p", "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ")
    found = ps.explain(tiny, protein, settings=FEW)
    s = found.summary
    assert 1 / 21 <= s["outside_p"] <= 1 and f"expected by chance: {verdict(s)}" in repr(found)
    assert math.isnan(ps.explain(tiny, protein, settings=replace(FEW, copies=0)).summary["outside_p"])


def test_a_neuron_acts_by_being_high_or_low():
    row = {"position": 39, "residue": "P", "percentile": 0.017}
    assert acting(row) == "mostly by being low at P39"
    assert acting(row | {"percentile": 0.93}) == "mostly by being high at P39"
    assert (
        acting(row | {"percentile": 0.5})
        == acting(row | {"percentile": None})
        == acting(row | {"percentile": math.nan})
    )
    assert acting(row | {"percentile": None}) == "mostly at P39"
    assert acting({"position": 0, "residue": "", "percentile": 0.02}) == "mostly by being low at the first token"
    told = neuron_text(row | {"layer": 0, "module": "value", "neuron": 62, "contribution": 0.34, "effect": 0.2,
                              "sentence": "Fires on glycine; value, layer 0, neuron 62."})  # fmt: skip
    assert told.endswith(": Fires on glycine.")  # its place stands at the beginning
    assert "mostly by being low at P39 (percentile 1.7 of training residues)" in told


def test_activations_are_what_a_hook_sees(tiny, proteins):
    neurons = [Neuron(Site(2, "key"), 3), Neuron(Site(0, "intermediate"), 40)]
    frame = ps.activations(tiny, proteins[:2], neurons)
    assert list(frame.columns) == ["id", "position", "residue", "2.key.3", "0.intermediate.40"]
    assert "".join(frame.loc[frame["id"] == proteins[1].id, "residue"]) == proteins[1].sequence
    batch = tiny.batch([proteins[1]])
    with torch.no_grad(), record(tiny, [n.site for n in neurons]) as seen:
        tiny.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
        for column, neuron in zip(frame.columns[3:], neurons, strict=True):
            own = seen[neuron.site][0, 1:-1, neuron.index].numpy()
            assert frame.loc[frame["id"] == proteins[1].id, column].to_numpy() == pytest.approx(own, abs=1e-6)


def test_activations_show_themselves(tiny):
    neurons = [Neuron(Site(0, "key"), n) for n in range(22)]
    found = ps.activations(tiny, [Protein("<b>a", "MKTAY"), *(Protein(f"p{n}", "MK") for n in range(6))], neurons)
    shown = found._repr_html_()
    assert "&lt;b&gt;a" in shown and "<b>a" not in shown.replace("<b>&lt;b&gt;a", "")
    assert "2 more proteins and 2 more neurons in the table" in shown and "MKTAY" in shown
    assert shown.count("<span") == 20 * (5 + 4 * 2)
    assert type(found[["id"]]) is pd.DataFrame and "17 rows x 25 columns" in repr(found)
    # The largest activation of a neuron has the full colour.
    row = found["0.key.3"].abs().idxmax()
    assert f"{found['residue'][row]}{found['position'][row]}: {found['0.key.3'][row]:+.3g}" in shown


def test_shuffled_copies_are_the_same_residues():
    protein = Protein("p", "MKTAYIAKQRQISFVKSH")
    copies = shuffled_copies(protein, 5, seed=1)
    assert {"".join(sorted(p.sequence)) for p in copies} == {"".join(sorted(protein.sequence))}
    assert len({p.sequence for p in copies}) == 5
    assert [p.sequence for p in shuffled_copies(protein, 5, seed=1)] == [p.sequence for p in copies]


# --- what is asked wrongly


@pytest.mark.parametrize(
    ("sequence", "how", "said"),
    [
        ("", {}, "empty sequence"),
        ("MKT1", {}, "'1'"),
        ("M" * 127, {}, "has 127 residues, the model takes 126"),
        ("MKT", {"label": "9"}, "class '9' is not among those of the model: 1, 2, 3"),
    ],
)
def test_one_line_that_helps(tiny, sequence, how, said):
    with pytest.raises(InputError, match=said.replace("(", r"\(")):
        ps.explain(tiny, sequence, **how)


def test_neurons_of_another_model_are_refused(tiny, planted):
    foreign = chosen(planted[0], planted[1]["and"])
    with pytest.raises(SelectionError, match="another shape"):
        ps.explain(tiny, "MKTAY", neurons=foreign)


# --- a run


@pytest.fixture(scope="module")
def opened(golden, tmp_path_factory):
    return ps.open_run(golden.copy(tmp_path_factory.mktemp("explained") / "run"))


@pytest.fixture(scope="module")
def explainer(opened):
    return Explainer(opened, settings=FEW)


def test_a_training_protein_is_its_own_neighbour(opened, explainer):
    protein = opened.proteins("train")[3]
    one = next(explainer([replace(protein, id="mine", label="")]))
    assert (one.summary["nearest_train"], one.summary["identity"]) == (protein.id, 1.0)
    assert one.summary["nearest_label"] == protein.label
    for name, frame in (("explained_residues", one.residues), ("explained_neurons", one.neurons)):
        assert tuple(frame.columns) == SCHEMA[name]
    assert tuple(one.summary) == SCHEMA["explained_proteins"]
    assert "".join(one.residues["residue"]) == protein.sequence
    assert sum(json.loads(one.summary["probabilities"]).values()) == pytest.approx(1, abs=1e-4)
    assert one.summary["chosen_n"] > 0 and math.isfinite(one.summary["kn_score"])
    assert one.neurons["percentile"].between(0, 1).all()
    assert f"nearest training protein {protein.id}" in repr(one)
    assert "<span" in one._repr_html_()
    found = json.loads(one.to_json())
    assert len(found["residues"]) == len(protein) and found["neurons"][0]["rank"] == 1


def test_the_same_twice_and_alone(opened, explainer):
    """What is said of a protein does not depend on the others."""
    two = [replace(p, label="") for p in opened.proteins("test")[:2]]
    together, alone = list(explainer(two)), next(explainer([two[1]]))
    assert together[1].to_json() == alone.to_json()


def test_accuracy_at_the_distance_by_hand(opened, monkeypatch):
    """Of every test protein, whether or not the evaluation took it."""
    has = type(opened.run).has
    monkeypatch.setattr(type(opened.run), "has", lambda run, name: name != "predictions" and has(run, name))
    test = opened.proteins("test")
    near = Distances(opened).of(test)
    said = opened.model.log_probabilities(test).argmax(1)
    own = [(one.distance, opened.model.labels[int(k)] == p.label) for one, p, k in zip(near, test, said, strict=True)]
    for one in near:
        same = [right for distance, right in own if distance == one.distance]
        assert one.n_test == len(same) and (one.in_training == "") == (one.identity < 0.9)
        if len(same) >= 5:
            assert one.accuracy == pytest.approx(np.mean(same))
            assert one.low <= one.accuracy + 1e-9 and one.accuracy - 1e-9 <= one.high
        else:
            assert math.isnan(one.accuracy)
    assert any(one.n_test >= 5 for one in near)
    assert place(np.array(["", "a", "a"]), np.array([0, 0.1, 1.0])).tolist()[0] == 0


def test_test_proteins_are_asked_once_and_not_too_many(opened, tmp_path, monkeypatch):
    sample_of(opened)
    first = Distances(opened).right
    kept = sorted(path.name.split("-")[0] for path in (opened.run.path / training.CACHE).glob("*.npy"))
    assert kept == ["edges", "means", "right"]  # neither is in the other's way
    with monkeypatch.context() as patch:
        patch.setattr(training, "_right", None)  # called, it fails
        pd.testing.assert_frame_equal(Distances(opened).right, first)
    monkeypatch.setattr(training, "MOST", 2)
    few = Distances(opened).right
    assert few.groupby("place").size().max() == 2
    assert len(few) == first.groupby("place").size().clip(upper=2).sum()


def test_a_model_of_several_classes_is_right_where_all_are():
    class Model:
        task = "multi"

        def targets(self, proteins):
            return np.array([[True, False], [True, False], [False, False]])

        def log_probabilities(self, proteins):
            return np.log([[0.9, 0.2], [0.9, 0.6], [0.4, 0.1]])

    assert training._right(Model(), [None] * 3, silent).tolist() == [True, False, True]


def test_what_was_seen_in_training_is_told(opened, explainer):
    """The very sequence, one nearly the same, and one that is new; told on the page and in the JSON too."""
    train = {p.sequence for p in opened.proteins("train")}
    protein = next(p for p in opened.proteins("train") if len(p) > 80)
    nearly = replace(protein, id="nearly", sequence=f"M{protein.sequence[1:]}" + "G")
    assert nearly.sequence not in train
    new = opened.proteins("test")[0]
    same, alike, other = explainer([protein, nearly, new])
    assert [one.summary["in_training"] for one in (same, alike, other)] == [SAME, ALIKE, ""]
    assert "this sequence is a training protein: the model has seen it with its class" in repr(same)
    assert "a training protein is 90% identical to it or more: the model has seen" in repr(alike)
    assert "seen it" not in repr(other)
    assert "too few" not in repr(same)  # the split leaves no test protein so near
    told = with_trust(json.loads(same.to_json()))
    assert told["in_training"] == SAME and "no feat" in told["remarks"][0]


def test_longer_than_any_training_protein(opened, explainer):
    one = next(explainer(opened.proteins("test")[:1])).summary
    assert one["longest_train"] == max(map(len, opened.proteins("train"))) and not remarks(one)
    assert remarks({**one, "length": one["longest_train"] + 1}) == [
        f"it has {one['longest_train'] + 1} residues, the longest training protein {one['longest_train']}: the model "
        "was trained on none so long"
    ]
    assert not remarks({**one, "length": one["longest_train"]})


def test_percentiles_are_shares_of_training_residues(opened):
    """Of a fixed neuron, against all residues of the training proteins."""
    sample, model = sample_of(opened), opened.model
    neuron = Neuron(Site(1, "intermediate"), 5)
    position = model.index.position(neuron)
    every = ps.activations(model, opened.proteins("train"), [neuron]).iloc[:, -1].to_numpy()
    for share in (0.02, 0.3, 0.9, 0.99):
        value = np.quantile(every, share)
        assert float(sample.percentile(position, value)) == pytest.approx(share, abs=0.03)
    assert float(sample.percentile(position, every.max() + 1)) == 1.0
    assert float(sample.percentile(position, every.min() - 1)) == 0.0


def test_kn_scores_are_highest_for_the_own_class(opened):
    """By neurons that tell two classes apart, of the proteins that they were chosen by."""
    sample, model = sample_of(opened), opened.model
    spread = np.ptp(sample.means[2:], axis=0) / np.maximum(sample.means[1], 1e-12)
    chosen = spread >= np.quantile(spread, 0.95)
    right = []
    for protein in opened.proteins("train")[:20]:
        neurons = [model.index.neuron(int(n)) for n in np.flatnonzero(chosen)]
        means = np.zeros(len(model.index))
        means[chosen] = ps.activations(model, protein, neurons).iloc[:, 3:].to_numpy().mean(0)
        scores = sample.kn_scores(means, chosen)
        right.append(model.labels[int(scores.argmax())] == protein.label)
    assert np.mean(right) > 0.6
    assert np.isnan(sample.kn_scores(means, np.zeros(len(model.index), bool))).all()


def test_cards_and_concepts_are_told_where_they_fire(opened, explainer):
    cards = explainer.cards
    assert cards is not None and len(cards.positions)
    protein = opened.proteins("test")[0]
    one = next(explainer([protein]))
    neurons = [opened.model.index.neuron(int(n)) for n in cards.positions]
    values = ps.activations(opened.model, protein, neurons).iloc[:, 3:].to_numpy()
    fires = np.where(cards.table["sign"].to_numpy() > 0, values >= cards.table["threshold"].to_numpy(),
                     values <= cards.table["threshold"].to_numpy())  # fmt: skip
    assert one.residues["n_firing"].tolist() == fires.sum(1).tolist()
    named = one.neurons[one.neurons["sentence"] != ""]
    known = opened.run.table("neuron_cards").set_index(["layer", "module", "neuron"])["sentence"]
    for row in named.itertuples():
        assert row.sentence in set(known.loc[[(row.layer, row.module, row.neuron)]])


def test_features_stand_at_their_residues(opened, tmp_path):
    protein = opened.proteins("test")[0]
    features = tmp_path / "features.tsv"
    features.write_text(f"id\tfeature_type\tstart\tend\n{protein.id}\tActive site\t3\t4\n")
    one = next(Explainer(opened, features=features, settings=FEW)([protein]))
    assert one.residues["features"].tolist() == ["", "", "ACT_SITE", "ACT_SITE", *[""] * (len(protein) - 4)]


def test_a_sequence_becomes_a_protein():
    assert as_protein(" mkt\nay ") == Protein("protein", "MKTAY")
