"""plmscope's attribution and evaluation against Captum and hooks, on the ESM-2 8M shape, at equal results.

    make benchmark                       # or: python benchmarks/engine.py --proteins 8

Random weights of the right scale serve: cost does not depend on them. Every peer is run on the same proteins as ours,
interleaved protein by protein, on one thread; times are the process's CPU time, ratios are sums over proteins. Beside
each ratio stands how far the results are apart (relative L2 over all neurons). Captum gets frozen weights and one
protein at a time, its best case: no padding.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from captum.attr import IntegratedGradients, LayerConductance, LayerGradientXActivation
from transformers import EsmConfig, EsmForSequenceClassification, EsmTokenizer

from plmscope.checkpoints import embedded_folder
from plmscope.conductance import _start, conductance
from plmscope.evaluation import predict
from plmscope.gradients import integrated_gradients, log_odds
from plmscope.hooks import module_of, record, replace
from plmscope.linear import gradient_activation
from plmscope.model import Classifier, load_model
from plmscope.network import Network
from plmscope.sequences import AMINO_ACIDS, Protein, read_proteins


def esm_8m(folder: Path) -> Classifier:
    """A random classifier of the ESM-2 8M shape whose logits vary with the input."""
    torch.manual_seed(0)
    config = EsmConfig(
        vocab_size=33, mask_token_id=32, pad_token_id=1, hidden_size=320, num_hidden_layers=6, num_attention_heads=20,
        intermediate_size=1280, position_embedding_type="rotary", token_dropout=True, max_position_embeddings=1026,
        layer_norm_eps=1e-5, emb_layer_norm_before=False, id2label={i: str(i + 1) for i in range(6)},
        label2id={str(i + 1): i for i in range(6)},
    )  # fmt: skip
    model = EsmForSequenceClassification(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "embeddings" not in name:
                weight.normal_(0, weight.shape[1] ** -0.5)
            elif "word_embeddings" in name:
                weight.normal_(0, 1)
    model.save_pretrained(folder)
    EsmTokenizer(vocab_file=str(embedded_folder() / "vocab.txt")).save_pretrained(folder)
    return load_model(folder)


def captum_conductance(model: Classifier, protein: Protein, steps: int) -> np.ndarray:
    """LayerConductance, one call per site."""
    batch = model.batch([protein])
    network = Network(model)
    with torch.no_grad():
        end, _ = network.embed(batch)
    start = _start(network, batch, [model.encode(letter)[1] for letter in AMINO_ACIDS], "mean_embedding")
    forward = from_embedding(model, protein)
    parts = [
        LayerConductance(forward, module_of(model, site)[0]).attribute(
            end, start, n_steps=steps, internal_batch_size=None
        )
        for site in model.index.sites
    ]
    return np.concatenate([part.sum(1)[0].detach().numpy() for part in parts])


def from_embedding(model: Classifier, protein: Protein) -> Callable[[torch.Tensor], torch.Tensor]:
    """The log-odds as a function of the embedding output."""
    batch, classes = model.batch([protein]), torch.tensor(model.targets([protein]))

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        n = len(hidden)
        handle = model.model.esm.embeddings.register_forward_hook(lambda *_: hidden)
        try:
            ids, mask = batch.input_ids.repeat(n, 1), batch.attention_mask.repeat(n, 1)
            return log_odds(model.model(input_ids=ids, attention_mask=mask).logits, classes.repeat(n))
        finally:
            handle.remove()

    return forward


def captum_gradient_activation(model: Classifier, protein: Protein) -> np.ndarray:
    """LayerGradientXActivation given the list of all sites."""
    network = Network(model)
    with torch.no_grad():
        end, _ = network.embed(model.batch([protein]))
    layers = [module_of(model, site)[0] for site in model.index.sites]
    parts = LayerGradientXActivation(from_embedding(model, protein), layers).attribute(end.requires_grad_())
    return np.concatenate([part.sum(1)[0].detach().numpy() for part in parts])


def captum_integrated_gradients(model: Classifier, protein: Protein, steps: int) -> np.ndarray:
    """IntegratedGradients on the hooked activation of every site, zero baseline."""
    batch, classes = model.batch([protein]), torch.tensor(model.targets([protein]))
    found = []
    for site in model.index.sites:
        with record(model, [site]) as seen, torch.no_grad():
            model.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)

        def forward(activation: torch.Tensor, site=site) -> torch.Tensor:
            n = len(activation)
            with replace(model, {site: lambda a: activation}):
                ids, mask = batch.input_ids.repeat(n, 1), batch.attention_mask.repeat(n, 1)
                return log_odds(model.model(input_ids=ids, attention_mask=mask).logits, classes.repeat(n))

        got = IntegratedGradients(forward).attribute(
            seen[site], torch.zeros_like(seen[site]), n_steps=steps, method="gausslegendre", internal_batch_size=8
        )
        found.append(got.sum(1)[0].detach().numpy())
    return np.concatenate(found)


def hooked_predictions(model: Classifier, proteins: list[Protein], keep: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Keep a selection by hooks, the others at ``held (N,)``, in length-sorted padded batches of 8."""
    order = sorted(range(len(proteins)), key=lambda row: -len(proteins[row]))
    out = np.zeros(len(proteins))
    true = model.targets(proteins)
    parts = {site: torch.from_numpy(part).float() for site, part in model.index.split(keep).items()}
    constants = {site: torch.from_numpy(part).float() for site, part in model.index.split(held * ~keep).items()}
    changes = {site: (lambda a, site=site: a * parts[site] + constants[site]) for site in parts}
    if not held.any():
        changes = {site: (lambda a, site=site: a * parts[site]) for site in parts}
    with replace(model, changes), torch.inference_mode():
        for start in range(0, len(order), 8):
            rows = order[start : start + 8]
            batch = model.batch([proteins[row] for row in rows], rows)
            logits = model.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
            out[rows] = logits.log_softmax(1)[torch.arange(len(rows)), torch.tensor(true[rows])]
    return out


def compare(name: str, ours: list[Callable[[], np.ndarray]], theirs: list[Callable[[], np.ndarray]]) -> None:
    """Run both on every protein, one after the other, and print the ratio of CPU times and the difference."""
    spent, worst = [0.0, 0.0], 0.0
    for one, other in zip(ours, theirs, strict=True):
        results = []
        for side, function in enumerate((one, other)):
            started = time.process_time()
            results.append(function())
            spent[side] += time.process_time() - started
        worst = max(worst, float(np.linalg.norm(results[0] - results[1]) / np.linalg.norm(results[1])))
    ratio = spent[1] / spent[0]
    print(f"| {name} | {spent[0]:.1f} | {spent[1]:.1f} | **{ratio:.1f}x** | {worst:.1e} |", flush=True)


def main() -> None:
    """Build the model, take proteins at length quantiles, print one row a comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--proteins", type=int, default=8, help="at length quantiles of the embedded enzymes")
    parser.add_argument("--points", type=int, default=16)
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = sorted(read_proteins("plmscope:enzymes", label="ec:1").proteins, key=len)
    places = np.linspace(0.05, 0.95, args.proteins)
    proteins = [found[int(place * len(found))] for place in places]
    with tempfile.TemporaryDirectory() as folder:
        model = esm_8m(Path(folder))
    n, lengths = args.points, [len(p) for p in proteins]
    shape = f"{min(lengths)} to {max(lengths)} residues, {len(model.index):,} neurons, {n} points"
    print(f"{len(proteins)} proteins of {shape}\n")
    print("| ours against | ours (CPU s) | peer (CPU s) | ratio | difference |\n| --- | --- | --- | --- | --- |")
    compare(
        "Captum LayerConductance, loop over sites, equal points",
        [lambda p=p: conductance(model, [p], points=n, rule="captum")[0].values for p in proteins],
        [lambda p=p: captum_conductance(model, p, n) for p in proteins],
    )
    compare(
        "Captum IntegratedGradients, loop over sites, equal points",
        [lambda p=p: integrated_gradients(model, [p], points=n)[0].values for p in proteins],
        [lambda p=p: captum_integrated_gradients(model, p, n) for p in proteins],
    )
    compare(
        "Captum LayerGradientXActivation, list of all sites",
        [lambda p=p: gradient_activation(model, [p])[0].values for p in proteins],
        [lambda p=p: captum_gradient_activation(model, p) for p in proteins],
    )
    many = [found[int(place * len(found))] for place in np.linspace(0.02, 0.98, 4 * args.proteins)]
    rng = np.random.default_rng(0)
    means = rng.normal(0, 0.1, len(model.index))
    for share in (0.1, 0.5):
        for name, held in (("zero", np.zeros(len(means))), ("mean", means)):
            keep = rng.random(len(means)) < share
            compare(
                f"hooks, length-sorted batches of 8: keep {share:.0%}, {name}, {len(many)} proteins",
                [lambda k=keep, h=held: next(predict(model, many, [(k, np.tile(h, (3, 1)))])).log_prob_true],
                [lambda k=keep, h=held: hooked_predictions(model, many, k, h)],
            )


if __name__ == "__main__":
    main()
