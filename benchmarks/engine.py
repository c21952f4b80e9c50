"""plmscope's attribution and evaluation against Captum, hooks and the published scheme, at equal results.

    make benchmark                                               # every section, two at a time, under an hour
    python benchmarks/engine.py conductance memory --peers 2     # some sections, small

Random weights of the right scale serve: cost does not depend on them, accuracy does a little. Every peer is run on the
same proteins as ours, interleaved protein by protein, on one thread; times are the process's CPU time, ratios are sums
over proteins. Beside each ratio stands how far the results are apart (relative L2 over all neurons), or how far each
side is from a reference. Captum gets frozen weights and one protein at a time, its best case: no padding.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

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


def esm(layers: int = 6, width: int = 320) -> Classifier:
    """A random classifier of the ESM-2 8M shape, or of another, whose logits vary with the input."""
    torch.manual_seed(0)
    config = EsmConfig(
        vocab_size=33, mask_token_id=32, pad_token_id=1, hidden_size=width, num_hidden_layers=layers,
        num_attention_heads=width // 16, intermediate_size=4 * width, position_embedding_type="rotary",
        token_dropout=True, max_position_embeddings=1026, layer_norm_eps=1e-5, emb_layer_norm_before=False,
        id2label={i: str(i + 1) for i in range(6)}, label2id={str(i + 1): i for i in range(6)},
    )  # fmt: skip
    model = EsmForSequenceClassification(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "embeddings" not in name:
                weight.normal_(0, weight.shape[1] ** -0.5)
            elif "word_embeddings" in name:
                weight.normal_(0, 1)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        EsmTokenizer(vocab_file=str(embedded_folder() / "vocab.txt")).save_pretrained(folder)
        classifier = load_model(folder)
    for warm in (conductance, integrated_gradients):  # no side pays for what is set up at the first call
        warm(classifier, [made(16)], points=2)
    captum_conductance(classifier, made(16), 2, 1)
    return classifier


def enzymes(count: int, low: float = 0.05, high: float = 0.95) -> list[Protein]:
    """Embedded enzymes at even length quantiles."""
    found = sorted(read_proteins("plmscope:enzymes", label="ec:1").proteins, key=len)
    return [found[int(place * (len(found) - 1))] for place in np.linspace(low, high, count)]


def made(length: int) -> Protein:
    """A random protein of a length."""
    letters = np.random.default_rng(length).choice(list(AMINO_ACIDS), length)
    return Protein(f"made{length}", "".join(letters), "1")


def captum_conductance(
    model: Classifier, protein: Protein, steps: int, sites: int | None = None, at_once: int | None = None
) -> np.ndarray:
    """LayerConductance, one call per site (of the first ``sites``)."""
    batch = model.batch([protein])
    network = Network(model)
    with torch.no_grad():
        end, _ = network.embed(batch)
    start = _start(network, batch, [model.encode(letter)[1] for letter in AMINO_ACIDS], "mean_embedding")
    forward = from_embedding(model, protein)
    parts = [
        LayerConductance(forward, module_of(model, site)[0]).attribute(
            end, start, n_steps=steps, internal_batch_size=at_once
        )
        for site in model.index.sites[:sites]
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


def captum_integrated_gradients(
    model: Classifier, protein: Protein, steps: int, sites: int | None = None
) -> np.ndarray:
    """IntegratedGradients on the hooked activation of every site, zero baseline."""
    batch, classes = model.batch([protein]), torch.tensor(model.targets([protein]))
    found = []
    for site in model.index.sites[:sites]:
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


def published(model: Classifier, protein: Protein) -> np.ndarray:
    """The scheme of published knowledge-neuron code, for every site: 20 even steps from 0 to 1, full forward passes.

    Score: the activation times the plain mean of the gradients at ``linspace(0, 1, 20)`` of it; ten steps at once.
    """
    batch, classes = model.batch([protein]), torch.tensor(model.targets([protein]))
    found = []
    for site in model.index.sites:
        with record(model, [site]) as seen, torch.no_grad():
            model.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
        value, total = seen[site], torch.zeros_like(seen[site])
        for alphas in torch.linspace(0, 1, 20).split(10):
            leaf = (alphas.view(-1, 1, 1) * value).requires_grad_()
            with replace(model, {site: lambda a, leaf=leaf: leaf}):
                ids, mask = batch.input_ids.repeat(10, 1), batch.attention_mask.repeat(10, 1)
                change = log_odds(model.model(input_ids=ids, attention_mask=mask).logits, classes.repeat(10))
            (gradient,) = torch.autograd.grad(change.sum(), leaf)
            total += gradient.sum(0) / 20
        found.append((total * value).sum(1)[0].numpy())
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


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """Relative L2 distance from ``other``."""
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


def spent(function: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    """CPU seconds of this process, and the result."""
    started = time.process_time()
    found = function()
    return time.process_time() - started, found


def compare(name: str, ours: list[Callable[[], np.ndarray]], theirs: list[Callable[[], np.ndarray]]) -> None:
    """Run both on every protein, one after the other, and print the ratio of CPU times and the difference."""
    seconds, worst = np.zeros(2), 0.0
    for one, other in zip(ours, theirs, strict=True):
        (first, got), (second, wanted) = spent(one), spent(other)
        seconds += first, second
        worst = max(worst, apart(got, wanted))
    ratio = seconds[1] / seconds[0]
    print(f"| {name} | {seconds[0]:.1f} | {seconds[1]:.1f} | **{ratio:.1f}x** | {worst:.1e} |", flush=True)


def equal_points(args: argparse.Namespace, model: Classifier, proteins: list[Protein]) -> str:
    """Where sizes were measured, for the name of a row."""
    lengths = [len(p) for p in proteins]
    return f"{args.points} points, {len(proteins)} proteins of {min(lengths)} to {max(lengths)} residues"


ROWS = "| ours against | ours (CPU s) | peer (CPU s) | ratio | difference |\n| --- | --- | --- | --- | --- |"


def section_conductance(args: argparse.Namespace) -> None:
    """All sites of one path against a loop over the sites."""
    model, proteins, n = esm(), enzymes(args.peers), args.points
    print(ROWS)
    compare(
        f"Captum LayerConductance, loop over sites: {equal_points(args, model, proteins)}",
        [lambda p=p: conductance(model, [p], points=n, rule="captum")[0].values for p in proteins],
        [lambda p=p: captum_conductance(model, p, n) for p in proteins],
    )


def section_integrated_gradients(args: argparse.Namespace) -> None:
    """Every site's own path, zero baseline."""
    model, proteins, n = esm(), enzymes(args.peers), args.points
    print(ROWS)
    compare(
        f"Captum IntegratedGradients, loop over sites: {equal_points(args, model, proteins)}",
        [lambda p=p: integrated_gradients(model, [p], points=n)[0].values for p in proteins],
        [lambda p=p: captum_integrated_gradients(model, p, n) for p in proteins],
    )


def section_gradient_activation(args: argparse.Namespace) -> None:
    """One gradient; Captum is given all layers at once. Three runs a protein, for it takes a moment."""
    model, proteins = esm(), 3 * enzymes(args.peers)
    print(ROWS)
    compare(
        f"Captum LayerGradientXActivation, list of all sites: {args.peers} proteins, three times",
        [lambda p=p: gradient_activation(model, [p])[0].values for p in proteins],
        [lambda p=p: captum_gradient_activation(model, p) for p in proteins],
    )


def section_equal_accuracy(args: argparse.Namespace) -> None:
    """Fewest points of ours that are as near the integral as the peer is; on short proteins."""
    model, proteins = esm(), enzymes(args.short, 0.02, 0.08)
    print("| ours against | ours (CPU s) | peer (CPU s) | ratio | our error | its error |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, theirs, ours, tries, finest in (
        (
            f"Captum LayerConductance with its default of {args.steps} steps",
            lambda p: captum_conductance(model, p, args.steps),
            lambda p, n: conductance(model, [p], points=n)[0].values,
            (4, 6, 8, 12, 16, 32),
            256,
        ),
        (
            "the published scheme, 20 steps",
            lambda p: published(model, p),
            lambda p, n: integrated_gradients(model, [p], points=n)[0].values,
            (3, 4, 5, 6, 8),
            32,
        ),
    ):
        seconds, errors, used = np.zeros(2), np.zeros(2), 0
        for protein in proteins:
            reference = ours(protein, finest)
            peer, values = spent(lambda p=protein, f=theirs: f(p))
            error = apart(values, reference)
            for n in tries:
                own, values = spent(lambda p=protein, n=n, f=ours: f(p, n))
                if apart(values, reference) <= error:
                    break
            used = max(used, n)
            seconds += own, peer
            errors = np.maximum(errors, (apart(values, reference), error))
        lengths = ", ".join(str(len(p)) for p in proteins)
        what = f"{name}; ours at most {used} points; proteins of {lengths} residues"
        ratio = seconds[1] / seconds[0]
        print(
            f"| {what} | {seconds[0]:.2f} | {seconds[1]:.1f} | **{ratio:.0f}x** | {errors[0]:.1e} | {errors[1]:.1e} |",
            flush=True,
        )


def section_selections(args: argparse.Namespace) -> None:
    """Log-probabilities under a selection."""
    model, many = esm(), enzymes(4 * args.peers, 0.02, 0.98)
    rng = np.random.default_rng(0)
    means = rng.normal(0, 0.1, len(model.index))
    print(ROWS)
    for share in (0.1, 0.5):
        for name, held in (("zero", np.zeros(len(means))), ("mean", means)):
            keep = rng.random(len(means)) < share
            compare(
                f"hooks, length-sorted batches of 8: keep {share:.0%}, {name}, {len(many)} proteins",
                [lambda k=keep, h=held: next(predict(model, many, [(k, np.tile(h, (3, 1)))])).log_prob_true],
                [lambda k=keep, h=held: hooked_predictions(model, many, k, h)],
            )


def section_many(args: argparse.Namespace) -> None:
    """Ours alone on many proteins, with points that are found."""
    model, proteins = esm(), enzymes(args.proteins)
    print("| method | proteins | CPU s | points, mean | not settled | error or largest gap |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, scorer in (("conductance", conductance), ("integrated_gradients", integrated_gradients)):
        started = time.process_time()
        scores = scorer(model, proteins)[0]
        seconds, s = time.process_time() - started, scores.settings
        error = s["error"] if "error" in s else scores.completeness["gap"].abs().max()
        cells = (
            name,
            len(proteins),
            f"{seconds:.0f}",
            f"{s['mean_points']:.1f}",
            f"{s['unsettled']:.1%}",
            f"{error:.1e}",
        )
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def section_scaling(args: argparse.Namespace) -> None:
    """Ours alone, CPU seconds, one dimension at a time."""
    print("| what grows | value | conductance, 8 points | integrated gradients, 4 points | gradient x activation |")
    print("| --- | --- | --- | --- | --- |")
    base = esm()
    cases = [("layers", n, esm(layers=n), [made(100)]) for n in (3, 6, 12)]
    cases += [("width", n, esm(width=n), [made(100)]) for n in (160, 320, 640)]
    cases += [("residues", n, base, [made(n)]) for n in (100, 200, 400, args.longest)]
    cases += [("proteins", n, base, [made(50 + 10 * k) for k in range(n)]) for n in (1, 4, 16)]
    for what, value, model, proteins in cases:
        seconds = [
            spent(lambda f=f, m=model, p=proteins: f(m, p))[0]
            for f in (
                lambda m, p: conductance(m, p, points=8)[0].values,
                lambda m, p: integrated_gradients(m, p, points=4)[0].values,
                lambda m, p: gradient_activation(m, p)[0].values,
            )
        ]
        print(f"| {what} | {value} | " + " | ".join(f"{one:.2f}" for one in seconds) + " |", flush=True)


#: What is measured in a process of its own: name to a function of model, protein and states at once.
MEMORY: dict[str, Callable[[Classifier, Protein, int], object]] = {
    "conductance, ours, all sites": lambda m, p, k: conductance(
        m, [p], points=8, rule="captum", token_budget=k * (len(p) + 2)
    ),
    "conductance, Captum, one site": lambda m, p, k: captum_conductance(m, p, 8, 1, None if k == 9 else k),
    "integrated gradients, ours, all sites": lambda m, p, k: integrated_gradients(
        m, [p], points=8, token_budget=k * (len(p) + 2)
    ),
    "integrated gradients, Captum, one site": lambda m, p, k: captum_integrated_gradients(m, p, 8, 1),
}


def section_memory(args: argparse.Namespace) -> None:
    """Peak resident memory above that of the same on a short protein; every case in a process of its own."""
    print(f"| {args.longest + 2} tokens | states at once | peak (MB above a short protein) |\n| --- | --- | --- |")
    for name, at_once in (
        ("conductance, ours, all sites", 9),
        ("conductance, Captum, one site", 9),
        ("conductance, ours, all sites", 4),
        ("integrated gradients, ours, all sites", 8),
        ("integrated gradients, Captum, one site", 8),
        ("integrated gradients, ours, all sites", 4),
    ):
        command = [sys.executable, __file__, "--measure", name, str(at_once), "--longest", str(args.longest)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        print(f"| {name} | {at_once} | {json.loads(done.stdout.splitlines()[-1]):.0f} |", flush=True)


def measure(name: str, at_once: int, longest: int) -> None:
    """Print the rise of the peak resident memory in MB."""
    model = esm()
    MEMORY[name](model, made(16), at_once)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    MEMORY[name](model, made(longest), at_once)
    print(json.dumps((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024))


SECTIONS: dict[str, Callable[[argparse.Namespace], None]] = {
    "many": section_many,
    "conductance": section_conductance,
    "integrated_gradients": section_integrated_gradients,
    "equal_accuracy": section_equal_accuracy,
    "gradient_activation": section_gradient_activation,
    "selections": section_selections,
    "scaling": section_scaling,
    "memory": section_memory,
}


def main() -> None:
    """One section here, or several in processes of their own; the tables are printed in the order of the sections."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], help="which; all of them if none is named")
    parser.add_argument("--proteins", type=int, default=64, help="for ours alone, at length quantiles")
    parser.add_argument("--peers", type=int, default=8, help="proteins on which peers run too")
    parser.add_argument("--short", type=int, default=2, help="short proteins for equal accuracy")
    parser.add_argument("--points", type=int, default=8, help="of both sides at equal points")
    parser.add_argument("--steps", type=int, default=50, help="of Captum's LayerConductance at equal accuracy")
    parser.add_argument("--longest", type=int, default=1022, help="residues of the longest protein")
    parser.add_argument("--jobs", type=int, default=2, help="sections at a time, one thread each")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.measure:
        measure(args.measure[0], int(args.measure[1]), args.longest)
        return
    if len(args.sections) == 1:
        SECTIONS[args.sections[0]](args)
        return
    options = [
        f"--{name}={getattr(args, name)}" for name in ("proteins", "peers", "short", "points", "steps", "longest")
    ]

    def alone(name: str) -> str:
        started = time.time()
        done = subprocess.run([sys.executable, __file__, name, *options], capture_output=True, text=True, check=False)
        text = done.stdout if done.returncode == 0 else f"{done.stdout}{done.stderr}"
        return f"## {name} ({time.time() - started:.0f} s)\n{text}"

    with ThreadPoolExecutor(args.jobs) as pool:
        for text in pool.map(alone, args.sections or SECTIONS):
            print(text, flush=True)


if __name__ == "__main__":
    main()
