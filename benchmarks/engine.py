"""plmscope's attribution and evaluation against Captum, hooks and the published scheme, at equal results.

    make benchmark                                               # every section, two at a time, under an hour
    python benchmarks/engine.py conductance memory --peers 2     # some sections, small

Random weights of the right scale serve: cost does not depend on them, accuracy does a little. Every peer is run on the
same proteins as ours, interleaved protein by protein, on one thread; times are the process's CPU time, ratios are sums
over proteins. Beside each ratio stands how far the results are apart (relative L2 over all neurons), or how far each
side is from a reference. Captum gets frozen weights and one protein at a time, its best case: no padding.

Prints Markdown, a table per section as it ends, the longest first. What is printed stays when a later section fails
or is interrupted; name the sections that are left to run them alone.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cache
from pathlib import Path

import captum
import numpy as np
import torch
import transformers
from captum.attr import IntegratedGradients, LayerConductance, LayerGradientXActivation
from transformers import EsmConfig, EsmForSequenceClassification, EsmTokenizer

import plmscope
from plmscope.data.proteins import AMINO_ACIDS, Protein, read_proteins
from plmscope.evaluation.predict import predict
from plmscope.evaluation.selection import of_module
from plmscope.models.architectures import MODULES
from plmscope.models.checkpoints import embedded_folder
from plmscope.models.classifier import Classifier
from plmscope.models.esm import EsmNetwork
from plmscope.models.hooks import module_of, record, replace
from plmscope.models.loading import load_model
from plmscope.scoring.conductance import conductance, path_start
from plmscope.scoring.integrated_gradients import integrated_gradients
from plmscope.scoring.linear import gradient_activation
from plmscope.scoring.targets import log_odds


@cache
def esm(layers: int, width: int) -> Classifier:
    """A random ESM-2 classifier of some shape, whose logits vary with the input."""
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
    network = EsmNetwork(model)
    with torch.no_grad():
        end, _ = network.embed(batch)
    start = path_start(network, batch, [model.encode(letter)[1] for letter in AMINO_ACIDS], "mean_embedding")
    forward = from_embedding(model, protein)
    parts = []
    for site in model.index.sites[:sites]:
        one = LayerConductance(forward, module_of(model, site)[0])
        part = one.attribute(end, start, n_steps=steps, internal_batch_size=at_once)
        parts.append(part.sum(1)[0].detach().numpy())  # at once: what Captum returns holds on to its graph
    return np.concatenate(parts)


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
    network = EsmNetwork(model)
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


ROWS = (
    "| ours against | ours (CPU s) | peer (CPU s) | ratio | difference (relative L2) |\n| --- | --- | --- | --- | --- |"
)


def section_conductance(args: argparse.Namespace) -> None:
    """All sites of one path against a loop over the sites."""
    model, proteins, n = esm(args.layers, args.width), enzymes(args.peers), args.points
    print(ROWS)
    compare(
        f"Captum LayerConductance, loop over sites: {equal_points(args, model, proteins)}",
        [lambda p=p: conductance(model, [p], points=n, rule="captum")[0].values for p in proteins],
        [lambda p=p: captum_conductance(model, p, n) for p in proteins],
    )


def section_integrated_gradients(args: argparse.Namespace) -> None:
    """Every site's own path, zero baseline."""
    model, proteins, n = esm(args.layers, args.width), enzymes(args.peers), args.points
    print(ROWS)
    compare(
        f"Captum IntegratedGradients, loop over sites: {equal_points(args, model, proteins)}",
        [lambda p=p: integrated_gradients(model, [p], points=n)[0].values for p in proteins],
        [lambda p=p: captum_integrated_gradients(model, p, n) for p in proteins],
    )


def section_gradient_activation(args: argparse.Namespace) -> None:
    """One gradient; Captum is given all layers at once. Three runs a protein, for it takes a moment."""
    model, proteins = esm(args.layers, args.width), 3 * enzymes(args.peers)
    print(ROWS)
    compare(
        f"Captum LayerGradientXActivation, list of all sites: {args.peers} proteins, three times",
        [lambda p=p: gradient_activation(model, [p])[0].values for p in proteins],
        [lambda p=p: captum_gradient_activation(model, p) for p in proteins],
    )


def section_equal_accuracy(args: argparse.Namespace) -> None:
    """Fewest points of ours that are as near the integral as the peer is; on short proteins."""
    model, proteins = esm(args.layers, args.width), enzymes(args.short, 0.02, 0.08)
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
    model, many = esm(args.layers, args.width), enzymes(4 * args.peers, 0.02, 0.98)
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


def section_modules(args: argparse.Namespace) -> None:
    """One selection within a module kind, all other kinds intact, in plain forward passes of Hugging Face's model.

    Five selections of each kind one after the other, as the evaluation runs them: what they share is in their cost.
    """
    model, many = esm(args.layers, args.width), enzymes(args.peers, 0.02, 0.98)
    rng, n, size = np.random.default_rng(0), 5, len(model.index)
    means = rng.normal(0, 0.1, (3, size))
    batches = [model.batch([protein]) for protein in many]  # its best case: no padding

    @torch.inference_mode()
    def plain() -> None:
        for batch in batches:
            model.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)

    plain()
    print("| kept share of the kind | " + " | ".join(MODULES) + " |")
    print("| --- |" + " --- |" * len(MODULES))
    for share in (0.0, 0.1, 0.5):
        cells = []
        for module in MODULES:
            others = ~of_module(model.index, module)
            keep = [others | (rng.random(size) < share) for _ in range(n)]
            started = time.process_time()
            plain()
            middle = time.process_time()
            for _ in predict(model, many, [(one, means) for one in keep]):
                pass
            cells.append(f"{(time.process_time() - middle) / n / (middle - started):.2f}")
        print(f"| {share:.0%} | " + " | ".join(cells) + " |", flush=True)


def section_many(args: argparse.Namespace) -> None:
    """Ours alone on many proteins, with points that are found; integrated gradients on half of the proteins."""
    model = esm(args.layers, args.width)
    print(
        "| method | proteins | residues | CPU s | CPU s a protein | mean points | not settled | error or largest gap |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, scorer, count in (
        ("conductance", conductance, args.proteins),
        ("integrated_gradients", integrated_gradients, -(-args.proteins // 2)),
    ):
        proteins = enzymes(count)
        started = time.process_time()
        scores = scorer(model, proteins)[0]
        seconds, s = time.process_time() - started, scores.settings
        error = (
            f"{s['error']:.1e} (relative L2)" if "error" in s else f"{scores.completeness['gap'].abs().max():.1e} nats"
        )
        cells = (
            f"`{name}`",
            str(count),
            f"{sum(map(len, proteins)):,}",
            f"{seconds:.0f}",
            f"{seconds / count:.1f}",
            f"{s['mean_points']:.1f}",
            f"{s['unsettled']:.1%}",
            error,
        )
        print("| " + " | ".join(cells) + " |", flush=True)


def section_scaling(args: argparse.Namespace) -> None:
    """Ours alone, one dimension at a time, the others as above and 100 residues."""
    print(
        "| what grows | value | conductance, 8 points (CPU s) | integrated gradients, 4 points (CPU s) "
        "| gradient x activation (CPU s) |"
    )
    print("| --- | --- | --- | --- | --- |")
    layers, width, longest = args.layers, args.width, args.longest
    base = esm(layers, width)
    cases = [("layers", n, esm(n, width), [made(min(100, longest))]) for n in (layers // 2, layers, 2 * layers)]
    cases += [("width", n, esm(layers, n), [made(min(100, longest))]) for n in (width // 2, width, 2 * width)]
    cases += [("residues", n, base, [made(n)]) for n in (*(n for n in (100, 200, 400) if n < longest), longest)]
    cases += [("proteins", n, base, [made(min(50 + 10 * k, longest)) for k in range(n)]) for n in (1, 4, 16)]
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
    "conductance, ours, all sites, `recompute`": lambda m, p, k: conductance(
        m, [p], points=8, rule="captum", token_budget=k * (len(p) + 2), recompute=True
    ),
    "conductance, Captum, one site": lambda m, p, k: captum_conductance(m, p, 8, 1, None if k == 9 else k),
    "integrated gradients, ours, all sites": lambda m, p, k: integrated_gradients(
        m, [p], points=8, token_budget=k * (len(p) + 2)
    ),
    "integrated gradients, ours, all sites, `recompute`": lambda m, p, k: integrated_gradients(
        m, [p], points=8, token_budget=k * (len(p) + 2), recompute=True
    ),
    "integrated gradients, Captum, one site": lambda m, p, k: captum_integrated_gradients(m, p, 8, 1),
}


def section_memory(args: argparse.Namespace) -> None:
    """Peak resident memory above that of the same on a short protein; every case in a process of its own."""
    print(f"| {args.longest + 2:,} tokens | states at once | peak (MB above a short protein) | CPU s |", flush=True)
    print("| --- | --- | --- | --- |", flush=True)
    for name, at_once in (
        ("conductance, ours, all sites", 9),
        ("conductance, ours, all sites, `recompute`", 9),
        ("conductance, Captum, one site", 9),
        ("conductance, ours, all sites", 4),
        ("conductance, ours, all sites", 2),
        ("integrated gradients, ours, all sites", 8),
        ("integrated gradients, ours, all sites, `recompute`", 8),
        ("integrated gradients, Captum, one site", 8),
        ("integrated gradients, ours, all sites", 2),
    ):
        peak, seconds = in_own_process(name, at_once, args)
        print(f"| {name} | {at_once} | {peak:,.0f} | {seconds:.1f} |", flush=True)


def in_own_process(name: str, at_once: int, args: argparse.Namespace) -> tuple[float, float]:
    """:func:`rise` in a fresh process, whose peak nothing else has raised."""
    peak, seconds = json.loads(run_self("--measure", name, str(at_once), *options(args)).splitlines()[-1])
    return peak, seconds


def rise(name: str, at_once: int, args: argparse.Namespace) -> tuple[float, float]:
    """Rise of this process's peak resident memory in MB, and the CPU seconds that it took."""
    model = esm(args.layers, args.width)
    MEMORY[name](model, made(16), at_once)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    MEMORY[name](model, made(args.longest), at_once)
    seconds = time.process_time() - started
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, seconds


def section_faithfulness(args: argparse.Namespace) -> None:
    """Every scorer against single-neuron ablation of a sample of neurons; see ``faithfulness.py``."""
    print(run_self("--sample", str(args.sample), script=Path(__file__).with_name("faithfulness.py")), end="")


#: What there is to measure, the longest first: about this many CPU minutes each with the default options.
SECTIONS: dict[str, tuple[Callable[[argparse.Namespace], None], float]] = {
    "many": (section_many, 16),
    "integrated_gradients": (section_integrated_gradients, 10),
    "faithfulness": (section_faithfulness, 9),
    "conductance": (section_conductance, 8),
    "memory": (section_memory, 8),
    "equal_accuracy": (section_equal_accuracy, 6),
    "scaling": (section_scaling, 4),
    "modules": (section_modules, 3),
    "selections": (section_selections, 1),
    "gradient_activation": (section_gradient_activation, 1),
}
#: Options that a section's own process is given too.
OPTIONS = ("layers", "width", "proteins", "peers", "short", "points", "steps", "longest", "sample")


def options(args: argparse.Namespace) -> list[str]:
    """The options of another process of this script."""
    return [f"--{name}={getattr(args, name)}" for name in OPTIONS]


def run_self(*arguments: str, script: Path = Path(__file__)) -> str:
    """What another process prints.

    Raises:
        RuntimeError: it failed; with what it said.
    """
    done = subprocess.run([sys.executable, str(script), *arguments], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{script.name} {' '.join(arguments)} ended with {done.returncode}\n{done.stdout}")
    return done.stdout


def here(name: str, args: argparse.Namespace) -> None:
    """Print one section: what it is, its table, and what it cost."""
    section, _ = SECTIONS[name]
    print(f"\n### `{name}`\n{(section.__doc__ or '').strip()}\n", flush=True)
    section(args)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(f"\n{sum(one.ru_utime + one.ru_stime for one in used) / 60:.1f} CPU minutes.", flush=True)


def settings(args: argparse.Namespace) -> str:
    """What all sections have in common."""
    return (
        f"plmscope {plmscope.__version__}, torch {torch.__version__}, transformers {transformers.__version__}, "
        f"captum {captum.__version__}; {args.jobs} sections at a time, one thread each; random weights, {args.layers} "
        f"layers of width {args.width}; " + ", ".join(f"`--{name} {getattr(args, name)}`" for name in OPTIONS[2:]) + "."
    )


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], help="which; all of them if none is named")
    parser.add_argument("--layers", type=int, default=6, help="of the model; the default shape is that of ESM-2 8M")
    parser.add_argument("--width", type=int, default=320, help="of the model, a multiple of 16")
    parser.add_argument("--proteins", type=int, default=64, help="for ours alone, at length quantiles")
    parser.add_argument("--peers", type=int, default=8, help="proteins on which peers run too")
    parser.add_argument("--short", type=int, default=2, help="short proteins for equal accuracy")
    parser.add_argument("--points", type=int, default=8, help="of both sides at equal points")
    parser.add_argument("--steps", type=int, default=50, help="of Captum's LayerConductance at equal accuracy")
    parser.add_argument("--longest", type=int, default=1022, help="residues of the longest protein")
    parser.add_argument("--sample", type=int, default=1800, help="neurons that are ablated one by one (faithfulness)")
    parser.add_argument("--jobs", type=int, default=2, help="sections at a time, one thread each")
    parser.add_argument("--out", type=Path, help="a file that every section is appended to as it ends")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Every section in a process of its own, several at a time; a table is printed when it is done."""
    args = arguments().parse_args(argv)
    torch.set_num_threads(1)
    if args.measure:
        print(json.dumps(rise(args.measure[0], int(args.measure[1]), args)))
        return 0
    names = [name for name in SECTIONS if name in (args.sections or SECTIONS)]
    if args.here:
        for name in names:
            here(name, args)
        return 0

    def tell(text: str) -> None:
        print(text, end="", flush=True)
        if args.out:
            with args.out.open("a", encoding="utf-8") as file:
                file.write(text)

    tell(settings(args) + "\n")
    failed = 0
    with ThreadPoolExecutor(args.jobs) as pool:
        running = {pool.submit(run_self, name, "--here", *options(args)): name for name in names}
        try:
            for one in as_completed(running):
                if error := one.exception():
                    print(f"{running[one]}: {error}", file=sys.stderr, flush=True)
                    failed += 1
                else:
                    tell(one.result())
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            left = [name for one, name in running.items() if not one.done() or one.cancelled() or one.exception()]
            print(f"interrupted; not done: {' '.join(left)}", file=sys.stderr)
            return 130
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
