"""A protein sequence classifier: proteins into tokens, tokens into class probabilities.

The only place that maps residues to tokens. :func:`plmscope.models.loading.load_model` makes one from a checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from plmscope.data.checks import KNOWN_LETTERS
from plmscope.data.labels import BoolArray, LabelTask, classes_of, membership, pack
from plmscope.data.proteins import AMINO_ACIDS, Protein
from plmscope.errors import InputError, ModelError
from plmscope.models.architectures import Architecture
from plmscope.models.heads import (
    PROBLEM_TYPES,
)
from plmscope.models.sites import NeuronIndex
from plmscope.models.spread import device_of
from plmscope.models.workers import splitting

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Batch:
    """Tokens of several proteins, padded on the right.

    Attributes:
        input_ids: ``(B, T)``.
        attention_mask: ``(B, T)``, 1 at real tokens (specials included).
        lengths: ``(B,)`` number of real tokens; the last one is at ``lengths - 1``.
        rows: Position of each protein in the sequence that was batched.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    lengths: torch.Tensor
    rows: list[int]

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        return Batch(self.input_ids.to(device), self.attention_mask.to(device), self.lengths.to(device), self.rows)

    def halves(self) -> tuple[Batch, Batch]:
        """The first and the other proteins, each cut to its longest; for a batch that did not fit into memory."""
        middle = len(self.rows) // 2
        halves = []
        for part in (slice(0, middle), slice(middle, None)):
            longest = int(self.lengths[part].max())
            ids, mask = self.input_ids[part, :longest], self.attention_mask[part, :longest]
            halves.append(Batch(ids, mask, self.lengths[part], self.rows[part]))
        return halves[0], halves[1]

    @property
    def residue_mask(self) -> torch.Tensor:
        """``(B, T)``, true at residues: neither the first nor the last real token nor padding."""
        position = torch.arange(self.input_ids.shape[1], device=self.input_ids.device)
        return (position > 0) & (position < (self.lengths - 1).unsqueeze(1))


@dataclass(frozen=True)
class Batches:
    """Batches that are made when it is their turn, so that memory does not grow with the number of proteins.

    Attributes:
        classifier: Makes them.
        proteins: Of all of them.
        plan: Positions of each batch's proteins.
    """

    classifier: Classifier
    proteins: Sequence[Protein]
    plan: list[list[int]]

    def __len__(self) -> int:
        return len(self.plan)

    def __iter__(self) -> Iterator[Batch]:
        for rows in self.plan:
            yield self.classifier.batch([self.proteins[row] for row in rows], rows)


@dataclass
class Classifier:
    """A sequence classifier with its tokenizer and its neurons.

    Attributes:
        model: The Hugging Face model, in evaluation mode.
        tokenizer: Its tokenizer.
        architecture: The table row that says where its modules are.
        labels: Class names in the order of the logits.
        index: Its neurons.
        name: What was asked for; ``revision`` and ``sha256`` say what was found.
        pooling: What the head reads: ``first``, the first token, or ``mean``, the mean of the residues.
        files: sha256 of every file that was read, by name.
        new_head: Whether its classification head is fresh and untrained.
        ablation_means: ``(3, N)`` mean activations at the first token, the last token and residues, if they are known.
        pairs: Whether its tokens are SaProt's pairs of a residue and its structure, which is read as not known.
    """

    model: PreTrainedModel
    tokenizer: Any
    architecture: Architecture
    labels: tuple[str, ...]
    index: NeuronIndex
    name: str
    revision: str = ""
    sha256: str = ""
    pooling: str = "first"
    files: dict[str, str] = field(default_factory=dict, repr=False)
    new_head: bool = False
    ablation_means: np.ndarray | None = field(default=None, repr=False)
    pairs: bool = field(default=False, init=False, repr=False)
    _letters: dict[str, int] = field(default_factory=dict, repr=False)
    _ends: tuple[int, int] = field(default=(0, 0), repr=False)

    def __post_init__(self) -> None:
        vocabulary = self.tokenizer.get_vocab()
        self._letters = {letter: vocabulary[letter] for letter in KNOWN_LETTERS if letter in vocabulary}
        if not self._letters:  # SaProt's tokens are pairs of a residue and its surroundings; "#": not known
            self._letters = {letter: vocabulary[f"{letter}#"] for letter in AMINO_ACIDS if f"{letter}#" in vocabulary}
            self.pairs = bool(self._letters)
            if "##" in vocabulary:
                self._letters |= {"X": vocabulary["##"]}
        known = len({self._letters[letter] for letter in AMINO_ACIDS if letter in self._letters})
        if known < 20:
            raise ModelError(f"{self.name}: the tokenizer knows {known} of the 20 amino acids; not a protein model")
        if "X" in vocabulary:
            self._letters |= dict.fromkeys(self.architecture.as_x, vocabulary["X"])
        first, last, padding = self.tokenizer.cls_token_id, _last_token(self.tokenizer), self.tokenizer.pad_token_id
        if first is None or last is None or padding is None:
            raise ModelError(f"{self.name}: the tokenizer lacks a first, last or padding token; not a protein model")
        self._ends = first, last
        model: Any = self.model
        rows, highest = model.get_input_embeddings().num_embeddings, max(*self._letters.values(), first, last, padding)
        if highest >= rows:
            raise ModelError(
                f"{self.name}: the tokenizer has a token {highest}, the model embeddings for 0 to {rows - 1}; "
                "the vocabulary is that of another model, copy or download both again"
            )

    def __repr__(self) -> str:
        parameters = sum(p.numel() for p in self.model.parameters())
        layers = len({site.layer for site in self.index.sites})
        return (
            f"Classifier({self.name!r}, {self.architecture.model_type}, {layers} layers, {parameters / 1e6:.1f} M "
            f"parameters, {len(self.index):,} neurons, classes: {', '.join(self.labels)})"
        )

    def freeze(self) -> None:
        """Evaluation mode, no parameter gradients: attribution needs those of activations alone."""
        model: Any = self.model
        model.eval().requires_grad_(False)

    @property
    def task(self) -> LabelTask:
        """``multi`` if the configuration says ``multi_label_classification``: a sigmoid per class; else ``single``."""
        return "multi" if self.model.config.problem_type == PROBLEM_TYPES["multi"] else "single"

    @property
    def device(self) -> torch.device:
        """Where the weights are; of a model that is spread, where batches go."""
        return device_of(self.model)

    @property
    def max_residues(self) -> int:
        """The longest protein the model's positions allow; rotary models have no hard limit but were trained to one."""
        return int(self.model.config.max_position_embeddings) - self.architecture.spare_positions

    @property
    def has_learned_positions(self) -> bool:
        """Whether every position has weights of its own, so that :attr:`max_residues` is a hard limit."""
        return hasattr(self.model.get_submodule(self.architecture.embeddings), "position_embeddings")

    def read_as_x(self, proteins: Sequence[Protein]) -> str:
        """What is said about residues that this architecture's models read as X; empty if there are none."""
        letters = self.architecture.as_x
        counts = [sum(protein.sequence.count(letter) for letter in letters) for protein in proteins]
        if not any(counts):
            return ""
        touched = sum(count > 0 for count in counts)
        return f"{sum(counts):,} residues of {touched:,} proteins are read as X (one of {', '.join(letters)})"

    def encode(self, sequence: str) -> np.ndarray:
        """Token ids ``(R + 2,)``: first token, residues, last token.

        Raises:
            InputError: a letter has no token (it is named with its position), or the model has too few positions.
        """
        if self.has_learned_positions and len(sequence) > self.max_residues:
            raise InputError(
                f"{len(sequence):,} residues, but {self.name} has positions for {self.max_residues:,}; ",
                f'set [data] max_length = {self.max_residues} and too_long = "skip"',
                "leave it out, or give a part of it",
            )
        try:
            middle = [self._letters[letter] for letter in sequence]
        except KeyError as error:
            letter = error.args[0]
            place = sequence.index(letter) + 1
            raise InputError(
                f"residue {letter!r} at position {place} has no token in {self.name}; replace it by X"
            ) from None
        return np.array([self._ends[0], *middle, self._ends[1]], dtype=np.int64)

    def batches(self, proteins: Sequence[Protein], token_budget: int = 4096) -> Batches:
        """Proteins of near length together, longest first, at most ``token_budget`` padded tokens a batch.

        A protein longer than the budget comes alone. The order depends on the lengths alone, so that it repeats.
        """
        order = sorted(range(len(proteins)), key=lambda row: (-len(proteins[row]), row))
        plan: list[list[int]] = []
        start = 0
        while start < len(order):
            width = len(proteins[order[start]]) + 2
            plan.append(order[start : start + max(1, token_budget // width)])
            start += len(plan[-1])
        return Batches(self, proteins, plan)

    def batch(self, proteins: Sequence[Protein], rows: list[int] | None = None) -> Batch:
        """One batch of all the given proteins."""
        ids = [self.encode(protein.sequence) for protein in proteins]
        lengths = torch.tensor([len(one) for one in ids])
        padded = torch.full((len(ids), int(lengths.max())), self.tokenizer.pad_token_id, dtype=torch.long)
        for row, one in enumerate(ids):
            padded[row, : len(one)] = torch.from_numpy(one)
        mask = (torch.arange(padded.shape[1]) < lengths.unsqueeze(1)).long()
        return Batch(padded, mask, lengths, rows if rows is not None else list(range(len(ids)))).to(self.device)

    def membership(self, proteins: Sequence[Protein]) -> BoolArray:
        """Which classes each protein has, ``(P, C)``.

        Raises:
            InputError: a protein has no label, or one with a class that the model does not know.
        """
        for protein in proteins:
            own = set() if protein.label is None else set(classes_of(protein.label, self.task))
            if not own or own - set(self.labels):
                raise InputError(
                    f"protein {protein.id!r} has the label {protein.label!r}; the model knows {', '.join(self.labels)}"
                )
        return membership([str(protein.label) for protein in proteins], self.labels, self.task)

    def targets(self, proteins: Sequence[Protein]) -> np.ndarray:
        """What the answers are compared with: class numbers ``(P,)``, or in a multi-label task ``(P, C)`` booleans.

        Raises:
            InputError: a protein has no label, or one with a class that the model does not know.
        """
        members = self.membership(proteins)
        return members if self.task == "multi" else members.argmax(1)

    @property
    def answer_dtype(self) -> np.dtype[Any]:
        """How one answer is stored: a class number, or in a multi-label task the set of classes as ``(W,)`` bytes."""
        return np.dtype((np.uint8, (-(-len(self.labels) // 8),)) if self.task == "multi" else np.int16)

    def answers(self, logits: torch.Tensor, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What ``logits (B, C)`` answer, and the log-probability ``(B,)`` of the true answer.

        Single-label: the class with the largest logit; the log-softmax of the true class. Multi-label: all classes
        with a probability (sigmoid) above one half, packed; the mean over all classes of the log-probability that
        the class is there, or that it is not, whichever is true.

        Args:
            logits: Of ``B`` proteins.
            targets: Their :meth:`targets`.
        """
        log_p = log_probabilities(logits.float(), self.task).cpu().numpy()
        if self.task == "single":
            return log_p.argmax(1), log_p[np.arange(len(log_p)), targets]
        log_not = log_probabilities(-logits.float(), self.task).cpu().numpy()
        return pack((logits > 0).cpu().numpy()), np.where(targets, log_p, log_not).mean(1)

    @torch.inference_mode()
    def log_probabilities(self, proteins: Sequence[Protein], token_budget: int = 4096) -> np.ndarray:
        """Natural-log class probabilities ``(P, C)`` of the untouched Hugging Face model.

        Rows sum to 1 in a single-label task; in a multi-label one every class has a probability of its own.
        """
        out = np.zeros((len(proteins), len(self.labels)))

        def work(batch: Batch, _: int) -> None:
            logits = self.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
            out[batch.rows] = log_probabilities(logits.double(), self.task).cpu().numpy()  # (B, C)

        for batch in self.batches(proteins, token_budget):
            splitting(work, 0)(batch)
        return out

    def save(self, folder: Path) -> None:
        """Write a Hugging Face folder: safetensors, config with class names, tokenizer."""
        self.model.save_pretrained(folder, safe_serialization=True)
        self.tokenizer.save_pretrained(folder)


def _last_token(tokenizer: Any) -> int | None:
    """Id of the token that ends a protein: ``<eos>``, or ``[SEP]`` where there is none."""
    token: int | None = tokenizer.sep_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id
    return token


def residue_mean(hidden: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Mean over the residues, ``(B, T, d)`` to ``(B, 1, d)``; first token, last token and padding do not enter."""
    position = torch.arange(hidden.shape[1], device=hidden.device)
    real = (position > 0) & (position < (lengths - 1).unsqueeze(1))  # (B, T)
    weight = (real / real.sum(1, keepdim=True)).to(hidden.dtype)
    return torch.einsum("bt,btd->bd", weight, hidden).unsqueeze(1)


class MeanPooling:
    """Hooks that give a head which reads the first token the mean of the residues instead.

    The head sees one token. They are copied with the model, so that a copy has its own ``lengths``.
    """

    def __init__(self, model: PreTrainedModel, head: str) -> None:
        self.lengths = torch.zeros(0)
        encoder: Any = model.base_model
        encoder.register_forward_pre_hook(self._see, with_kwargs=True)
        model.get_submodule(head).register_forward_pre_hook(self._pool)

    def _see(self, module: torch.nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        self.lengths = kwargs["attention_mask"].sum(1)

    def _pool(self, module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return args if args[0].shape[1] == 1 else (residue_mean(args[0], self.lengths.to(args[0].device)), *args[1:])


def log_probabilities(logits: torch.Tensor, task: LabelTask) -> torch.Tensor:
    """``(B, C)`` natural logs: softmax over the classes, or in a multi-label task a sigmoid for each."""
    return logits.log_softmax(-1) if task == "single" else torch.nn.functional.logsigmoid(logits)
