"""Check plmscope on a GPU in a few minutes and without any download: is it right, does it fit, how fast is it?

    python scripts/check_gpu.py --out gpu                         # on the first GPU
    python scripts/check_gpu.py --out gpu --device cpu --small    # that the script runs, on any machine

``precision``  What float32 means here: a TF32 that was switched on by a setting or the environment is an error. Peaks.
``equal``      The embedded model and enzymes: scores, folded evaluation, interventions, characterization and
               fine-tuning against the CPU in float32; the same in bfloat16 against float32, more loosely.
``memory``     Batches that cannot fit beside a blocking allocation are split, and the results stay what they are.
``two``        Two processes share the card and get the results of one.
``speed``      Random weights of the 8M, 150M and 650M shapes of ESM-2: proteins and tokens a second, share of the peak
               that a large matrix product reaches, peak memory against the formula behind ``token_budget = 0``.

``results.json`` and ``results.md`` are written after every line, so that a kill loses nothing. A section that fails or
runs out of its time is told and the others go on. The exit status is 1 if anything failed.

Tolerances. Per site, relative L2 of the scores against the CPU's (a site whose scores are below a thousandth of the
largest site's is measured against that). float32: other orders of summation alone. bfloat16 has 8 bits of mantissa:
what it costs is told, and the limits are those beyond which something is broken rather than rounded.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
import transformers
from scipy.stats import spearmanr
from transformers import EsmConfig, EsmForSequenceClassification, EsmTokenizer

import plmscope
from plmscope.data.proteins import AMINO_ACIDS, Protein, read_proteins
from plmscope.evaluation.interventions import Change, outcomes
from plmscope.evaluation.predict import predict
from plmscope.evaluation.selection import Selection, select_top
from plmscope.knowledge import characterize
from plmscope.knowledge.concepts import build_concepts
from plmscope.models import workers
from plmscope.models.architectures import architecture_of
from plmscope.models.checkpoints import embedded_folder
from plmscope.models.classifier import DTYPES, Classifier
from plmscope.models.finetune import Training, finetune
from plmscope.models.hooked import network_of
from plmscope.models.loading import load_model
from plmscope.models.sites import NeuronIndex
from plmscope.models.spread import placed
from plmscope.scoring import activation, conductance, paths
from plmscope.scoring import integrated_gradients as gradients
from plmscope.scoring.linear import gradient_activation
from plmscope.scoring.scores import NeuronScores

LABELS = ("1", "2", "3", "4", "5", "6")
#: Layers and width of ESM-2's shapes; 20 heads each.
SHAPES = {"8M": (6, 320), "150M": (30, 640), "650M": (33, 1280)}
#: What each section may take of the whole budget.
SECTIONS = {"precision": 0.08, "equal": 0.42, "memory": 0.12, "two": 0.25, "speed": 0.6}

#: Per site relative L2 of scores: float32, bfloat16.
SCORE_LIMITS = {
    "activation": (1e-4, 0.05),
    "activation_contrast": (5e-3, 0.5),
    "integrated_gradients": (1e-3, 0.3),
    "conductance": (1e-3, 0.3),
    "gradient_activation": (1e-3, 0.3),
}
RANK_LIMIT = 0.9  # Spearman over all neurons, bfloat16 against float32
LOGIT_LIMITS = (1e-4, 0.1)  # of the largest absolute logit


@dataclass
class Results:
    """What was found so far, on the disk after every line."""

    folder: Path
    machine: dict[str, Any] = field(default_factory=dict)
    checks: list[dict[str, Any]] = field(default_factory=list)
    speeds: list[dict[str, Any]] = field(default_factory=list)
    sections: dict[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether a check or a section failed."""
        return any(row["passed"] is False for row in self.checks) or any(
            not text.startswith("done") for text in self.sections.values()
        )

    def check(self, section: str, what: str, value: float, limit: float | None, *, least: bool = False) -> None:
        """One number that should be at most (``least``: at least) a limit; without one it is told and not judged."""
        passed = None if limit is None else bool(value >= limit if least else value <= limit)
        rule = "" if limit is None else f"{'>=' if least else '<='} {limit:g}"
        self.checks.append({"section": section, "what": what, "value": float(value), "rule": rule, "passed": passed})
        print(f"{section}: {what}: {value:.3g} {rule} {'' if passed is None else 'ok' if passed else 'FAILED'}")
        self.write()

    def speed(self, **row: Any) -> None:
        """One measurement."""
        self.speeds.append(row)
        print("speed:", ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))
        self.write()

    def write(self) -> None:
        """Both files, each in one move."""
        sys.stdout.flush()
        content = {name: vars(self)[name] for name in ("machine", "sections", "checks", "speeds")}
        for name, text in (("results.json", json.dumps(content, indent=1)), ("results.md", self.markdown())):
            new = self.folder / f"{name}.new"
            new.write_text(text + "\n", encoding="utf-8")
            new.replace(self.folder / name)

    def markdown(self) -> str:
        """The tables."""
        machine = "; ".join(f"{name} {value}" for name, value in self.machine.items())
        lines = [machine, "", "| section | result |", "|---|---|"]
        lines += [f"| {name} | {text.splitlines()[0]} |" for name, text in self.sections.items()]
        lines += ["", "| section | what | value | limit | |", "|---|---|---|---|---|"]
        words = {None: "", True: "ok", False: "**failed**"}
        lines += [
            f"| {r['section']} | {r['what']} | {r['value']:.3g} | {r['rule']} | {words[r['passed']]} |"
            for r in self.checks
        ]
        columns = list(dict.fromkeys(key for row in self.speeds for key in row))
        if columns:
            lines += ["", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        for row in self.speeds:
            cells = [row.get(c, "") for c in columns]
            lines.append("| " + " | ".join(f"{c:.3g}" if isinstance(c, float) else str(c) for c in cells) + " |")
        return "\n".join(lines)


class OutOfTime(Exception):
    """A section has used up its time."""


@dataclass
class Setup:
    """What every section is given."""

    device: torch.device
    small: bool
    results: Results
    ends: float
    peaks: dict[str, float] = field(default_factory=dict)

    @property
    def left(self) -> float:
        """Seconds left to the section."""
        return self.ends - time.monotonic()

    def wait(self) -> None:
        """Until the device has done what it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def clear(self) -> None:
        """Give back what nobody uses, and start a new peak."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def used(self) -> int:
        """Bytes allocated."""
        return torch.cuda.memory_allocated(self.device) if self.device.type == "cuda" else 0

    def peak(self) -> int:
        """Largest number of bytes allocated since :meth:`clear`."""
        return torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else 0

    def timed(self, function: Callable[[], Any]) -> float:
        """Seconds of one call."""
        self.wait()
        start = time.perf_counter()
        function()
        self.wait()
        return time.perf_counter() - start


def embedded(device: torch.device | str, dtype: str = "float32") -> Classifier:
    """The embedded encoder under a fresh head, the same everywhere."""
    return load_model("plmscope:embedded", labels=LABELS, device=str(device), dtype=dtype)


def enzymes(each: int, low: int, high: int, skip: int = 0) -> list[Protein]:
    """The same number of embedded enzymes of every class, of some length."""
    found = read_proteins("plmscope:enzymes", label="ec:1").proteins
    chosen = []
    for label in LABELS:
        own = [p for p in found if p.label == label and low <= len(p) <= high]
        chosen += own[skip : skip + each]
    return chosen


# --- precision --------------------------------------------------------------------------------------------------------


def precision(setup: Setup) -> None:
    """What a float32 product is here, and how fast products are."""
    device, results = setup.device, setup.results
    n = 256 if setup.small else 8192
    seed = torch.Generator().manual_seed(0)
    a, b = (torch.randn(512, 512, generator=seed, dtype=torch.float64) for _ in range(2))
    exact = a @ b
    found = (a.float().to(device) @ b.float().to(device)).double().cpu()
    results.check("precision", "float32 product, relative L2 error", _relative(found, exact), 1e-5)
    results.machine["float32 matmul precision"] = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        results.check("precision", "TF32 allowed (0: no)", float(torch.backends.cuda.matmul.allow_tf32), 0)
    attention = [torch.randn(4, 6, 100, 32, generator=seed, dtype=torch.float64) for _ in range(3)]
    exact = torch.nn.functional.scaled_dot_product_attention(*attention)
    got = torch.nn.functional.scaled_dot_product_attention(*(x.float().to(device) for x in attention))
    results.check("precision", "float32 attention, relative L2 error", _relative(got.double().cpu(), exact), 1e-5)
    if device.type == "cpu" and not setup.small:
        n = 2048
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        if name == "bfloat16" and device.type == "cpu":
            continue
        setup.peaks[name] = _product_rate(setup, n, dtype)
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
        try:
            setup.peaks["tf32"] = _product_rate(setup, n, torch.float32)
        finally:
            torch.backends.cuda.matmul.allow_tf32 = False
    for name, rate in setup.peaks.items():
        results.check("precision", f"peak {name}, TFLOP/s of a {n}-wide matrix product", rate / 1e12, None)


def _product_rate(setup: Setup, n: int, dtype: torch.dtype) -> float:
    """Operations a second of a square matrix product."""
    a = torch.randn(n, n, device=setup.device).to(dtype)
    b = torch.randn(n, n, device=setup.device).to(dtype)
    out = a @ b
    times = 5

    def work() -> None:
        for _ in range(times):
            torch.mm(a, b, out=out)

    work()
    return 2 * n**3 * times / setup.timed(work)


def _relative(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found - exact).norm() / exact.norm())


# --- equal ------------------------------------------------------------------------------------------------------------


def scored(classifier: Classifier, proteins: list[Protein], small: bool, budget: int) -> dict[str, NeuronScores]:
    """The scores that are compared, by fixed numbers of points: one that is found may differ by rounding."""
    found = [
        *activation.activation_scores(classifier, proteins, token_budget=budget),
        *gradient_activation(classifier, proteins, token_budget=budget),
        *conductance.conductance(classifier, proteins, points=4 if small else 16, token_budget=budget),
        *gradients.integrated_gradients(classifier, proteins, points=2 if small else 8, token_budget=budget),
    ]
    return {one.method: one for one in found if one.method in SCORE_LIMITS}


def worst_site(index: NeuronIndex, found: np.ndarray, wanted: np.ndarray) -> float:
    """Largest relative L2 over sites; a site far below the largest is measured against a thousandth of that."""
    sizes = {site: float(np.linalg.norm(part)) for site, part in index.split(wanted).items()}
    floor = 1e-3 * max(sizes.values())
    apart = index.split(found - wanted)
    return max(float(np.linalg.norm(apart[site])) / max(size, floor, 1e-30) for site, size in sizes.items())


def equal(setup: Setup) -> None:
    """The embedded model on the device against the CPU."""
    small, results = setup.small, setup.results
    proteins = enzymes(1 if small else 2, 40, 80 if small else 160)
    others = enzymes(1 if small else 4, 40, 80 if small else 220, skip=2)
    reference = embedded("cpu")
    wanted = scored(reference, proteins, small, 512)
    constants = activation.summarise_activations(reference, proteins).constants("mean")
    ranked = wanted["integrated_gradients"]
    selections = [select_top(ranked, share) for share in ((0.1,) if small else (0.05, 0.3, 0.8))]
    parts: dict[str, Callable[[], None]] = {}
    for place, dtype in enumerate(("float32", "bfloat16")):

        def compared(place: int = place, dtype: str = dtype) -> None:
            _equal_in(setup, dtype, place, reference, wanted, proteins, others, selections, constants)

        parts[dtype] = compared
    if setup.device.type == "cpu" and not torch.cpu._is_avx512_bf16_supported():
        results.sections["equal, bfloat16"] = "done: left out, this CPU has no bfloat16 arithmetic"
        del parts["bfloat16"]
    parts["fine-tuning"] = lambda: _equal_training(setup)
    parts["characterization"] = lambda: _equal_characterization(setup, reference, selections[0])
    for name, part in parts.items():
        try:
            part()
        except OutOfTime:
            raise
        except Exception as error:
            _told(results, f"equal, {name}", error)


def _equal_in(
    setup: Setup,
    dtype: str,
    place: int,
    reference: Classifier,
    wanted: dict[str, NeuronScores],
    proteins: list[Protein],
    others: list[Protein],
    selections: list[Selection],
    constants: np.ndarray,
) -> None:
    """Scores, evaluation and interventions in one precision."""
    results, index = setup.results, reference.index
    classifier = embedded(setup.device, dtype)
    found = scored(classifier, proteins, setup.small, 4096)
    for method, one in wanted.items():
        apart = worst_site(index, found[method].values, one.values)
        results.check("equal", f"{dtype}, {method}: worst site", apart, SCORE_LIMITS[method][place])
        rank = float(spearmanr(found[method].values, one.values).statistic)
        limit = 0.9999 if dtype == "float32" else RANK_LIMIT
        results.check("equal", f"{dtype}, {method}: Spearman over all neurons", rank, limit, least=True)
    zeros = np.zeros_like(constants)
    for name, values in (("mean", constants), ("zero", zeros)):
        pairs = [(mask, values) for one in selections for mask in (one.mask, ~one.mask)]
        pairs += [(np.ones(len(index), bool), values)]
        a, b = (np.stack([_logits(c, others, *pair) for pair in pairs]) for c in (reference, classifier))
        apart = float(np.abs(a - b).max() / np.abs(a).max())
        results.check("equal", f"{dtype}, logits, {name} ablation: share of largest", apart, LOGIT_LIMITS[place])
        answers = [np.stack([p.predicted for p in predict(c, others, pairs)]) for c in (reference, classifier)]
        least_equal = (0.99, 0.8)[place]
        same = float((answers[0] == answers[1]).mean())
        results.check("equal", f"{dtype}, decisions, {name} ablation: share equal", same, least_equal, least=True)
    changes = [Change(one, factor) for one in selections[:2] for factor in (None, 0.0, 0.5, 2.0)]
    a, b = (np.stack(list(outcomes(c, others, changes, constants))) for c in (reference, classifier))
    apart = float(np.abs(a - b).max() / np.abs(a).max())
    results.check("equal", f"{dtype}, log-odds under interventions: share of largest", apart, LOGIT_LIMITS[place])


def _logits(classifier: Classifier, proteins: list[Protein], keep: np.ndarray, constants: np.ndarray) -> np.ndarray:
    """Logits ``(P, C)`` with all neurons outside ``keep`` at constants."""
    slices = {site: classifier.index.slice(site) for site in classifier.index.sites}
    held = network_of(classifier).held_logits(classifier.batches(proteins, 2048), slices)
    out = np.zeros((len(proteins), len(LABELS)))
    with torch.inference_mode():
        for rows, logits in held(keep, constants):
            out[rows] = logits.double().cpu().numpy()
    return out


def _equal_characterization(setup: Setup, reference: Classifier, selection: Selection) -> None:
    """The pairs of neurons and concepts, and their numbers."""
    small, results = setup.small, setup.results
    each, longest = (2, 110) if small else (6, 160)
    discovery, confirmation = enzymes(each, 40, longest), enzymes(each, 40, longest, skip=each)
    concepts = build_concepts(discovery, kinds=("amino acid", "group"), min_proteins=5)
    chosen = np.zeros(len(reference.index), bool)
    chosen[np.flatnonzero(selection.mask)[:20]] = True
    keys = ["position", "sign", "rank"]
    frames = []
    for classifier in (reference, embedded(setup.device)):
        found = characterize.characterize(
            classifier, discovery, confirmation, concepts, chosen, characterize.CharacterizeSettings(min_proteins=5)
        )
        frames.append(found.associations)
    results.check("equal", "characterization: pairs", len(frames[0]), 1000, least=True)
    both = frames[0].merge(frames[1], on=keys, how="outer", suffixes=("_cpu", "_device"))
    same = (both["concept_cpu"] == both["concept_device"]).to_numpy()
    results.check("equal", "characterization: share of pairs equal", float(same.mean()), 0.99, least=True)
    for name in ("f1", "auroc"):
        apart = (both[f"{name}_cpu"] - both[f"{name}_device"]).abs()[same].dropna()
        results.check("equal", f"characterization, {name}: 99th percentile of differences", apart.quantile(0.99), 0.02)


def _equal_training(setup: Setup) -> None:
    """The trainer on this device: stays on it, and ends near where the CPU ends."""
    train, validation = enzymes(2 if setup.small else 6, 40, 120), enzymes(2, 40, 120, skip=8)
    losses = []
    for device in (str(setup.device), "cpu"):
        classifier = embedded(device)
        with tempfile.TemporaryDirectory() as folder:
            training = Training(epochs=1 if setup.small else 2, token_budget=512)
            log = finetune(classifier, train, validation, Path(folder), training)
        losses.append(float(log["validation_loss"].iloc[-1]))
        stayed = classifier.device.type == torch.device(device).type
        setup.results.check("equal", f"fine-tuning on {device}: stayed there", float(stayed), 1, least=True)
    setup.results.check("equal", "fine-tuning: difference of validation loss", abs(losses[0] - losses[1]), 0.1)


# --- random weights ---------------------------------------------------------------------------------------------------


def random_esm(layers: int, width: int, heads: int, device: torch.device) -> Classifier:
    """A random ESM-2 classifier of some shape whose logits vary with the input, made on the device."""
    torch.manual_seed(0)
    config = EsmConfig(
        vocab_size=33, mask_token_id=32, pad_token_id=1, hidden_size=width, num_hidden_layers=layers,
        num_attention_heads=heads, intermediate_size=4 * width, position_embedding_type="rotary",
        token_dropout=True, max_position_embeddings=1026, layer_norm_eps=1e-5, emb_layer_norm_before=False,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, classifier_dropout=None,
        id2label=dict(enumerate(LABELS)), label2id={label: i for i, label in enumerate(LABELS)},
        problem_type="single_label_classification",
    )  # fmt: skip
    with device:
        model: Any = EsmForSequenceClassification(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "embeddings" not in name:
                weight.normal_(0, weight.shape[1] ** -0.5)
            elif "word_embeddings" in name:
                weight.normal_(0, 1)
    tokenizer = EsmTokenizer(vocab_file=str(embedded_folder() / "vocab.txt"))
    index = NeuronIndex.of(layers, width, 4 * width)
    classifier = Classifier(model.to(device), tokenizer, architecture_of("esm"), LABELS, index, f"{layers}x{width}")
    classifier.freeze()
    return classifier


def made(count: int, length: int) -> list[Protein]:
    """Random proteins of one length."""
    rng = np.random.default_rng(length)
    letters = list(AMINO_ACIDS)
    return [Protein(f"made{k}", "".join(rng.choice(letters, length)), LABELS[k % len(LABELS)]) for k in range(count)]


# --- memory -----------------------------------------------------------------------------------------------------------


@contextmanager
def counting() -> Iterator[list[int]]:
    """Counts how often memory ran out and the work was split."""
    counts = [0]
    original = workers.out_of_memory

    def counted(error: BaseException) -> bool:
        ran_out = original(error)
        counts[0] += ran_out
        return ran_out

    workers.out_of_memory = counted
    try:
        yield counts
    finally:
        workers.out_of_memory = original


@contextmanager
def little(setup: Setup, room: int) -> Iterator[None]:
    """All of the device's memory taken but ``room`` bytes; on a CPU, states of more than ``room`` tokens do not fit."""
    if setup.device.type == "cuda":
        setup.wait()
        torch.cuda.empty_cache()
        free = torch.cuda.mem_get_info(setup.device)[0]
        block = torch.empty(max(0, free - room), dtype=torch.uint8, device=setup.device)
        try:
            yield
        finally:
            del block
            torch.cuda.empty_cache()
        return
    original = paths.activations_and_gradients

    def limited(network: Any, hidden: torch.Tensor, *rest: Any) -> None:
        if hidden.shape[0] * hidden.shape[1] > room:
            raise torch.OutOfMemoryError("simulated: out of memory")
        original(network, hidden, *rest)

    conductance.activations_and_gradients = limited
    try:
        yield
    finally:
        conductance.activations_and_gradients = original


def memory(setup: Setup) -> None:
    """Memory runs out, and nothing else changes."""
    results, cuda = setup.results, setup.device.type == "cuda"
    classifier = random_esm(*((2, 32, 2) if setup.small else (*SHAPES["8M"], 20)), setup.device)
    proteins = made(4, 40) if setup.small else made(16, 300)
    most = 50_000

    def by_conductance(budget: int, recompute: bool = False) -> np.ndarray:
        return conductance.conductance(classifier, proteins, points=8, token_budget=budget, recompute=recompute)[
            0
        ].values

    wanted = by_conductance(600)
    rooms = [200, 84] if not cuda else [2 * 10**9, 300 * 10**6]
    for room in rooms:
        with little(setup, room), counting() as counts:
            found = by_conductance(most)
        said = f"room of {room / 1e9:g} GB" if cuda else f"room of {room} tokens, simulated"
        results.check("memory", f"conductance, {said}: times split", counts[0], 1, least=True)
        apart = float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))
        results.check("memory", f"conductance, {said}: relative L2", apart, 1e-3)
    again = by_conductance(600, recompute=True)
    apart = float(np.linalg.norm(again - wanted) / np.linalg.norm(wanted))
    results.check("memory", "conductance, layers recomputed: relative L2", apart, 1e-3)
    if not cuda:
        return
    plain = gradients.integrated_gradients(classifier, proteins[:4], points=4, token_budget=1200)[0].values
    with little(setup, 400 * 10**6), counting() as counts:
        found = gradients.integrated_gradients(classifier, proteins[:4], points=4, token_budget=most)[0].values
    results.check("memory", "integrated gradients, room of 0.4 GB: times split", counts[0], None)
    apart = float(np.linalg.norm(found - plain) / np.linalg.norm(plain))
    results.check("memory", "integrated gradients, room of 0.4 GB: relative L2", apart, 1e-3)
    many = made(200, 300)
    keep = np.random.default_rng(0).random(len(classifier.index)) < 0.5
    zeros = np.zeros((3, len(keep)))
    before = _logits(classifier, many, keep, zeros)
    with little(setup, 400 * 10**6), counting() as counts:
        after = _logits(classifier, many, keep, zeros)
    results.check("memory", "evaluation of 200 proteins, room of 0.4 GB: times split", counts[0], None)
    apart = float(np.abs(before - after).max() / np.abs(before).max())
    results.check("memory", "evaluation, room of 0.4 GB: largest difference of logits", apart, 1e-4)
    values = activation.activation_scores(classifier, many[:100], token_budget=4096)[0].values
    with little(setup, 800 * 10**6), counting() as counts:
        found = activation.activation_scores(classifier, many[:100], token_budget=65536)[0].values
    results.check("memory", "activations, room of 0.8 GB: times split", counts[0], 1, least=True)
    apart = float(np.linalg.norm(found - values) / np.linalg.norm(values))
    results.check("memory", "activations, room of 0.8 GB: relative L2", apart, 1e-4)


# --- two processes ----------------------------------------------------------------------------------------------------


def shared(device: torch.device, small: bool) -> tuple[Classifier, list[Protein]]:
    """What both processes work on."""
    if small:
        return random_esm(2, 32, 2, device), made(6, 40)
    return embedded(device), enzymes(1, 40, 160)


def child(device: str, small: bool, folder: Path, number: int) -> None:
    """One of two processes: score when both are there, and say when."""
    classifier, proteins = shared(torch.device(device), small)
    scored(classifier, proteins[:1], True, 2048)
    (folder / f"ready{number}").touch()
    until = time.monotonic() + 60
    while not (folder / f"ready{1 - number}").exists() and time.monotonic() < until:
        time.sleep(0.01)
    begin = time.time()
    found = scored(classifier, proteins, small, 2048)
    taken = {name: one.values for name, one in found.items()}
    np.savez(folder / f"found{number}.npz", began=begin, ended=time.time(), **taken)


def two(setup: Setup) -> None:
    """Two processes at a time on one device."""
    results = setup.results
    classifier, proteins = shared(setup.device, setup.small)
    wanted = scored(classifier, proteins, setup.small, 2048)
    paths = [str(Path(plmscope.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, str(Path(__file__).resolve()), "--out", name, "--device", str(setup.device)]
        command += ["--small"] if setup.small else []
        running = [subprocess.Popen([*command, "--child", str(i)], env=env) for i in range(2)]
        try:
            codes = [one.wait(timeout=max(1.0, setup.left)) for one in running]
        finally:
            for one in running:
                if one.poll() is None:
                    one.kill()
                    one.wait()
        results.check("two", "processes that ended well", codes.count(0), 2, least=True)
        found = []
        for i in range(2):
            with np.load(folder / f"found{i}.npz") as content:
                found.append(dict(content))
    spans = [(float(one["began"]), float(one["ended"])) for one in found]
    overlap = min(end for _, end in spans) - max(begin for begin, _ in spans)
    results.check("two", "seconds at the same time", overlap, 0, least=True)
    for method, one in wanted.items():
        apart = max(float(np.linalg.norm(two_[method] - one.values) / np.linalg.norm(one.values)) for two_ in found)
        results.check("two", f"{method}: relative L2 against one process", apart, 1e-4)


# --- speed ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """Floating-point operations of a shape at a length, a multiplication and an addition counting two."""

    layers: int
    width: int
    tokens: int

    @property
    def feed_forward(self) -> float:
        """Of one layer of one protein."""
        return 16.0 * self.width**2 * self.tokens

    @property
    def layer(self) -> float:
        """One layer of one protein."""
        return 8.0 * self.width**2 * self.tokens + 4.0 * self.tokens**2 * self.width + self.feed_forward

    @property
    def last(self) -> float:
        """The last one, of which the head reads one token."""
        rest = 20.0 * self.width**2 + 4.0 * self.tokens * self.width
        return 4.0 * self.width**2 * self.tokens + rest

    def above(self, layer: int) -> float:
        """All layers above one."""
        return 0.0 if layer >= self.layers - 1 else (self.layers - 2 - layer) * self.layer + self.last

    @property
    def forward(self) -> float:
        """A forward pass."""
        return self.above(-1)

    @property
    def path(self) -> float:
        """One point of the paths of all sites: forward and back, five paths a layer (query and key share theirs)."""
        return sum(2 * (5 * self.above(n) + 3 * self.feed_forward) for n in range(self.layers - 1))


def speed(setup: Setup) -> None:
    """Rates of everything long, at every shape."""
    shapes = {"tiny": (2, 32)} if setup.small else SHAPES
    for name, (layers, width) in shapes.items():
        classifier = random_esm(layers, width, 2 if setup.small else 20, setup.device)
        _speed_of(setup, name, classifier, Cost(layers, width, (40 if setup.small else 300) + 2))
        del classifier
        setup.clear()


def _speed_of(setup: Setup, name: str, classifier: Classifier, cost: Cost) -> None:
    """All measurements of one shape."""
    length = cost.tokens - 2
    big = classifier.index.sites[-1].layer > 10
    n_path, n_cond, n_eval = (2, 2, 4) if setup.small else (1, 8, 32) if big else (4, 16, 128)
    points = 2 if setup.small or big else 4
    _speed_training(setup, name, classifier, cost)
    setup.clear()
    for dtype in ("bfloat16", "float32") if setup.device.type == "cuda" else ("float32",):
        model: Any = copy.deepcopy(classifier.model)
        one = Classifier(
            placed(model, setup.device, DTYPES[dtype]), classifier.tokenizer, classifier.architecture, LABELS,
            classifier.index, name,
        )  # fmt: skip
        one.freeze()
        _speed_scores(setup, name, one, cost, dtype, made(n_cond, length), made(n_path, length), points)
        _speed_evaluation(setup, name, one, cost, dtype, made(n_eval, length))
        del model, one
        setup.clear()


@contextmanager
def states_at_once() -> Iterator[list[int]]:
    """The largest number of tokens that were differentiated at once, by conductance."""
    most = [0]
    original = conductance.activations_and_gradients

    def seen(network: Any, hidden: torch.Tensor, *rest: Any) -> None:
        most[0] = max(most[0], hidden.shape[0] * hidden.shape[1])
        original(network, hidden, *rest)

    conductance.activations_and_gradients = seen
    try:
        yield most
    finally:
        conductance.activations_and_gradients = original


def _speed_scores(
    setup: Setup,
    name: str,
    classifier: Classifier,
    cost: Cost,
    dtype: str,
    proteins: list[Protein],
    few: list[Protein],
    points: int,
) -> None:
    """Conductance and integrated gradients, as ``token_budget = 0`` does them."""
    each = paths.bytes_per_token(classifier)
    short = made(1, 30)
    runs: list[tuple[str, Callable[[list[Protein]], Any], list[Protein], float]] = [
        (
            "conductance, 8 intervals",
            lambda some: conductance.conductance(classifier, some, points=8, token_budget=0),
            proteins,
            2 * 9 * cost.forward + 2 * cost.forward,
        ),
        (
            "conductance, intervals found",
            lambda some: conductance.conductance(classifier, some, tolerance=0.9, token_budget=0),
            few,
            0.0,
        ),
        (
            f"integrated gradients, {points} points",
            lambda some: gradients.integrated_gradients(classifier, some, points=points, token_budget=0),
            few,
            points * cost.path,
        ),
    ]
    for what, run, some, operations in runs:

        def work(run: Callable[[list[Protein]], Any] = run, some: list[Protein] = some) -> None:
            run(some)

        run(short)
        total = operations * len(some)
        with states_at_once() as most, counting() as counts:
            row = _measured(setup, name, what, dtype, work, len(some), cost.tokens, total)
        if row is None:
            continue
        budget = workers.fitting_budget(0, setup.device, each)
        row["token budget"] = budget
        row["formula GB"] = each * (most[0] or min(budget, points * len(some) * cost.tokens)) / 1e9
        row["splits"] = counts[0]
        setup.results.speed(**row)


def _speed_evaluation(
    setup: Setup, name: str, classifier: Classifier, cost: Cost, dtype: str, proteins: list[Protein]
) -> None:
    """One selection of the folded evaluation, beside a plain forward pass."""
    rng = np.random.default_rng(0)
    share = rng.random(len(classifier.index))
    constants = rng.normal(0, 0.1, (3, len(share)))
    _plain(classifier, proteins[:2])
    row = _measured(
        setup, name, "forward pass of transformers", dtype, lambda: _plain(classifier, proteins), len(proteins),
        cost.tokens, len(proteins) * ((cost.layers - 1) * cost.layer + cost.layer),
    )  # fmt: skip
    if row is not None:
        setup.results.speed(**row)
    for what, keep, operations in (
        ("evaluation, all neurons", share < 2, cost.forward),
        ("evaluation, 10 % kept", share < 0.1, 0.0),
        ("evaluation, 10 % ablated", share >= 0.1, 0.0),
    ):
        slices = {site: classifier.index.slice(site) for site in classifier.index.sites}
        held = network_of(classifier).held_logits(classifier.batches(proteins, 16384), slices)

        def work(keep: np.ndarray = keep, held: Any = held) -> None:
            with torch.inference_mode():
                for _rows, logits in held(keep, constants):
                    logits.float().cpu()

        work()
        row = _measured(setup, name, what, dtype, work, len(proteins), cost.tokens, operations * len(proteins))
        if row is not None:
            setup.results.speed(**row)


def _plain(classifier: Classifier, proteins: list[Protein]) -> None:
    """Log-probabilities of the untouched model."""
    classifier.log_probabilities(proteins, token_budget=16384)


def _speed_training(setup: Setup, name: str, classifier: Classifier, cost: Cost) -> None:
    """Steps of fine-tuning: float32 weights, bfloat16 arithmetic, AdamW, 4,096 tokens a batch, as the trainer's."""
    model: Any = copy.deepcopy(classifier.model)
    model.requires_grad_(True).train()
    steps, count = (2, 2) if setup.small else (4, max(1, 4096 // cost.tokens))
    batch = classifier.batch(made(count, cost.tokens - 2))
    labels = torch.tensor(classifier.targets(made(count, cost.tokens - 2)), device=setup.device)
    cuda = setup.device.type == "cuda"
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=cuda)

    def step(times: int) -> None:
        for _ in range(times):
            with torch.autocast(setup.device.type, torch.bfloat16, enabled=cuda):
                logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
            torch.nn.functional.cross_entropy(logits.float(), labels).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    step(1)
    total = 3 * steps * count * cost.layers * cost.layer
    dtype = "bfloat16" if cuda else "float32"
    row = _measured(setup, name, "fine-tuning step", dtype, lambda: step(steps), steps * count, cost.tokens, total)
    if row is not None:
        row["formula GB"] = 16 * sum(p.numel() for p in model.parameters()) / 1e9
        setup.results.speed(**row)


def _measured(
    setup: Setup,
    name: str,
    what: str,
    dtype: str,
    work: Callable[[], None],
    proteins: int,
    tokens: int,
    operations: float,
) -> dict[str, Any] | None:
    """One timed call, if there is likely time for it; the caller has warmed up. Memory is beyond what was there."""
    peak = setup.peaks.get(dtype, 0.0)
    if setup.left < 3 + (operations / (0.1 * peak) if peak else 0):
        setup.results.speed(shape=name, what=what, dtype=dtype, seconds="left out: no time")
        return None
    setup.clear()
    base = setup.used()
    seconds = setup.timed(work)
    return {
        "shape": name,
        "what": what,
        "dtype": dtype,
        "seconds": seconds,
        "proteins/s": proteins / seconds,
        "tokens/s": proteins * tokens / seconds,
        "share of peak": operations / seconds / peak if peak and operations else "",
        "peak GB": setup.peak() / 1e9,
        "beyond weights GB": (setup.peak() - base) / 1e9,
    }


# --- everything -------------------------------------------------------------------------------------------------------


def _told(results: Results, section: str, error: BaseException) -> None:
    """A failure: its last lines on the screen, its text in the results."""
    lines = traceback.format_exception(error)
    print("".join(lines[-6:])[-3000:], file=sys.stderr)
    results.sections[section] = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    results.write()


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise :class:`OutOfTime` within the block after some seconds; the main thread alone can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise OutOfTime(f"after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


RUNS: dict[str, Callable[[Setup], None]] = {
    "precision": precision, "equal": equal, "memory": memory, "two": two, "speed": speed,
}  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Run the sections; the exit status."""
    started = time.monotonic()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for results.json and results.md")
    parser.add_argument("--budget", type=float, default=480, help="seconds for everything (default 480)")
    parser.add_argument("--sections", default=",".join(RUNS), help="some of " + ", ".join(RUNS))
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 or cpu")
    parser.add_argument("--small", action="store_true", help="tiny shapes and few proteins: does the script run?")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    names = options.sections.split(",")
    if unknown := [name for name in names if name not in RUNS]:
        parser.error(f"--sections: {', '.join(unknown)} unknown; choose from {', '.join(RUNS)}")
    if options.device != "cpu" and not torch.cuda.is_available():
        parser.error(f"--device {options.device}: PyTorch sees no GPU; add --device cpu --small to try the script")
    if options.child is not None:
        child(options.device, options.small, options.out, options.child)
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    device = torch.device(options.device)
    results = Results(options.out)
    setup = Setup(device, options.small, results, 0)
    results.machine |= _machine(device)
    ends = started + options.budget
    for name in names:
        begin = time.monotonic()
        setup.ends = min(ends, begin + SECTIONS[name] * options.budget)
        try:
            with at_most(max(0.1, setup.left)):
                RUNS[name](setup)
            results.sections[name] = f"done in {time.monotonic() - begin:.1f} s"
        except Exception as error:
            _told(results, name, error)
        print(f"{name}: {results.sections[name]}")
        setup.clear()
        results.write()
    print(f"{'failed' if results.failed else 'all well'}; {options.out / 'results.md'}")
    return int(results.failed)


def _machine(device: torch.device) -> dict[str, Any]:
    """What the numbers depend on."""
    found: dict[str, Any] = {
        "plmscope": plmscope.__version__, "torch": torch.__version__, "transformers": transformers.__version__,
        "threads": torch.get_num_threads(),
    }  # fmt: skip
    if device.type == "cuda":
        found["card"] = torch.cuda.get_device_name(device)
        found["memory GB"] = round(torch.cuda.get_device_properties(device).total_memory / 1e9, 1)
    for name in ("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "PYTORCH_CUDA_ALLOC_CONF"):
        if name in os.environ:
            found[name] = os.environ[name]
    return found


if __name__ == "__main__":
    sys.exit(main())
