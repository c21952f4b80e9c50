"""Folded networks against plain hooks on the untouched Hugging Face model."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from plmscope.data.proteins import Protein
from plmscope.models import folded
from plmscope.models.classifier import Batch, Classifier
from plmscope.models.esm import EsmNetwork
from plmscope.models.folded import Folding
from plmscope.models.hooks import Rewrite, replace
from plmscope.models.loading import load_model
from plmscope.models.sites import Site
from tests.conftest import make_proteins, save_tiny_model

#: Heads of 8 units, so that some are read by nobody and some have no scores; ESM-1b has no rotary embedding.
SHAPES = {"esm2": {}, "esm1b": {"position_embedding_type": "absolute", "emb_layer_norm_before": True}}


@pytest.fixture(scope="module", params=SHAPES)
def shape(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return load_model(save_tiny_model(tmp_path_factory.mktemp(request.param), **SHAPES[request.param]))


def folding(model: Classifier, proteins: list[Protein], budget: int = 200) -> Folding:
    slices = {site: model.index.slice(site) for site in model.index.sites}
    return Folding(EsmNetwork(model), model.batches(proteins, budget), slices)


@torch.inference_mode()
def folded_logits(model: Classifier, proteins: list[Protein], keep: np.ndarray, constants: np.ndarray) -> torch.Tensor:
    """Logits ``(P, C)`` in the order of the proteins."""
    out = torch.full((len(proteins), len(model.labels)), torch.nan)
    for rows, logits in folding(model, proteins).logits(keep, constants):
        out[rows] = logits.float()
    return out


def held_logits(model: Classifier, batch: Batch, keep: np.ndarray, constants: np.ndarray) -> torch.Tensor:
    """Logits of the Hugging Face model with hooks that hold every neuron outside ``keep`` at its three constants."""

    def held(site: Site) -> Rewrite:
        off = torch.from_numpy(~keep[model.index.slice(site)])
        first, last, middle = (torch.from_numpy(c).float() for c in constants[:, model.index.slice(site)])

        def change(a: torch.Tensor) -> torch.Tensor:
            a = a.clone()
            position = torch.arange(a.shape[1]).expand(a.shape[:2])
            place = torch.where((position == 0).unsqueeze(-1), first, middle)
            place = torch.where((position == (batch.lengths - 1).unsqueeze(1)).unsqueeze(-1), last, place)
            a[..., off] = place[..., off]
            return a

        return change

    with torch.inference_mode(), replace(model, {site: held(site) for site in model.index.sites}):
        logits: torch.Tensor = model.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        return logits


def hooked_logits(model: Classifier, proteins: list[Protein], keep: np.ndarray, constants: np.ndarray) -> torch.Tensor:
    """The same by hooks, all proteins in one padded batch."""
    return held_logits(model, model.batch(proteins), keep, constants)


def of_kind(kind: str, model: Classifier) -> np.ndarray:
    """Constants of zero, of three different means, or zero for queries and keys alone: heads that look everywhere."""
    means = np.random.default_rng(5).normal(size=(3, len(model.index)))
    for site in model.index.sites:
        if kind == "zero" or (kind == "even" and site.module in ("query", "key")):
            means[:, model.index.slice(site)] = 0
    return means


@pytest.mark.parametrize("kind", ["zero", "mean", "even"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.1, 0.6, 0.98])
def test_logits_are_those_of_hooks(shape: Classifier, kind: str, share: float) -> None:
    """Any selection, proteins of equal and of different length."""
    proteins = [*make_proteins(5), *make_proteins(3, low=11, high=12)]
    keep = np.random.default_rng(3).random(len(shape.index)) < share
    constants = of_kind(kind, shape)
    theirs = hooked_logits(shape, proteins, keep, constants)
    ours = folded_logits(shape, proteins, keep, constants)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("module", ["query", "key", "value", "attention_output", "intermediate", "output"])
@pytest.mark.parametrize("kind", ["zero", "mean"])
def test_one_module_kind_held_or_kept_alone(tiny: Classifier, module: str, kind: str) -> None:
    proteins = make_proteins(3)
    one = np.zeros(len(tiny.index), dtype=bool)
    for site in tiny.index.sites:
        one[tiny.index.slice(site)] = site.module == module
    constants = of_kind(kind, tiny)
    for keep in (one, ~one):
        theirs = hooked_logits(tiny, proteins, keep, constants)
        torch.testing.assert_close(folded_logits(tiny, proteins, keep, constants), theirs, atol=1e-5, rtol=1e-5)


def test_heads_without_scores_or_readers_leave_the_network(tiny: Classifier) -> None:
    """Head 0 works, head 1 lost the partner of its only query, head 2 has no value: one is left, one is a mean."""
    proteins, network = make_proteins(3), EsmNetwork(tiny)
    keep = np.zeros(len(tiny.index), dtype=bool)
    for module, units in (("query", (0, 8, 17)), ("key", (4, 9, 17)), ("value", (1, 8))):
        for unit in units:
            keep[tiny.index.slice(Site(0, module)).start + unit] = True
    keep[tiny.index.slice(Site(0, "attention_output"))] = True
    made = []

    class Watched(folded.FoldedLayer):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]
            made.append(self)

    zero = np.zeros((3, len(keep)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folded, "FoldedLayer", Watched)
        ours = folded_logits(tiny, proteins, keep, zero)
    assert (made[0].heads, made[0].even.shape) == (1, (1, 8))  # 0 and 4 are partners, 8 and 9 are not
    assert made[0].value.weight.shape == (1, network.layers[0].value.weight.shape[1])
    assert (made[1].heads, made[1].even.shape) == (0, (1, 0))
    torch.testing.assert_close(ours, hooked_logits(tiny, proteins, keep, zero), atol=1e-5, rtol=1e-5)


def test_holding_nothing_is_the_intact_model(shape: Classifier, proteins: list[Protein]) -> None:
    """Bit-identical whatever the constants, and within rounding of Hugging Face."""
    every = np.ones(len(shape.index), dtype=bool)
    ours = folded_logits(shape, proteins, every, np.zeros((3, len(every))))
    assert torch.equal(folded_logits(shape, proteins, every, np.ones((3, len(every)))), ours)
    theirs = hooked_logits(shape, proteins, every, np.zeros((3, len(every))))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_proteins_in_several_groups_give_the_same(tiny: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit into memory at once is folded again; the first layer's input is never overwritten."""
    proteins = make_proteins(9)
    keep = np.random.default_rng(1).random(len(tiny.index)) < 0.5
    constants = of_kind("mean", tiny)
    whole = folding(tiny, proteins, 60)
    with torch.inference_mode():
        once, again = (dict(_by_row(whole, keep, constants)) for _ in range(2))
        monkeypatch.setattr(folded, "GROUP_TOKENS", 70)
        parts = folding(tiny, proteins, 60)
        assert len(whole.groups) == 1 < len(parts.groups)
        assert once == again == dict(_by_row(parts, keep, constants))


@pytest.mark.parametrize("group_tokens", [70, 10_000])
def test_what_does_not_fit_is_split(tiny: Classifier, monkeypatch: pytest.MonkeyPatch, group_tokens: int) -> None:
    """Fewer batches, then fewer proteins; a layer that fails half-way has spoilt nothing."""
    proteins = make_proteins(9)
    keep = np.random.default_rng(1).random(len(tiny.index)) < 0.5
    constants = of_kind("mean", tiny)
    with torch.inference_mode():
        reference = dict(_by_row(folding(tiny, proteins, 120), keep, constants))
        real, sizes = folded.FoldedLayer.__call__, []

        def small(layer: folded.FoldedLayer, hidden: torch.Tensor, tokens: folded.Tokens) -> torch.Tensor:
            sizes.append(len(tokens.rows))
            found = real(layer, hidden, tokens)
            if len(tokens.rows) > 1 and not layer.last:
                hidden.fill_(torch.nan)
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return found

        monkeypatch.setattr(folded, "GROUP_TOKENS", group_tokens)
        monkeypatch.setattr(folded.FoldedLayer, "__call__", small)
        found = _by_row(folding(tiny, proteins, 120), keep, constants)
    assert max(sizes) > 2 and sorted(row for row, _ in found) == list(range(9))
    for row, logits in found:
        np.testing.assert_allclose(logits, reference[row], atol=1e-5)


def _by_row(one: Folding, keep: np.ndarray, constants: np.ndarray) -> list[tuple[int, tuple[float, ...]]]:
    return [
        (row, tuple(values))
        for rows, logits in one.logits(keep, constants)
        for row, values in zip(rows, logits.tolist(), strict=True)
    ]


def test_bfloat16_stays_near(tiny_folder: Path) -> None:
    proteins = make_proteins(4)
    half, full = load_model(tiny_folder, dtype="bfloat16"), load_model(tiny_folder)
    keep = np.random.default_rng(1).random(len(full.index)) < 0.7
    constants = of_kind("mean", full) * 0.1
    ours = folded_logits(half, proteins, keep, constants)
    theirs = hooked_logits(full, proteins, keep, constants)
    assert float((ours - theirs).abs().max()) < 0.2 * float(theirs.abs().max())


def beginnings(model: Classifier) -> list[np.ndarray]:
    """Selections that begin at every site, upwards and downwards: shared states come and go."""
    rng, found = np.random.default_rng(1), []
    for site in [*model.index.sites, *reversed(model.index.sites)]:
        keep, part = np.ones(len(model.index), dtype=bool), model.index.slice(site)
        keep[part] = rng.random(part.stop - part.start) < 0.5
        found.append(keep)
    return [*found, np.ones(len(model.index), dtype=bool)]


def unshared(model: Classifier, proteins: list[Protein]) -> Folding:
    """Without what selections have in common."""
    one = folding(model, proteins, 60)
    one.intact = None
    return one


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("architecture", SHAPES)
def test_what_lies_before_the_first_held_module_is_shared(tmp_path: Path, architecture: str, layers: int) -> None:
    """Twice in a row, so that the second time comes from what is kept: the same bits as without."""
    model = load_model(save_tiny_model(tmp_path, num_hidden_layers=layers, **SHAPES[architecture]))
    proteins = make_proteins(4, seed=3)
    with torch.inference_mode():
        for kind in ("zero", "mean"):
            one, plain, stages = folding(model, proteins, 60), unshared(model, proteins), set()
            assert one.intact is not None and len(one.only.batches) > 1
            for keep in beginnings(model):
                stages.add(one._first(keep))
                want = _by_row(plain, keep, of_kind(kind, model))
                for _ in range(2):
                    assert _by_row(one, keep, of_kind(kind, model)) == want
            later = {(n, s) for n in range(1, layers) for s in ("input", "middle")}
            assert stages == {(0, "input"), (0, "mixed"), (0, "middle"), *later}


def test_states_are_computed_once_for_neighbours(tiny: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """Selections of one kind read the intact layers once; those that begin at the embeddings do not drop them."""
    proteins, made = make_proteins(4), []
    real = folded.Intact._compute
    monkeypatch.setattr(folded.Intact, "_compute", lambda *them: made.append(them[1:]) or real(*them))
    one, of_site = folding(tiny, proteins, 60), dict(zip(tiny.index.sites, beginnings(tiny), strict=False))
    late, first = of_site[Site(2, "output")], of_site[Site(0, "query")]
    with torch.inference_mode():
        for keep in (late, first, late, late, of_site[Site(1, "key")], late):
            _by_row(one, keep, of_kind("mean", tiny))
    assert made == [(2, "middle"), (1, "input"), (2, "middle")]


def test_threads_share_states(tiny: Classifier) -> None:
    """Many threads that ask for different states in turn each get their own answer."""
    proteins, constants = make_proteins(4), of_kind("mean", tiny)
    one, plain = folding(tiny, proteins, 60), unshared(tiny, proteins)
    many = 5 * beginnings(tiny)

    @torch.inference_mode()
    def answer(keep: np.ndarray) -> list[tuple[int, tuple[float, ...]]]:
        return _by_row(one, keep, constants)

    with torch.inference_mode():
        want = 5 * [_by_row(plain, keep, constants) for keep in beginnings(tiny)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(answer, many)) == want


def test_where_shared_states_do_not_fit_selections_are_computed_whole(
    tiny: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    proteins, constants, tries = make_proteins(4), of_kind("mean", tiny), []

    def full(*_: object) -> list[torch.Tensor]:
        tries.append(0)
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(folded.Intact, "_compute", full)
    one, plain, keep = folding(tiny, proteins, 60), unshared(tiny, proteins), beginnings(tiny)[5]
    with torch.inference_mode():
        want = dict(_by_row(plain, keep, constants))
        for _ in range(2):
            for row, logits in _by_row(one, keep, constants):
                np.testing.assert_allclose(logits, want[row], atol=1e-5)
    assert len(tries) == 1  # not tried again for the next selection
