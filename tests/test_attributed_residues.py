"""Attribution of residues on the planted network: the motif attracts it, what is planted nowhere does not."""

import numpy as np
import pytest
import sklearn.metrics
from scipy.stats import wilcoxon

from plmscope.knowledge.concepts import build_concepts
from plmscope.knowledge.confirmation import offsets
from plmscope.knowledge.residues import _auroc_within_letters, attributed_residues
from plmscope.models.architectures import architecture_of
from plmscope.models.classifier import Classifier
from plmscope.models.hooks import record
from plmscope.models.sites import NeuronIndex, Site
from tests.planted import planted_model, planted_proteins, planted_tokenizer


@pytest.fixture(scope="module")
def planted():
    model, roles = planted_model()
    classifier = Classifier(
        model, planted_tokenizer(), architecture_of("esm"), ("0", "1"), NeuronIndex.of(2, 64, 256), "planted"
    )
    classifier.freeze()
    proteins = planted_proteins(60, seed=5)
    return classifier, roles, proteins, build_concepts(proteins, patterns={"motif": "W-x-C"})


def test_the_planted_motif_attracts_attribution(planted):
    classifier, roles, proteins, concepts = planted
    planted_unit = np.zeros(len(classifier.index), bool)
    planted_unit[classifier.index.position(roles["and"][0])] = True
    frame = attributed_residues(classifier, proteins, concepts, {"and": planted_unit}).set_index(["concept", "of"])
    motif = frame.loc[("motif", "input")]
    assert motif["n_clusters"] == 30 and motif["q_value"] < 0.01 and motif["auroc"] > motif["null_auroc"] + 0.1
    assert frame.loc[("motif", "and"), "q_value"] < 0.05
    others = frame[frame.index.get_level_values(0) != "motif"].xs("input", level="of")
    assert len(others) > 3 and (others["q_value"].dropna() > 0.01).all()


def test_values_by_hand(planted):
    """One neuron, by hooks and scikit-learn."""
    classifier, roles, proteins, concepts = planted
    unit = roles["and"][0]
    mask = np.zeros(len(classifier.index), bool)
    mask[classifier.index.position(unit)] = True
    row = attributed_residues(classifier, proteins, concepts, {"one": mask}).set_index(["concept", "of"])
    site, number = Site(0, "intermediate"), concepts.number["motif"]
    real, null = [], []
    for protein in proteins:
        where = concepts.annotate(protein).positions.get(number)
        if where is None:
            continue
        batch = classifier.batch([protein])
        with record(classifier, [site]) as seen:
            embedded = classifier.model.esm.embeddings.word_embeddings(batch.input_ids) * 0.88
            embedded = embedded.detach().requires_grad_()
            handle = classifier.model.esm.embeddings.register_forward_hook(lambda m, a, o, e=embedded: e)
            logits = classifier.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
            handle.remove()
            a = seen[site]
            a.retain_grad()
            (logits[0, int(protein.label)] - logits[0, 1 - int(protein.label)]).backward()
        values = (a * a.grad)[0, 1:-1, unit.index].abs().detach().numpy()
        shift, _ = offsets(protein, 0)
        for found, marks in ((real, where), (null, (where + shift) % len(protein))):
            labels = np.isin(np.arange(len(protein)), marks)
            found.append(sklearn.metrics.roc_auc_score(labels, values))
    found = row.loc[("motif", "one")]
    assert found["auroc"] == pytest.approx(np.mean(real), abs=1e-6)
    assert found["null_auroc"] == pytest.approx(np.mean(null), abs=1e-6)
    p = wilcoxon(np.subtract(real, null), alternative="greater").pvalue
    assert found["p_value"] == pytest.approx(p, rel=1e-6)


def test_letters_alone_attract_nothing():
    """Attribution that is the letter's own, of a letter that is rare among the others: one half all the same."""
    letters = np.frombuffer(b"HDS" + b"H" * 2 + b"D" * 20 + b"S" * 30, np.uint8)
    values = (letters == ord("H")).astype(float)
    assert _auroc_within_letters(values, np.arange(3), letters) == 0.5
    rng = np.random.default_rng(0)
    values = rng.random(len(letters))
    above = [np.mean(values[p] > values[3:][letters[3:] == letters[p]]) for p in range(3)]
    assert _auroc_within_letters(values, np.arange(3), letters) == pytest.approx(np.mean(above))
    assert np.isnan(_auroc_within_letters(values[:3], np.arange(3), letters[:3]))
