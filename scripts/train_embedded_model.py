"""Train the embedded model: ESM-2 architecture, masked residues and EC numbers learned together.

    python scripts/prepare_embedded_training.py ... --out training.npz       # what is learned, see there
    python scripts/train_embedded_model.py training.npz --out build/embedded-model --residues 1e9

Needs PyTorch, transformers and numpy, nothing else. The loss of one batch of crops is

    CE(masked residues)  +  ec_weight * sum over levels 1, 3, 4 of  share_level * CE(EC number | first token, and mean)

The EC heads are dropped at the end: what is shipped is ``EsmForMaskedLM``, started from transformers' own initialisation
of that class. Matrices of the encoder are optimised by Muon, the rest by AdamW; the rate rises over ``--warmup`` steps
and falls linearly to nothing. Schedule and batches depend on the step and the residues seen, never on the clock: a
training that is stopped continues bit by bit from its last checkpoint (same machine and versions) with the same command.
With ``--minutes`` the number of residues is fixed once, from the speed of the first steps, and kept in the checkpoint.

All data lie on the device as token numbers; crops, masks and labels are drawn there. Batches have one of four fixed
shapes (rows of 256, 384, 512 or 1,024 tokens, the same number of tokens in all), so that a GPU compiles four kernels of
one layer and then never waits for Python.

A CPU trains the same way, for days if need be: ``--device cpu --threads 1``, lowest priority by itself.
"""

# ruff: noqa: E501
from __future__ import annotations

import argparse
import json
import lzma
import math
import os
import shutil
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import EsmConfig, EsmForMaskedLM, EsmTokenizer

VOCAB = "<cls> <pad> <eos> <unk> L A G V S E R T I D P K Q N F Y M H W C X B U Z O . - <null_1> <mask>".split()
CLS, PAD, EOS, MASK = 0, 1, 2, 32
LETTERS = (4, 24)  # tokens of the 20 amino acids
LEVEL_SHARES = (0.2, 0.3, 0.5)  # of the EC loss, levels 1, 3 and 4
IGNORE = -100
WIDTHS = (256, 384, 512, 1024)
SPEED_STEPS = (100, 300)  # speed is measured between these, for --minutes


class Data:
    """The training file on the device; batches are a function of the step alone."""

    def __init__(self, path: Path, device: str, tokens: int, mask: float, seed: int) -> None:
        file = np.load(path)  # allow_pickle stays False
        text = json.loads(lzma.decompress(file["text"].tobytes()))
        self.record, self.names, self.validation_ec = text["record"], text["names"], text["validation_ec"]
        self.device, self.mask, self.tokens = device, mask, tokens
        self.flat, self.starts, self.lengths = self._sequences(file, "train")
        self.validation = self._sequences(file, "validation")
        self.identity = file["validation_identity"]
        self.ecs = torch.from_numpy(file["train_ecs"].astype(np.int64)).to(device)
        self.n_ecs = (self.ecs[:, :, 0] != IGNORE).sum(1).clamp(min=1)
        weights = torch.from_numpy(file["train_weights"]).double()
        lengths = self.lengths.cpu()
        edges = [0, *(width - 2 for width in WIDTHS[:-1]), 10**9]
        self.members, self.cumulative, shares = [], [], []
        for width, low, high in zip(WIDTHS, edges, edges[1:], strict=False):
            members = torch.nonzero((lengths > low) & (lengths <= high))[:, 0]
            chance = weights[members]
            # Steps in proportion to the tokens of the bucket, so that every protein is drawn by its weight.
            shares.append(float(chance.sum()) * width)
            self.members.append(members.to(device))
            self.cumulative.append((chance.cumsum(0) / chance.sum().clamp(min=1e-12)).to(device))
        self.shares = np.array(shares) / sum(shares)
        self.seed = seed
        self.generator = torch.Generator(device)
        counts = torch.bincount(self.flat.long(), minlength=33).double()
        self.frequencies = (counts / counts.sum()).cpu().numpy()

    def _sequences(self, file: dict, name: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        flat = np.frombuffer(lzma.decompress(file[f"{name}_tokens"].tobytes()), np.uint8).copy()
        lengths = torch.from_numpy(file[f"{name}_lengths"].astype(np.int64))
        starts = lengths.cumsum(0) - lengths
        return torch.from_numpy(flat).to(self.device), starts.to(self.device), lengths.to(self.device)

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """``ids (B, T)``, residues to guess ``(B, T)`` and EC numbers ``(B, 3)``, :data:`IGNORE` elsewhere."""
        bucket = int(np.random.default_rng((self.seed, step)).choice(len(WIDTHS), p=self.shares))
        width, size = WIDTHS[bucket], self.tokens // WIDTHS[bucket]
        g = self.generator.manual_seed(self.seed * 1_000_003 + step)

        def uniform(*shape: int) -> torch.Tensor:
            return torch.rand(shape, generator=g, device=self.device)

        drawn = torch.searchsorted(self.cumulative[bucket], uniform(size).double()).clamp(
            max=len(self.members[bucket]) - 1
        )
        chosen = self.members[bucket][drawn]
        lengths = self.lengths[chosen]
        n = lengths.clamp(max=width - 2)
        begin = (uniform(size) * (lengths - n + 1)).long().clamp(max=(lengths - n)) + self.starts[chosen]
        at = torch.arange(width, device=self.device)[None]
        inside = (at >= 1) & (at <= n[:, None])
        residues = self.flat[(begin[:, None] + at - 1).clamp(0, len(self.flat) - 1)].long()
        ids = torch.where(inside, residues, PAD)
        ids = torch.where(at == 0, CLS, torch.where(at == n[:, None] + 1, EOS, ids))
        guess = inside & (uniform(size, width) < self.mask)
        targets = torch.where(guess, residues, IGNORE)
        how = uniform(size, width)
        other = torch.randint(*LETTERS, (size, width), generator=g, device=self.device)
        ids = torch.where(guess & (how < 0.8), MASK, torch.where(guess & (how > 0.9), other, ids))
        which = (uniform(size) * self.n_ecs[chosen]).long()
        return ids, targets, self.ecs[chosen, which]


def rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions, halves as in transformers' ESM."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


def block(x, attended, cos, sin, qkvo, qkvo_bias, up, up_bias, down, down_bias, norms, heads: int):
    """One layer of ESM-2 on ``x (B, T, d)``: the same function as ``EsmLayer`` without dropout."""
    b, t, d = x.shape
    kind = x.dtype
    h = F.layer_norm(x, (d,), norms[0].to(kind), norms[1].to(kind), 1e-5)
    q, k, v = F.linear(h, qkvo[:3].reshape(3 * d, d).to(kind), qkvo_bias[:3].reshape(3 * d).to(kind)).chunk(3, -1)
    q, k, v = (y.view(b, t, heads, d // heads).transpose(1, 2) for y in (q, k, v))
    q, k = rotated(q, cos, sin), rotated(k, cos, sin)
    context = F.scaled_dot_product_attention(q, k, v, attn_mask=attended)
    context = context.transpose(1, 2).reshape(b, t, d)
    x = x + F.linear(context, qkvo[3].to(kind), qkvo_bias[3].to(kind))
    h = F.layer_norm(x, (d,), norms[2].to(kind), norms[3].to(kind), 1e-5)
    h = F.gelu(F.linear(h, up.to(kind), up_bias.to(kind)))
    return x + F.linear(h, down.to(kind), down_bias.to(kind))


def losses(x, targets, ecs, end, dense, dense_bias, head_norm, words, letter_bias, ec_first, ec_mean, real, sizes):
    """Masked-residue loss and EC loss of the last layer's ``x (B, T, d)``."""
    d, kind = x.shape[-1], x.dtype
    x = F.layer_norm(x, (d,), end[0].to(kind), end[1].to(kind), 1e-5)
    h = F.gelu(F.linear(x, dense.to(kind), dense_bias.to(kind)))
    h = F.layer_norm(h, (d,), head_norm[0].to(kind), head_norm[1].to(kind), 1e-5)
    logits = F.linear(h, words.to(kind), letter_bias.to(kind)).float()
    residue = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE)
    share = (real / real.sum(1, keepdim=True)).unsqueeze(-1)
    answers = ((x[:, 0].float(), ec_first), ((x.float() * share).sum(1), ec_mean))
    ec = x.new_zeros((), dtype=torch.float32)
    for features, head in answers:
        for level, piece in enumerate(F.linear(features, head).split(sizes, -1)):
            known = (ecs[:, level] != IGNORE).sum().clamp(min=1)
            lost = F.cross_entropy(piece, ecs[:, level], ignore_index=IGNORE, reduction="sum") / known
            ec = ec + LEVEL_SHARES[level] * lost
    return residue, ec


class Model(torch.nn.Module):
    """ESM-2 with its layers' matrices stacked, so that one optimiser step handles them together.

    ``qkvo (layers, 4, d, d)``, ``up (layers, 4 d, d)``, ``down (layers, d, 4 d)``; :meth:`to_transformers` gives them back.
    """

    def __init__(self, lm: EsmForMaskedLM, sizes: list[int]) -> None:
        super().__init__()
        self.config, self.sizes = lm.config, sizes
        layers = lm.esm.encoder.layer
        parameter = torch.nn.Parameter

        def stack(*modules) -> torch.Tensor:
            return torch.stack([m.detach().clone() for m in modules])

        parts = [(a.attention.self.query, a.attention.self.key, a.attention.self.value, a.attention.output.dense) for a in layers]  # fmt: skip
        self.qkvo = parameter(torch.stack([stack(*(m.weight for m in p)) for p in parts]))
        self.qkvo_bias = parameter(torch.stack([stack(*(m.bias for m in p)) for p in parts]))
        self.up = parameter(stack(*(a.intermediate.dense.weight for a in layers)))
        self.up_bias = parameter(stack(*(a.intermediate.dense.bias for a in layers)))
        self.down = parameter(stack(*(a.output.dense.weight for a in layers)))
        self.down_bias = parameter(stack(*(a.output.dense.bias for a in layers)))
        self.norms = parameter(torch.stack([stack(a.attention.LayerNorm.weight, a.attention.LayerNorm.bias, a.LayerNorm.weight, a.LayerNorm.bias) for a in layers]))  # fmt: skip
        last = lm.esm.encoder.emb_layer_norm_after
        self.end = parameter(stack(last.weight, last.bias))
        self.words = parameter(lm.esm.embeddings.word_embeddings.weight.detach().clone())
        self.dense = parameter(lm.lm_head.dense.weight.detach().clone())
        self.dense_bias = parameter(lm.lm_head.dense.bias.detach().clone())
        self.head_norm = parameter(stack(lm.lm_head.layer_norm.weight, lm.lm_head.layer_norm.bias))
        self.letter_bias = parameter(lm.lm_head.bias.detach().clone())
        d = lm.config.hidden_size
        self.ec_first = parameter(torch.randn(sum(sizes), d) * 0.02)
        self.ec_mean = parameter(torch.randn(sum(sizes), d) * 0.02)
        half = d // lm.config.num_attention_heads // 2
        angle = torch.arange(max(WIDTHS))[:, None] * 1e4 ** (-torch.arange(half) / half)
        self.register_buffer("cos", torch.cat((angle, angle), -1).cos(), persistent=False)
        self.register_buffer("sin", torch.cat((angle, angle), -1).sin(), persistent=False)
        self.block, self.losses = block, losses

    def compile(self) -> None:  # type: ignore[override]
        """Compile one layer and the losses; every layer shares the kernels."""
        self.block = torch.compile(block, dynamic=False, fullgraph=True)
        self.losses = torch.compile(losses, dynamic=False, fullgraph=True)

    def encode(self, ids: torch.Tensor, kind: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Last layer's states before the final norm ``(B, T, d)`` and what is no padding ``(B, T)``."""
        real, masked = ids != PAD, ids == MASK
        x = self.words[ids] * (~masked).unsqueeze(-1)
        x = x * (0.88 / (1 - masked.sum(1) / real.sum(1)))[:, None, None] * real.unsqueeze(-1)
        x = x.to(kind)
        t = ids.shape[1]
        attended = real[:, None, None, :].expand(-1, 1, t, -1)
        cos, sin = self.cos[:t].to(kind), self.sin[:t].to(kind)
        pieces = (self.qkvo, self.qkvo_bias, self.up, self.up_bias, self.down, self.down_bias, self.norms)
        for layer in zip(*(p.unbind(0) for p in pieces), strict=True):
            x = self.block(x, attended, cos, sin, *layer, self.config.num_attention_heads)
        return x, real

    def forward(self, ids, targets, ecs, kind):
        """Masked-residue loss and EC loss."""
        x, real = self.encode(ids, kind)
        return self.losses(
            x, targets, ecs, self.end, self.dense, self.dense_bias, self.head_norm, self.words, self.letter_bias,
            self.ec_first, self.ec_mean, real.float(), self.sizes,
        )  # fmt: skip

    @torch.no_grad()
    def to_transformers(self) -> EsmForMaskedLM:
        """The same network as transformers' class, on the CPU in float32."""
        lm = EsmForMaskedLM(self.config)
        for i, layer in enumerate(lm.esm.encoder.layer):
            inner = layer.attention.self
            for j, module in enumerate((inner.query, inner.key, inner.value, layer.attention.output.dense)):
                module.weight.copy_(self.qkvo[i, j])
                module.bias.copy_(self.qkvo_bias[i, j])
            for module, weight, bias in (
                (layer.intermediate.dense, self.up[i], self.up_bias[i]),
                (layer.output.dense, self.down[i], self.down_bias[i]),
                (layer.attention.LayerNorm, self.norms[i, 0], self.norms[i, 1]),
                (layer.LayerNorm, self.norms[i, 2], self.norms[i, 3]),
            ):
                module.weight.copy_(weight)
                module.bias.copy_(bias)
        for module, weight, bias in (
            (lm.esm.encoder.emb_layer_norm_after, *self.end),
            (lm.lm_head.dense, self.dense, self.dense_bias),
            (lm.lm_head.layer_norm, *self.head_norm),
        ):
            module.weight.copy_(weight)
            module.bias.copy_(bias)
        lm.esm.embeddings.word_embeddings.weight.copy_(self.words)
        lm.lm_head.bias.copy_(self.letter_bias)
        lm.tie_weights()
        return lm.eval()


def orthogonal(g: torch.Tensor, kind: torch.dtype) -> torch.Tensor:
    """The nearest half-orthogonal matrices to ``g (n, r, c)``, by five quintic Newton-Schulz steps (Jordan et al. 2024)."""
    x = g.to(kind)
    tall = g.shape[-2] > g.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x.mT if tall else x).to(g.dtype)


class Muon(torch.optim.Optimizer):
    """Muon for stacks of matrices ``(..., r, c)``, each orthogonalised by itself, steps as large as AdamW's.

    ``torch.optim.Muon`` does one matrix at a time, which leaves a GPU waiting for Python.
    """

    def __init__(self, parameters: list, rate: float, decay: float, kind: torch.dtype, compiled: bool) -> None:
        super().__init__(parameters, {"lr": rate, "decay": decay, "momentum": 0.95})
        self.kind = kind
        self.orthogonal = torch.compile(orthogonal, dynamic=False) if compiled else orthogonal

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """One step with Nesterov momentum."""
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state["moment"] = torch.zeros_like(p)
                moment = state["moment"].lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(moment, group["momentum"])
                r, c = p.shape[-2:]
                update = self.orthogonal(update.reshape(-1, r, c), self.kind).reshape(p.shape)
                p.mul_(1 - group["lr"] * group["decay"])
                p.add_(update, alpha=-group["lr"] * 0.2 * math.sqrt(max(r, c)))


def context_models(data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Counts of neighbouring residues: ``P(x | left)`` and the naive ``P(x | left, right)``, log ``(33, 33[, 33])``."""
    flat = data.flat.long()
    firsts = torch.zeros(len(flat), dtype=torch.bool, device=flat.device)
    firsts[data.starts] = True
    pairs = (flat[:-1] * 33 + flat[1:])[~firsts[1:]]
    counts = (
        torch.bincount(pairs, minlength=33 * 33).double().reshape(33, 33).cpu().numpy() + 20 * data.frequencies + 1e-9
    )
    after = np.log(counts / counts.sum(1, keepdims=True))  # after[l, x] = log P(x | left l)
    before = np.log(counts.T / counts.T.sum(1, keepdims=True))  # before[r, x] = log P(x | right r)
    prior = np.log(data.frequencies + 1e-12)
    both = after[:, None, :] + before[None, :, :] - prior
    return after, both - np.logaddexp.reduce(both, -1, keepdims=True)


@torch.no_grad()
def measure(model: Model, data: Data, limit: int | None, kind: torch.dtype) -> dict:
    """Perplexity and accuracy of masked residues and EC numbers on validation proteins, by nearest training identity."""
    flat, starts, lengths = (v.cpu().numpy() for v in data.validation)
    after, both = context_models(data)
    band = np.array(
        ["<30" if i < 0.3 else "30-50" if i < 0.5 else "50-70" if i < 0.7 else ">=70" for i in data.identity]
    )
    order = np.argsort(lengths[:limit], kind="stable")
    rng = np.random.default_rng(1)
    residue_rows, protein_rows = [], []
    device = model.words.device
    eager, model.block = model.block, block
    for begin in range(0, len(order), 16):
        some = order[begin : begin + 16]
        width = int(min(lengths[some].max(), 1022)) + 2
        ids = np.full((len(some), width), PAD, np.int64)
        where: list[np.ndarray] = []
        for row, i in enumerate(some):
            piece = flat[starts[i] : starts[i] + min(lengths[i], 1022)]
            ids[row, : len(piece) + 2] = np.r_[CLS, piece, EOS]
            where.append(np.flatnonzero(rng.random(len(piece)) < 0.15) + 1)
        whole = torch.from_numpy(ids).to(device)
        x, real = model.encode(whole, kind)
        x = F.layer_norm(x.float(), (x.shape[-1],), model.end[0], model.end[1], 1e-5)
        level = torch.stack([F.linear(x[:, 0], model.ec_first), F.linear((x * (real / real.sum(1, keepdim=True)).unsqueeze(-1)).sum(1), model.ec_mean)])  # fmt: skip
        pieces = [p.argmax(-1).cpu().numpy() for p in level.split(model.sizes, -1)]
        for row, i in enumerate(some):
            true = data.validation_ec[i].split(";")
            right = []
            for names, found, depth in zip(data.names.values(), pieces, (1, 3, 4), strict=True):
                cut = {".".join(ec.split(".")[:depth]) for ec in true}
                right += [names[found[0, row]] in cut, names[found[1, row]] in cut]
            protein_rows.append((band[i], "" if len({ec[0] for ec in true}) > 1 else true[0][0], *right))
        hidden = whole.clone()
        for row, chosen in enumerate(where):
            hidden[row, chosen] = MASK
        x, _ = model.encode(hidden, kind)
        x = F.layer_norm(x.float(), (x.shape[-1],), model.end[0], model.end[1], 1e-5)
        h = F.gelu(F.linear(x, model.dense, model.dense_bias))
        h = F.layer_norm(h, (h.shape[-1],), model.head_norm[0], model.head_norm[1], 1e-5)
        log_p = F.linear(h, model.words, model.letter_bias).log_softmax(-1).cpu().numpy()
        for row, chosen in enumerate(where):
            truth, left, right_ = ids[row, chosen], ids[row, chosen - 1], ids[row, chosen + 1]
            inner = (left != CLS) & (right_ != EOS)
            lp = log_p[row, chosen]
            prior = np.log(data.frequencies[truth] + 1e-12)
            one = np.where(left != CLS, after[left, truth], prior)
            two = np.where(inner, both[left, right_, truth], one)
            hit = lp.argmax(-1) == truth
            residue_rows += list(zip([band[some[row]]] * len(truth), truth, lp[np.arange(len(truth)), truth], prior, one, two, hit, strict=True))  # fmt: skip
    model.block = eager
    bands = np.array([r[0] for r in residue_rows])
    numbers = np.array([r[1:] for r in residue_rows], float)
    protein_bands = np.array([r[0] for r in protein_rows])
    rights = np.array([r[2:] for r in protein_rows], float)
    classes = np.array([r[1] for r in protein_rows])
    out: dict = {}
    for name in ("all", "<30", "30-50", "50-70", ">=70"):
        mine = bands == name if name != "all" else np.ones(len(bands), bool)
        theirs = protein_bands == name if name != "all" else np.ones(len(protein_bands), bool)
        if not mine.any():
            continue
        top = np.maximum(rights[:, 0], 0)
        single = theirs & (classes != "")
        recalls = [top[single & (classes == c)].mean() for c in sorted(set(classes[single]))]
        out[name] = {
            "n": int(theirs.sum()), "perplexity": math.exp(-numbers[mine, 1].mean()),
            "frequency_perplexity": math.exp(-numbers[mine, 2].mean()),
            "bigram_perplexity": math.exp(-numbers[mine, 3].mean()),
            "neighbours_perplexity": math.exp(-numbers[mine, 4].mean()),
            "masked_accuracy": float(numbers[mine, 5].mean()), "accuracy": float(top[theirs].mean()),
            "balanced_accuracy": float(np.mean(recalls)) if recalls else None,
            "accuracy_mean": float(rights[theirs, 1].mean()), "ec4_accuracy": float(rights[theirs, 4].mean()),
        }  # fmt: skip
    out["masked_accuracy_by_residue"] = {
        VOCAB[t]: float(numbers[numbers[:, 0] == t, 5].mean()) for t in range(*LETTERS) if (numbers[:, 0] == t).any()
    }
    return out


def operations(config: EsmConfig, width: int) -> float:
    """Floating-point operations of a training step per token: matrix products forward and backward."""
    d, layers = config.hidden_size, config.num_hidden_layers
    return 3 * layers * (2 * 12 * d * d + 4 * width * d)


def export(model: Model, data: Data, folder: Path, state: dict, args: argparse.Namespace) -> None:
    """Half-precision safetensors, tokenizer, log and final figures; refuses if transformers computes another function."""
    final = measure(model, data, None, torch.float32)
    lm = model.to_transformers()
    ids, _, _ = data.batch(0)
    ids = ids[:2].cpu()
    copy = Model(lm, model.sizes)
    x, real = copy.encode(ids, torch.float32)
    mine = F.layer_norm(x, (x.shape[-1],), copy.end[0], copy.end[1], 1e-5)
    theirs = lm.esm(ids, attention_mask=real.long()).last_hidden_state
    gap = float((mine - theirs)[real].abs().max().detach())
    if gap > 1e-3:
        raise SystemExit(f"transformers' EsmForMaskedLM differs from the trained network by {gap}")
    shutil.rmtree(folder, ignore_errors=True)
    lm.half().save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(VOCAB) + "\n")
    EsmTokenizer(vocab_file=str(folder / "vocab.txt")).save_pretrained(folder)
    hardware = torch.cuda.get_device_name() if args.device == "cuda" else f"{args.threads} CPU threads"
    record = {
        "record": data.record, "final": final, "hardware": hardware, "minutes": state["seconds"] / 60,
        "residues": state["residues"], "tokens": state["tokens"], "steps": state["step"],
        "parameters": sum(p.numel() for p in lm.parameters()), "difference_to_transformers": gap,
        "settings": {k: v for k, v in vars(args).items() if k not in ("data", "out", "bring_back")}, "log": state["log"],
        "operations_per_second": state["operations"] / max(1e-9, state["seconds"]),
    }  # fmt: skip
    (folder / "training.json").write_text(json.dumps(record, indent=1))
    print(json.dumps(final, indent=1))
    print(f"wrote {folder} ({(folder / 'model.safetensors').stat().st_size / 1e6:.1f} MB)")


def checkpoint(path: Path, model: Model, optimisers: list, state: dict) -> None:
    """Everything needed to continue, written beside and renamed."""
    beside = path.with_suffix(".tmp")
    torch.save(
        {"model": model.state_dict(), "optimisers": [o.state_dict() for o in optimisers], "state": state}, beside
    )
    beside.rename(path)


def bring_back(folder: Path, model: Model, state: dict) -> None:
    """The weights alone in half precision: small enough to be fetched from a machine that is lent."""
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / "weights.tmp"
    save_file({k: v.detach().half().cpu().contiguous() for k, v in model.state_dict().items() if not k.startswith("ec_")}, beside)  # fmt: skip
    beside.rename(folder / "weights.safetensors")
    (folder / "state.json").write_text(json.dumps(state))


def train(args: argparse.Namespace) -> None:
    """Train to the asked number of residues, measure, export."""
    began = time.perf_counter()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    if args.device == "cpu":
        os.nice(19)
    torch.set_float32_matmul_precision("high")
    kind = torch.bfloat16 if args.mixed else torch.float32
    data = Data(args.data, args.device, args.tokens, args.mask, args.seed)
    config = EsmConfig(
        vocab_size=33, mask_token_id=MASK, pad_token_id=PAD, hidden_size=args.width, num_hidden_layers=args.layers,
        num_attention_heads=args.heads, intermediate_size=4 * args.width, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, max_position_embeddings=1026, layer_norm_eps=1e-5,
        position_embedding_type="rotary", emb_layer_norm_before=False, token_dropout=True, eos_token_id=EOS,
    )  # fmt: skip
    model = Model(EsmForMaskedLM(config), [len(names) for names in data.names.values()]).to(args.device)
    matrices = [model.qkvo, model.up, model.down]
    others = [p for p in model.parameters() if all(p is not m for m in matrices)]
    optimisers: list[torch.optim.Optimizer] = [
        Muon(matrices, args.rate, args.decay, kind, args.compile),
        torch.optim.AdamW(others, lr=args.rate, betas=(0.9, 0.98), weight_decay=0.01, fused=args.device == "cuda"),
    ]
    state = {
        "step": 0,
        "residues": 0,
        "tokens": 0,
        "operations": 0.0,
        "seconds": 0.0,
        "total": args.residues,
        "log": [],
    }
    saved = args.out / "checkpoint.pt"
    if saved.exists():
        loaded = torch.load(saved, weights_only=True, map_location=args.device)
        model.load_state_dict(loaded["model"])
        for optimiser, moments in zip(optimisers, loaded["optimisers"], strict=True):
            optimiser.load_state_dict(moments)
        state = loaded["state"]
        print(f"continuing at step {state['step']}, {state['residues']:,} residues", flush=True)
    if args.compile:
        model.compile()
    print(json.dumps(data.record | {"shares of the shapes": data.shares.round(3).tolist()}), flush=True)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters with heads; ready in {time.perf_counter() - began:.0f} s", flush=True)  # fmt: skip
    seen = torch.zeros((), dtype=torch.float64, device=args.device)
    sums = torch.zeros(2, device=args.device)
    counted, clock, spoken = 0, time.perf_counter(), time.perf_counter()
    marks: dict[int, tuple[float, float]] = {}
    while state["residues"] < state["total"]:
        share = min(1.0, state["residues"] / state["total"])
        rate = args.rate * min(1.0, (state["step"] + 1) / args.warmup) * (1 - share)
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate
        ids, targets, ecs = data.batch(state["step"])
        residue, ec = model(ids, targets, ecs, kind)
        (residue + args.ec_weight * ec).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        seen += (ids > EOS).sum()
        sums += torch.stack((residue.detach(), ec.detach()))
        counted += 1
        state["step"] += 1
        state["tokens"] += ids.numel()
        state["operations"] += ids.numel() * operations(config, ids.shape[1])
        if state["step"] in SPEED_STEPS and args.minutes:
            marks[state["step"]] = (time.perf_counter(), state["residues"] + float(seen))
            if len(marks) == 2:
                (t0, r0), (t1, r1) = marks.values()
                left = args.minutes * 60 - (t1 - began)
                state["total"] = r1 + 0.94 * left * (r1 - r0) / (t1 - t0)
                print(
                    f"{(r1 - r0) / (t1 - t0):,.0f} residues a second: {state['total']:,.0f} residues in all", flush=True
                )
        due = state["step"] % args.checkpoint_every == 0
        if state["step"] % args.count_every == 0 or due:
            state["residues"] += int(seen)  # the loop's only wait for the device
            seen.zero_()
        if due or state["residues"] >= state["total"]:
            now = time.perf_counter()
            state["seconds"] += now - clock
            quick = measure(model, data, args.quick, torch.float32)
            row = {
                "step": state["step"],
                "residues": state["residues"],
                "seconds": round(state["seconds"]),
                "rate": rate,
            }
            row |= {"masked_residue_loss": float(sums[0]) / counted, "ec_loss": float(sums[1]) / counted}
            row |= {
                f"validation_{k}{suffix}": quick[b][k]
                for b, suffix in (("all", ""), ("<30", "_below30"), ("30-50", "_30to50"))
                if b in quick
                for k in ("perplexity", "balanced_accuracy", "ec4_accuracy")
            }
            state["log"].append(row)
            print(json.dumps({k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()}), flush=True)
            sums.zero_()
            counted = 0
            checkpoint(saved, model, optimisers, state)
            if args.bring_back:
                bring_back(args.bring_back, model, state)
            clock = time.perf_counter()
        if time.perf_counter() - spoken > args.speak_every and counted:
            print(f"step {state['step']}, {state['residues']:,} residues, loss {(sums / counted).tolist()}", flush=True)
            spoken = time.perf_counter()
    export(model, data, args.out / "model", state, args)


def main() -> None:
    """Read the arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="file of prepare_embedded_training.py")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--heads", type=int, default=20)
    parser.add_argument("--residues", type=float, default=1e9, help="residues to see in all")
    parser.add_argument("--minutes", type=float, help="fix the residues from the speed of the first steps")
    parser.add_argument("--tokens", type=int, default=65536, help="tokens a batch, a multiple of 3072")
    parser.add_argument("--mask", type=float, default=0.15, help="share of residues to guess")
    parser.add_argument("--rate", type=float, default=3e-3, help="peak rate")
    parser.add_argument("--warmup", type=int, default=300, help="steps until the rate is at its peak")
    parser.add_argument("--decay", type=float, default=0.05, help="weight decay of the encoder's matrices")
    parser.add_argument("--ec-weight", type=float, default=0.5)
    parser.add_argument("--quick", type=int, default=300, help="validation proteins measured at each checkpoint")
    parser.add_argument("--checkpoint-every", type=int, default=1000, help="steps")
    parser.add_argument("--count-every", type=int, default=20, help="steps between two counts of the residues seen")
    parser.add_argument("--speak-every", type=float, default=30, help="seconds")
    parser.add_argument("--bring-back", type=Path, help="folder for half-precision weights at every checkpoint")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--mixed", action=argparse.BooleanOptionalAction, default=True, help="bfloat16")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=0)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
