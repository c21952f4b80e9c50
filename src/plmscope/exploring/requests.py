"""What a page may ask, checked before anything is done with it.

A request is a JSON object of these keys, all but ``sequence`` optional, and no others::

    id          a name; control characters are dropped, at most 200 are kept
    sequence    residues, or one FASTA record
    mutations   such as ["A12V"]; made in the sequence in their order
    label       the class to explain; null: what the model says
    changes     [{"neurons": [[layer, module, number], ...] or "set": "name", "to": "zero", "mean" or "double"}]

A sequence is letters and nothing else: it is never part of a path, a command or markup.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from plmscope.data.proteins import Protein
from plmscope.errors import InputError, shown
from plmscope.models.architectures import MODULES
from plmscope.models.sites import Neuron, Site

#: Bytes of a request; mutations, changes and neurons in one.
MOST_BYTES, MOST_MUTATIONS, MOST_CHANGES, MOST_NEURONS = 262_144, 50, 50, 5000
#: What becomes of a neuron: what multiplies its activation; ``None``: held at its ablation mean.
TO: dict[str, float | None] = {"zero": 0.0, "mean": None, "double": 2.0}
_NAME, _TEXT = 200, 200


@dataclass(frozen=True)
class Part:
    """Some neurons and what becomes of them: named one by one, or as a set of the run."""

    neurons: tuple[Neuron, ...]
    named: str
    to: str


@dataclass(frozen=True)
class Asked:
    """One protein and what is changed.

    Attributes:
        protein: As it was given.
        mutations: Made in it.
        label: The class to explain; ``None``: what the model says.
        changes: Of neurons.
    """

    protein: Protein
    mutations: tuple[str, ...] = ()
    label: str | None = None
    changes: tuple[Part, ...] = ()

    @property
    def intact(self) -> Asked:
        """The same without changes of neurons."""
        return replace(self, changes=())


@dataclass(frozen=True)
class Search:
    """Neurons that are looked for; empty: any.

    Attributes:
        module, layer, label, concept: Exactly these.
        motif, text: Part of the motif, of the card's sentence; case does not matter.
    """

    module: str = ""
    layer: int | None = None
    label: str = ""
    concept: str = ""
    motif: str = ""
    text: str = ""


def read_json(body: bytes) -> dict[str, Any]:
    """The object that was sent.

    Raises:
        InputError: it is no JSON object.
    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise InputError("the request is no JSON; send an object") from None
    if not isinstance(found, dict):
        raise InputError("the request is no JSON object")
    return found


def read_asked(sent: Mapping[str, Any], longest: int) -> Asked:
    """A request about one protein.

    Args:
        sent: The object.
        longest: Residues that the model takes.

    Raises:
        InputError: a key is unknown, or a value is of another kind, too long, or impossible.
    """
    _known(sent, ("id", "sequence", "mutations", "label", "changes"))
    protein = read_sequence(_text(sent, "sequence", MOST_BYTES), _text(sent, "id", MOST_BYTES), longest)
    mutations = _list(sent, "mutations", MOST_MUTATIONS)
    if not all(isinstance(one, str) and re.fullmatch(r"[A-Z][1-9]\d{0,5}[A-Z]", one) for one in mutations):
        raise InputError("mutations are written like A12V")
    label = sent.get("label")
    if label is not None and not isinstance(label, str):
        raise InputError("label is the name of a class, or null")
    changes = tuple(_part(one) for one in _list(sent, "changes", MOST_CHANGES))
    if (n := sum(len(part.neurons) for part in changes)) > MOST_NEURONS:
        raise InputError(f"{n:,} neurons are changed; the most is {MOST_NEURONS:,}")
    return Asked(protein, tuple(mutations), label or None, changes)


def read_sequence(text: str, name: str, longest: int) -> Protein:
    r"""A pasted sequence, or one FASTA record, whose header's first word names the protein.

    >>> read_sequence(">sp|P1 an enzyme\nmk ta\ny*", "", 10)
    Protein('sp|P1', 5 residues, label=None)

    Raises:
        InputError: it is empty, too long, more than one, or has other signs than letters.
    """
    lines = text.strip().splitlines()
    if lines and lines[0].startswith(">"):
        header = lines.pop(0)[1:].split()
        name = name or (header[0] if header else "")
    if any(line.startswith(">") for line in lines):
        raise InputError("more than one protein; paste one at a time, or use 'plmscope explain' for a file")
    sequence = "".join("".join(lines).split()).upper().removesuffix("*")
    if not sequence:
        raise InputError("the sequence is empty; paste its residues")
    if len(sequence) > longest:
        raise InputError(f"{len(sequence):,} residues; the model takes {longest:,}, give a part of it")
    if other := re.search(r"[^A-Z]", sequence):
        raise InputError(f"{shown(other[0])} at position {other.start() + 1} is no residue")
    return Protein("".join(c for c in name if c.isprintable())[:_NAME].strip() or "protein", sequence)


def read_search(sent: Mapping[str, Any]) -> Search:
    """A request for neurons.

    Raises:
        InputError: a key is unknown, or a value is of another kind or too long.
    """
    names = ("module", "label", "concept", "motif", "text")
    _known(sent, (*names, "layer"))
    layer = sent.get("layer")
    if layer is not None and (not isinstance(layer, int) or isinstance(layer, bool)):
        raise InputError("layer is a number, or null")
    return Search(layer=layer, **{name: _text(sent, name, _TEXT) for name in names})


def read_neuron(value: Any) -> Neuron:
    """``[layer, module, number]``.

    Raises:
        InputError: it is something else.
    """
    if (
        not isinstance(value, list)
        or [type(part) for part in value] != [int, str, int]
        or value[1] not in MODULES
        or min(value[0], value[2]) < 0
    ):
        raise InputError("a neuron is [layer, module, number]")
    return Neuron(Site(value[0], value[1]), value[2])


def _part(value: Any) -> Part:
    """One change."""
    if not isinstance(value, dict) or value.get("to") not in TO:
        raise InputError(f"a change says what its neurons become: one of {', '.join(TO)}")
    _known(value, ("neurons", "set", "to"))
    named = _text(value, "set", _TEXT)
    neurons = tuple(read_neuron(one) for one in _list(value, "neurons", MOST_NEURONS))
    if bool(named) == bool(neurons):
        raise InputError("a change has either neurons or the name of a set")
    return Part(neurons, named, value["to"])


def _known(sent: Mapping[str, Any], names: tuple[str, ...]) -> None:
    """Refuse other keys, so that a misspelt one is not passed over."""
    if other := [name for name in sent if name not in names]:
        raise InputError(f"unknown key {shown(str(other[0]))}; there are {', '.join(names)}")


def _text(sent: Mapping[str, Any], name: str, most: int) -> str:
    value = sent.get(name) or ""
    if not isinstance(value, str) or len(value) > most:
        raise InputError(f"{name} is text of at most {most:,} characters")
    return value


def _list(sent: Mapping[str, Any], name: str, most: int) -> list[Any]:
    value = sent.get(name) or []
    if not isinstance(value, list) or len(value) > most:
        raise InputError(f"{name} is a list of at most {most:,}")
    return value
