"""A network with a known answer: an ESM classifier in which a few neurons provably carry the label.

Class "1" iff the motif ``W.C`` occurs (a W, any residue, a C). Two layers, 64 wide, two heads of 32, written by hand:

* **Features** are (+a, -a) pairs of channels and every token has the same norm, so LayerNorm (gain 1, bias 0) only
  rescales. Pairs: CLS, W, C, filler, W-copied, motif, decision; all others are *junk*: random codes of the tokens.
* **Layer 0, head 0** looks two residues back, by biases alone: key k = B on the first half of the head, query =
  sqrt(head size) R(-2) k, so that the score against position n - m = d is B^2 sum_i cos((d + 2) theta_i). One value
  neuron reads W; the attention output writes W-copied.
* **Layer 0, one intermediate neuron** is an AND: GELU(4 C + 4 W-copied - 10). The output writes motif.
* **Layer 1, head 0**: a key neuron on the slowest rotary frequency reads motif, the query is constant there, a value
  neuron reads motif; the attention output writes decision. The classifier reads decision at the first token.
* **Everything else** is random and writes only to junk, which nothing above reads.

Some units are *idle*: whatever they are, the logits stay bit for bit the same (keys that meet a zero query, units
that meet zero weights). ``idle_constants`` gives them a large constant: a method that ranks by size must then fail.

A negative protein holds W and C as often as a positive one, apart or one position off, so that composition tells
nothing.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import EsmConfig, EsmForSequenceClassification, EsmTokenizer

from plmscope.data.proteins import Protein
from plmscope.models.sites import Neuron, Site

VOCABULARY = "<cls> <pad> <eos> <unk> L A G V S E R T I D P K Q N F Y M H W C X B U Z O . - <null_1> <mask>".split()
PAD, EOS, MASK = VOCABULARY.index("<pad>"), VOCABULARY.index("<eos>"), VOCABULARY.index("<mask>")
BACKGROUND = "LAGVSERTIDPKQNFYMH"
HIDDEN, HEADS, INTERMEDIATE, HEAD = 64, 2, 256, 32

# Pairs of channels; junk is all the rest.
CLS, W, C, FILLER, W_COPIED, MOTIF, DECISION, JUNK = range(8)
SIZE = 2.0  # of a feature after LayerNorm
TOKEN_DROPOUT = 0.88  # what ESM multiplies embeddings by when nothing is masked

#: The planted roles in the order of the computation; ``query_constant`` has one value for every token.
PLANTED_ROLES = (
    "read_w", "write_w_copied", "and", "write_motif",
    "key_motif", "query_constant", "value_motif", "write_decision",
)  # fmt: skip
#: Those whose values differ between the classes (W alone is as frequent in both).
LABEL_ROLES = ("and", "write_motif", "key_motif", "value_motif", "write_decision")
#: The head that looks two residues back: constant queries and keys that are needed, but know nothing of the protein.
POSITION_ROLES = ("position_query", "position_key")


def _pair(pair: int) -> torch.Tensor:
    """``(64,)``: +1, -1 on a pair of channels; its product with a state is twice the feature."""
    direction = torch.zeros(HIDDEN)
    direction[2 * pair], direction[2 * pair + 1] = 1, -1
    return direction


def _reads(pair: int, gain: float) -> torch.Tensor:
    """``(64,)``: weights of a neuron whose value is gain x feature."""
    return gain / 2 * _pair(pair)


def _embeddings(generator: torch.Generator) -> torch.Tensor:
    """``(33, 64)``: one feature and a junk code each, of the norm at which LayerNorm changes nothing."""
    feature = dict.fromkeys(range(len(VOCABULARY)), FILLER) | {
        VOCABULARY.index(token): pair for token, pair in (("<cls>", CLS), ("W", W), ("C", C))
    }
    code = torch.randn(len(VOCABULARY), HIDDEN // 2 - JUNK, generator=generator)  # (33, 25), one number a pair
    code *= math.sqrt((HIDDEN - 2 * SIZE**2) / 2) / code.norm(dim=1, keepdim=True)
    table = torch.zeros(len(VOCABULARY), HIDDEN)
    table[:, 2 * JUNK :: 2], table[:, 2 * JUNK + 1 :: 2] = code, -code
    for token, pair in feature.items():
        table[token] += SIZE * _pair(pair)
    table[PAD] = 0
    return table / TOKEN_DROPOUT


def _randomise(linear: torch.nn.Linear, scale: float, generator: torch.Generator, only_junk: bool = False) -> None:
    """Random rows; with ``only_junk`` the rows of all features are zero."""
    linear.weight.copy_(scale * torch.randn(linear.weight.shape, generator=generator))
    linear.bias.copy_(scale * torch.randn(linear.bias.shape, generator=generator))
    if only_junk:
        linear.weight[: 2 * JUNK], linear.bias[: 2 * JUNK] = 0, 0


def planted_model(
    idle_constants: float = 0.0, seed: int = 0
) -> tuple[EsmForSequenceClassification, dict[str, list[Neuron]]]:
    """The network in evaluation mode, and its neurons by role.

    Args:
        idle_constants: Added to the bias of every idle unit; the logits do not change by a bit.
        seed: Of the random rows and codes.

    Returns:
        The model and, per role, its neurons: :data:`PLANTED_ROLES`, :data:`POSITION_ROLES` and ``idle``.
    """
    generator = torch.Generator().manual_seed(seed)
    config = EsmConfig(
        vocab_size=len(VOCABULARY), mask_token_id=MASK, pad_token_id=PAD, eos_token_id=EOS,
        hidden_size=HIDDEN, num_hidden_layers=2, num_attention_heads=HEADS, intermediate_size=INTERMEDIATE,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, max_position_embeddings=1026,
        position_embedding_type="rotary", emb_layer_norm_before=False, token_dropout=True,
        id2label={0: "0", 1: "1"}, label2id={"0": 0, "1": 1},
    )  # fmt: skip
    model = EsmForSequenceClassification(config).eval()
    roles: dict[str, list[Neuron]] = {role: [] for role in (*PLANTED_ROLES, *POSITION_ROLES, "idle")}

    def mark(role: str, layer: int, module: str, *units: int) -> None:
        roles[role] += [Neuron(Site(layer, module), unit) for unit in units]

    with torch.no_grad():
        model.esm.embeddings.word_embeddings.weight.copy_(_embeddings(generator))
        for number, layer in enumerate(model.esm.encoder.layer):
            attention = layer.attention.self
            for linear in (attention.query, attention.key, attention.value):
                _randomise(linear, 0.05, generator)
            _randomise(layer.attention.output.dense, 0.1, generator, only_junk=True)
            _randomise(layer.intermediate.dense, 0.1, generator)
            _randomise(layer.output.dense, 0.05, generator, only_junk=True)

            # Idle units, all in head 1 or at the end of the feed-forward: nothing with a weight meets them. The keys
            # are both halves of eight rotary planes, since a rotation mixes the two.
            keys = [HEAD + half + plane for half in (0, HEAD // 2) for plane in range(8, 16)]
            values, units = range(HEAD + 24, HEAD + 32), range(INTERMEDIATE - 16, INTERMEDIATE)
            attention.query.weight[keys], attention.query.bias[keys] = 0, 0
            layer.attention.output.dense.weight[:, list(values)] = 0
            layer.output.dense.weight[:, list(units)] = 0
            for module, linear, idle in (
                ("key", attention.key, keys),
                ("value", attention.value, values),
                ("intermediate", layer.intermediate.dense, units),
            ):
                linear.bias[list(idle)] += idle_constants
                mark("idle", number, module, *idle)

        first, second = model.esm.encoder.layer

        # Layer 0, head 0: attend two residues back; head dimensions i and i + 16 turn together by the angle theta_i.
        attention, half = first.attention.self, torch.arange(HEAD // 2)
        angle = -2 * 10000.0 ** (-2 * half / HEAD)
        size = 4.0
        attention.query.weight[:HEAD], attention.key.weight[:HEAD], attention.key.bias[:HEAD] = 0, 0, 0
        attention.key.bias[half] = size
        attention.query.bias[half] = math.sqrt(HEAD) * size * angle.cos()
        attention.query.bias[half + HEAD // 2] = math.sqrt(HEAD) * size * angle.sin()
        mark("position_query", 0, "query", *range(HEAD))
        mark("position_key", 0, "key", *range(HEAD // 2))

        attention.value.weight[0], attention.value.bias[0] = _reads(W, 1.0), 0
        mark("read_w", 0, "value", 0)
        first.attention.output.dense.weight[2 * W_COPIED : 2 * W_COPIED + 2, 0] = torch.tensor([1.0, -1.0])
        mark("write_w_copied", 0, "attention_output", 2 * W_COPIED, 2 * W_COPIED + 1)

        first.intermediate.dense.weight[0], first.intermediate.dense.bias[0] = (
            _reads(C, 4.0) + _reads(W_COPIED, 4.0),
            -10,
        )
        mark("and", 0, "intermediate", 0)
        first.output.dense.weight[2 * MOTIF : 2 * MOTIF + 2, 0] = torch.tensor([0.8, -0.8])
        mark("write_motif", 0, "output", 2 * MOTIF, 2 * MOTIF + 1)

        # Layer 1, head 0: any token looks at the motif, if there is one; the slowest plane does not mind the distance.
        attention, slow = second.attention.self, HEAD // 2 - 1
        attention.key.weight[slow], attention.key.bias[slow] = _reads(MOTIF, 2.0), 0
        mark("key_motif", 1, "key", slow)
        attention.query.weight[slow], attention.query.bias[slow] = 0, 4 * math.sqrt(HEAD)
        mark("query_constant", 1, "query", slow)
        attention.value.weight[0], attention.value.bias[0] = _reads(MOTIF, 1.0), 0
        mark("value_motif", 1, "value", 0)
        second.attention.output.dense.weight[2 * DECISION : 2 * DECISION + 2, 0] = torch.tensor([1.0, -1.0])
        mark("write_decision", 1, "attention_output", 2 * DECISION, 2 * DECISION + 1)

        for unused in model.esm.contact_head.parameters():
            unused.zero_()

        # The classifier: decision -> tanh -> +-5; a decision of about 3 against one of 0.
        classifier = model.classifier
        _randomise(classifier.dense, 0.05, generator)
        classifier.dense.weight[0], classifier.dense.bias[0] = _reads(DECISION, 2.0), -2.5
        classifier.out_proj.weight.zero_()
        classifier.out_proj.weight[:, 0] = torch.tensor([-5.0, 5.0])
        classifier.out_proj.bias.zero_()
    return model, roles


def neurons_of(roles: dict[str, list[Neuron]], names: tuple[str, ...] = PLANTED_ROLES) -> list[Neuron]:
    """The neurons of some roles, in their order."""
    return [neuron for name in names for neuron in roles[name]]


def by_site(neurons: list[Neuron]) -> dict[Site, list[int]]:
    """The same neurons as unit numbers per site."""
    sites: dict[Site, list[int]] = {}
    for neuron in neurons:
        sites.setdefault(neuron.site, []).append(neuron.index)
    return sites


def planted_tokenizer() -> EsmTokenizer:
    """ESM-2's tokenizer; it reads its vocabulary once, so no file is left behind."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocab.txt"
        path.write_text("\n".join(VOCABULARY))
        return EsmTokenizer(str(path))


def has_motif(sequence: str) -> bool:
    """Whether ``W.C`` occurs, overlapping occurrences included."""
    return any(a == "W" and b == "C" for a, b in zip(sequence, sequence[2:], strict=False))


def planted_proteins(n: int = 64, seed: int = 0) -> list[Protein]:
    """Proteins of 30 to 60 residues, classes "0" and "1" in turn, with one or two W and as many C in both classes.

    Half of the negatives hold a near miss: C one before, one after, two before or three after a W.
    """
    rng = np.random.default_rng(seed)
    proteins = []
    while len(proteins) < n:
        label = len(proteins) % 2
        pairs = 1 + len(proteins) // 2 % 2  # so that both classes have the same counts
        letters = rng.choice(list(BACKGROUND), size=rng.integers(30, 61))
        offset = 2 if label else int(rng.choice([-2, -1, 1, 3])) if rng.random() < 0.5 else None
        places = rng.choice(np.arange(2, len(letters) - 3), size=2 * pairs, replace=False)
        if offset is not None:
            places[1] = places[0] + offset
        letters[places[0::2]], letters[places[1::2]] = "W", "C"
        sequence = "".join(letters)
        if len(set(places.tolist())) == 2 * pairs and has_motif(sequence) == bool(label):
            proteins.append(Protein(id=f"planted{len(proteins):04d}", sequence=sequence, label=str(label)))
    return proteins
