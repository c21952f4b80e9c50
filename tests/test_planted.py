"""The planted network does what its docstring says; whatever looks for neurons may then be judged by it.

Everything here uses PyTorch hooks directly, so that a mistake in the library cannot hide one in the construction.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import torch
from sklearn.metrics import balanced_accuracy_score
from transformers import BatchEncoding, EsmForSequenceClassification

from plmscope.models.architectures import ARCHITECTURES, MODULES
from plmscope.models.sites import Neuron, Site
from tests.planted import (
    LABEL_ROLES,
    PLANTED_ROLES,
    POSITION_ROLES,
    by_site,
    has_motif,
    neurons_of,
    planted_model,
    planted_proteins,
    planted_tokenizer,
)

Edit = Callable[[torch.Tensor], torch.Tensor]
SITES = [Site(layer, module) for layer in range(2) for module in MODULES]


@pytest.fixture(scope="module")
def planted() -> tuple[EsmForSequenceClassification, dict[str, list[Neuron]]]:
    return planted_model()


@pytest.fixture(scope="module")
def tokens() -> tuple[BatchEncoding, torch.Tensor]:
    """200 proteins as one padded batch, and their labels."""
    proteins = planted_proteins(200, seed=1)
    batch = planted_tokenizer()([p.sequence for p in proteins], padding=True, return_tensors="pt")
    return batch, torch.tensor([int(p.label) for p in proteins])


@contextlib.contextmanager
def edited(model: EsmForSequenceClassification, edits: dict[Site, Edit]) -> Iterator[None]:
    """Replace the output of sites."""
    with contextlib.ExitStack() as stack:
        for site, edit in edits.items():
            architecture = ARCHITECTURES["esm"]
            place = architecture.modules[site.module]
            layer = model.get_submodule(architecture.layers)[site.layer]
            handle = layer.get_submodule(place.path).register_forward_hook(
                lambda _module, _inputs, output, edit=edit: edit(output)
            )
            stack.callback(handle.remove)
        yield


@torch.no_grad()
def margins(model: EsmForSequenceClassification, batch: BatchEncoding, edits: dict[Site, Edit]) -> torch.Tensor:
    """``(P,)``: logit of class 1 minus logit of class 0."""
    with edited(model, edits):
        logits = model(**batch).logits
    return logits[:, 1] - logits[:, 0]


def balanced_accuracy(margin: torch.Tensor, labels: torch.Tensor) -> float:
    return float(balanced_accuracy_score(labels, margin > 0))


def record(model: EsmForSequenceClassification, batch: BatchEncoding) -> dict[Site, torch.Tensor]:
    """``(P, T, N)`` per site."""
    seen: dict[Site, torch.Tensor] = {}
    margins(model, batch, {site: lambda a, site=site: seen.setdefault(site, a) for site in SITES})
    return seen


def kinds_of_token(batch: BatchEncoding) -> torch.Tensor:
    """``(P, T)``: 0 first, 1 residue, 2 last, 3 padding."""
    lengths = batch["attention_mask"].sum(1, keepdim=True)
    position = torch.arange(batch["input_ids"].shape[1])
    return torch.where(position == 0, 0, torch.where(position < lengths - 1, 1, torch.where(position < lengths, 2, 3)))


def mean_ablation(
    model: EsmForSequenceClassification, batch: BatchEncoding, ablated: dict[Site, list[int]]
) -> dict[Site, Edit]:
    """Edits that replace units by their means over first tokens, residues and last tokens."""
    kinds, values = kinds_of_token(batch), record(model, batch)

    def edit_for(site: Site) -> Edit:
        units = ablated[site]
        constants = torch.stack(
            [values[site][kinds == kind].mean(0) for kind in range(3)] + [torch.zeros(len(values[site][0, 0]))]
        )

        def edit(a: torch.Tensor) -> torch.Tensor:
            a = a.clone()
            a[..., units] = constants[kinds][..., units]
            return a

        return edit

    return {site: edit_for(site) for site in ablated}


def zero(units: list[int]) -> Edit:
    def edit(a: torch.Tensor) -> torch.Tensor:
        a = a.clone()
        a[..., units] = 0
        return a

    return edit


# --- proteins


def test_labels_say_whether_the_motif_is_there():
    proteins = planted_proteins(100)
    assert all((p.label == "1") == has_motif(p.sequence) for p in proteins)
    assert Counter(p.label for p in proteins) == {"0": 50, "1": 50}
    assert len({p.sequence for p in proteins}) == len({p.id for p in proteins}) == 100
    assert all(30 <= len(p.sequence) <= 60 for p in proteins)
    assert [p.sequence for p in planted_proteins(100)] == [p.sequence for p in proteins]
    assert has_motif("WWCCA")
    assert not has_motif("WCAAWAAC")


def test_composition_does_not_tell_the_label():
    proteins = planted_proteins(200, seed=1)
    for residue in "WC":
        counts = {label: Counter(p.sequence.count(residue) for p in proteins if p.label == label) for label in "01"}
        assert counts["0"] == counts["1"]
    near = [p for p in proteins if p.label == "0" and any(x in p.sequence for x in ("WC", "CW"))]
    assert len(near) >= 10


# --- the network


def test_built_quickly_and_reproducibly(planted):
    began = time.process_time()
    again, roles = planted_model()
    assert time.process_time() - began < 2
    assert roles == planted[1]
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), planted[0].parameters(), strict=True))


def test_it_is_an_ordinary_checkpoint(planted, tokens, tmp_path):
    batch = {key: value[:4] for key, value in tokens[0].items()}
    planted[0].save_pretrained(tmp_path)
    loaded = EsmForSequenceClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(loaded(**batch).logits, planted[0](**batch).logits)
    assert loaded.config.id2label == {0: "0", 1: "1"}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_classifies_without_error(seed, tokens):
    batch, labels = tokens
    margin = margins(planted_model(seed=seed)[0], batch, {})
    assert balanced_accuracy(margin, labels) == 1.0
    assert margin.abs().min() > 5


def test_padding_changes_nothing(planted, tokens):
    batch, _ = tokens
    length = int(batch["attention_mask"][0].sum())
    alone = margins(planted[0], {key: value[:1, :length] for key, value in batch.items()}, {})
    assert alone == pytest.approx(margins(planted[0], batch, {})[:1], abs=1e-4)


def test_planted_units_carry_the_label(planted, tokens):
    (model, roles), (batch, labels) = planted, tokens
    sites = by_site(neurons_of(roles))
    assert sum(map(len, sites.values())) == 11
    for edits in ({site: zero(units) for site, units in sites.items()}, mean_ablation(model, batch, sites)):
        assert balanced_accuracy(margins(model, batch, edits), labels) == 0.5


@pytest.mark.parametrize("role", PLANTED_ROLES)
def test_every_planted_role_is_needed(role, planted, tokens):
    (model, roles), (batch, labels) = planted, tokens
    edits = {site: zero(units) for site, units in by_site(roles[role]).items()}
    assert balanced_accuracy(margins(model, batch, edits), labels) <= 0.6


def test_planted_and_position_units_suffice(planted, tokens):
    (model, roles), (batch, labels) = planted, tokens
    kept = by_site(neurons_of(roles, PLANTED_ROLES + POSITION_ROLES))
    widths = {site: 256 if site.module == "intermediate" else 64 for site in SITES}
    others = {site: sorted(set(range(widths[site])) - set(kept.get(site, []))) for site in SITES}
    assert balanced_accuracy(margins(model, batch, mean_ablation(model, batch, others)), labels) >= 0.99
    # and it is these units: as many others do not
    wrong = {
        site: [unit for unit in range(widths[site]) if (unit + 1) % widths[site] not in kept.get(site, [])]
        for site in SITES
    }
    assert balanced_accuracy(margins(model, batch, mean_ablation(model, batch, wrong)), labels) <= 0.6


def test_single_ablation_ranks_planted_units_first_within_their_sites(planted, tokens):
    (model, roles), (batch, labels) = planted, tokens
    n, repeats = 6, 64
    sign = 2 * labels[:n] - 1
    whole = margins(model, {key: value[:n] for key, value in batch.items()}, {})
    many = {key: value[:n].repeat(repeats, 1) for key, value in batch.items()}  # one copy of the proteins per unit
    for site, units in by_site(neurons_of(roles)).items():
        keep = 1 - torch.eye(256 if site.module == "intermediate" else 64)
        drop = torch.cat(
            [
                (sign * (whole - margins(model, many, {site: lambda a, k=k: a * k}).view(repeats, n))).mean(1)
                for k in keep.repeat_interleave(n, 0).unsqueeze(1).split(repeats * n)
            ]
        )
        best = drop.argsort(descending=True)
        assert set(best[: len(units)].tolist()) == set(units), site
        assert drop[best[len(units) - 1]] > 3 * drop[best[len(units)]].clamp(min=0.01), site


def test_contrast_between_classes_finds_the_label_units(planted, tokens):
    (model, roles), (batch, labels) = planted, tokens
    residues = (kinds_of_token(batch) == 1).unsqueeze(-1)
    found = {}
    for site, values in record(model, batch).items():
        mean = (values * residues).sum(1) / residues.sum(1)  # (P, N)
        one, rest = mean[labels == 1], mean[labels == 0]
        pooled = ((one.var(0) + rest.var(0)) / 2).sqrt()
        found[site] = torch.where(pooled > 1e-6, (one.mean(0) - rest.mean(0)).abs() / pooled, torch.zeros(()))
    for site, units in by_site(neurons_of(roles, LABEL_ROLES)).items():
        assert set(found[site].argsort(descending=True)[: len(units)].tolist()) == set(units), site
    (query,) = roles["query_constant"]
    assert found[query.site][query.index] == 0


# --- the variant on which size misleads


def test_idle_constants_change_no_logit_but_every_ranking_by_size(planted, tokens):
    (model, roles), (batch, _) = planted, tokens
    loud, loud_roles = planted_model(idle_constants=30.0)
    assert loud_roles == roles
    assert torch.equal(margins(model, batch, {}), margins(loud, batch, {}))
    idle, planted_units = by_site(roles["idle"]), by_site(neurons_of(roles))
    residues = (kinds_of_token(batch) == 1).unsqueeze(-1)
    sizes = {site: ((a.abs() * residues).sum(1) / residues.sum(1)).mean(0) for site, a in record(loud, batch).items()}
    for site, units in idle.items():
        assert set(sizes[site].argsort(descending=True)[: len(units)].tolist()) == set(units), site
    top = torch.cat(list(sizes.values())).argsort(descending=True)[:12].tolist()
    pooled = [(site, unit) for site, a in sizes.items() for unit in range(len(a))]
    assert not any(unit in planted_units.get(site, []) for site, unit in (pooled[i] for i in top))
    assert idle.keys() & planted_units.keys() == {
        Site(0, "value"), Site(0, "intermediate"), Site(1, "key"), Site(1, "value")
    }  # fmt: skip
