"""Which classification head a checkpoint has, what it says of it, and whether it is the one that is asked for.

A trained head is kept wherever it is for the classes that are asked for; what its files say (the names of its classes,
its task, what it reads) is the default, and a setting that says otherwise is refused, or the head is replaced and that
is said. Names, sizes and the configuration are enough to know all this: no weight is read here.

Weights of a model that was inside another one have a prefix (``module.`` of ``DataParallel``, ``model.`` of Lightning,
``net.esm.`` of somebody's own module). It is found by the first layer's query and taken off.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from plmscope.data.labels import LabelTask
from plmscope.errors import ModelError, shown
from plmscope.models.architectures import Architecture, architectures
from plmscope.models.checkpoints import Checkpoint

#: What Hugging Face calls the tasks.
PROBLEM_TYPES: dict[LabelTask, str] = {"single": "single_label_classification", "multi": "multi_label_classification"}
#: What the classification head reads, in words; and the key in ``config.json`` that says so.
POOLINGS = {"first": "the first token", "mean": "the mean of the residues"}
POOLING_KEY = "plmscope_pooling"
_FINETUNE = "fine-tune it first ('plmscope finetune STUDY')"
#: Parts of names that compiling or sharding a module puts in front of what is inside.
_INNER = re.compile(r"(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
#: Weights of a training step that take no part in a prediction.
_OF_TRAINING = re.compile(
    r"(^|[._])(loss|criterion|metrics?|acc|accuracy|f1|auroc|auc|mcc|precision|recall)([._]|$)", re.IGNORECASE
)
#: Weights that old releases saved and that follow from the configuration.
COMPUTED = ("position_ids", "inv_freq")


# --- names of weights


@dataclass(frozen=True)
class Names:
    """What the weights of a checkpoint are called.

    Attributes:
        own: Every name in the files to the name that transformers knows it by.
        prefix: What was in front of them and is taken off; empty: nothing.
        mapping: The same as patterns, for ``from_pretrained``.
    """

    own: Mapping[str, str]
    prefix: str = ""
    mapping: Mapping[str, str] | None = None


def names_of(found: Checkpoint, architecture: Architecture) -> Names:
    """The names of a model's weights, without what a wrapper put in front of them.

    Raises:
        ModelError: there are two models in it, or a LoRA model that was never merged, or no layer of this type.
    """
    base, _, layers = architecture.layers.partition(".")
    anchor = f"{layers}.0.{architecture.modules['query'].path}.weight"
    plain = {key: _INNER.sub("", key) for key in found.shapes}
    fronts = sorted({key.removesuffix(anchor) for key in plain.values() if key.endswith(anchor)})
    lora = sorted(key for key in plain if ".lora_A." in key or ".base_layer." in key or ".modules_to_save." in key)
    if lora:
        raise ModelError(
            f"{found.name}: holds a LoRA model that was not merged (first weight {lora[0]!r}); save the adapter alone "
            "(save_pretrained of peft's model), or merge_and_unload() before saving"
        )
    if len(fronts) > 1:
        raise ModelError(
            f"{found.name}: holds {len(fronts)} models, with names that start with {fronts[0]!r} and {fronts[1]!r}; "
            "save the one that is to be explained alone"
        )
    if not fronts:
        raise ModelError(
            f"{found.name}: no weight is called '...{anchor}', as those of a model of type "
            f"{architecture.model_type!r} are (first {min(plain, default='')!r}); config.json is of another kind of "
            "model, or the weights were not saved by transformers"
        )
    front = fronts[0]
    foreign = {f"{row.layers.partition('.')[0]}." for row in architectures().values()} - {f"{base}."}
    wrapper = front.removesuffix(f"{base}.")
    if front in foreign:
        raise ModelError(
            f"{found.name}: its weights are those of a model of type {front[:-1]!r}, config.json says "
            f"{architecture.model_type!r}; copy the config.json that was saved with them"
        )
    bare = not front.endswith(f"{base}.")
    inside = [path.split(".")[1] for path in _paths(architecture) if path.startswith(f"{base}.")]

    def full(key: str) -> str:
        if not key.startswith(wrapper):
            return key
        key = key.removeprefix(wrapper)
        return f"{base}.{key}" if bare and key.split(".")[0] in inside else key

    own = {key: full(name) for key, name in plain.items()}
    if any(key != name for key, name in plain.items()):  # in several places of a name, each pattern finds one
        return Names(own, wrapper, {f"^{re.escape(key)}$": name for key, name in own.items() if key != name})
    return Names(own, wrapper, {f"^{re.escape(wrapper)}": f"{base}." if bare else ""} if wrapper else None)


def _paths(architecture: Architecture) -> list[str]:
    """Full names of the parts of the encoder."""
    row = architecture
    return [row.embeddings, row.layers, *row.after, row.head, *row.head_modules, *row.unused]


# --- the head


@dataclass(frozen=True)
class Head:
    """The trained classification head of a checkpoint, as its files describe it.

    Attributes:
        name: What was asked for.
        outputs: Of its last module; 0: there is no head, or only one of another kind.
        names: Names of its outputs.
        problem_type: As in ``config.json``; empty: not said.
        pooling: What it reads; empty: not said.
        foreign: Weights outside the encoder and the head that something else computes with.
        kind: The class that saved it, where it has another head.
        adapter: Whether it is that of a LoRA adapter.
    """

    name: str
    outputs: int
    names: tuple[str, ...]
    problem_type: str = ""
    pooling: str = ""
    foreign: tuple[str, ...] = ()
    kind: str = ""
    adapter: bool = False

    @property
    def task(self) -> LabelTask | None:
        """The task that it says it was trained for, if it says so."""
        return next((task for task, name in PROBLEM_TYPES.items() if name == self.problem_type), None)

    @property
    def has_default_names(self) -> bool:
        """Whether its classes were never named."""
        return self.names == tuple(f"LABEL_{i}" for i in range(len(self.names)))


def head_of(
    found: Checkpoint, names: Names, architecture: Architecture, config: Mapping[str, Any], labels: Sequence[str]
) -> Head:
    """The head of a model.

    Args:
        found: The checkpoint.
        names: Of its weights.
        architecture: Where a head of this type is.
        config: Its ``config.json``.
        labels: Names of the outputs by the configuration as transformers reads it.
    """
    shapes = {names.own[key]: shape for key, shape in found.shapes.items()}
    base, modules = architecture.layers.partition(".")[0], architecture.head_modules
    complete = all(f"{module}.weight" in shapes for module in modules)
    ours = (f"{base}.", *architecture.unused, *(f"{module}." for module in modules))
    foreign = [key for key in shapes if not key.startswith(ours) and not key.endswith(COMPUTED)]
    if not complete:  # a part of a head is one of another kind
        foreign += [key for key in shapes if key.startswith("classifier.") and key not in foreign]
    kind = next((str(one) for one in config.get("architectures") or ()), "")
    return Head(
        found.name,
        shapes[f"{modules[-1]}.weight"][0] if complete else 0,
        tuple(labels),
        str(config.get("problem_type") or ""),
        str(config.get(POOLING_KEY) or ""),
        tuple(sorted(key for key in foreign if not _OF_TRAINING.search(key))),
        "" if kind.endswith("ForSequenceClassification") else kind,
    )


@dataclass(frozen=True)
class Choice:
    """What becomes of a checkpoint's head.

    Attributes:
        kept: Whether it stays.
        names: Classes in the order of the outputs, of the head that stays or of a new one.
        task: Of them.
        pooling: What it reads.
        lines: What has to be said.
    """

    kept: bool
    names: tuple[str, ...]
    task: LabelTask
    pooling: str
    lines: tuple[str, ...] = ()


def choose(
    head: Head,
    labels: Sequence[str] | None,
    task: LabelTask | None,
    pooling: str | None,
    classes: Sequence[str],
    new_head: bool | None,
) -> Choice:
    """Keep a head that is for these classes and this task; otherwise a new one, or a line that says why it is not.

    Args:
        head: That of the checkpoint.
        labels: Classes that are asked for; ``None``: those of the head.
        task: Of the labels; ``None``: as the checkpoint says, else ``single``.
        pooling: What the head reads; ``None``: as the checkpoint says, else ``first``.
        classes: Names of the head's outputs, in place of those of its configuration; empty: those are right.
        new_head: True: a new one in any case; False: its own or none; ``None``: a new one where its own does not do.

    Raises:
        ModelError: the settings contradict each other or the checkpoint, or the head has to be kept and cannot.
    """
    for what, some in (("labels", labels or ()), ("[model] classes", classes)):
        if twice := [one for one in some if list(some).count(one) > 1]:
            raise ModelError(
                f"{head.name}: {what} has the class {shown(twice[0])} twice; give every class its own name"
            )
    asked = tuple(labels or ())
    fresh = Choice(False, asked, task or "single", pooling or head.pooling or "first")
    replaced = f"{head.name}: its classification head for {shown(', '.join(head.names))} is replaced by a new one"
    if new_head and labels is not None:
        return replace(fresh, lines=(f"{replaced}, as new_head says",)) if head.outputs else fresh
    _check_names(head, classes)
    own = tuple(classes) or head.names
    why = _why_not(head, own, asked, task, pooling)
    if why is None:
        lines = []
        if task == "multi" and not head.task:
            saying = repr(head.problem_type) if head.problem_type else "not set"
            lines.append(
                f"problem_type in config.json is {saying}, not {PROBLEM_TYPES['multi']!r}; its head is taken as "
                "multi-label, a sigmoid per class, as task says"
            )
        if classes and tuple(classes) != head.names:
            lines.append(f"its classes {_listed(head.names)} are called {_listed(own)}, as classes says")
        if rest := [one for one in own if labels is not None and one not in asked]:
            lines.append(f"its head is for {len(own)} classes and stays so; no protein has {_listed(rest)}")
        if pooling == "mean" and not head.pooling:
            lines.append(f"its head reads {POOLINGS[pooling]}, as pooling says; config.json does not say what it reads")
        lines = [f"{head.name}: {line}" for line in lines]
        return Choice(True, own, task or head.task or "single", pooling or head.pooling or "first", tuple(lines))
    reason, advice = why
    if labels is None:
        raise ModelError(f"{head.name}: {reason}; {advice or _FINETUNE}")
    if new_head is False:
        other = "fine-tune a new one ([finetune] epochs above 0)"
        raise ModelError(f"{head.name}: {reason}; {f'{advice}, or {other}' if advice else other}")
    lines = []
    if head.outputs:
        named = own != head.names or not head.has_default_names  # their authors called these classes something else
        keep = f"; to keep it, {advice}" if advice and not (named and set(asked).isdisjoint(own)) else ""
        lines.append(f"{replaced} ({reason}{keep})")
        if head.pooling and fresh.pooling != head.pooling:
            lines.append(f"{head.name}: the new head reads {POOLINGS[fresh.pooling]}, as pooling says")
    return replace(fresh, lines=tuple(lines))


def _check_names(head: Head, classes: Sequence[str]) -> None:
    """Refuse names that do not fit the outputs, or that contradict those of the configuration."""
    if classes and not head.outputs:
        raise ModelError(
            f"{head.name}: [model] classes names the outputs of a trained head, and it has none; leave classes out"
        )
    if classes and len(classes) != head.outputs:
        raise ModelError(
            f"{head.name}: [model] classes has {len(classes)} names, its head {head.outputs} outputs; name every one "
            "in their order"
        )
    if not head.outputs:
        return
    if classes:
        moved = [one for i, one in enumerate(classes) if one in head.names and head.names.index(one) != i]
        if moved:
            raise ModelError(
                f"{head.name}: [model] classes has {shown(moved[0])} as output {list(classes).index(moved[0])}, "
                f"config.json (id2label) as output {head.names.index(moved[0])}; correct one of them"
            )
        return
    if len(head.names) != head.outputs:
        raise ModelError(
            f"{head.name}: config.json (id2label) names {len(head.names)} classes, its head has {head.outputs} "
            "outputs; name every one there, or with [model] classes"
        )
    if twice := [one for one in head.names if head.names.count(one) > 1]:
        raise ModelError(
            f"{head.name}: config.json (id2label) has the class {shown(twice[0])} twice; give every output its own "
            "name there, or with [model] classes"
        )


def _why_not(
    head: Head, own: tuple[str, ...], asked: tuple[str, ...], task: LabelTask | None, pooling: str | None
) -> tuple[str, str] | None:
    """Why a head is not the one that is asked for, and what can be done (empty: nothing but a new one)."""
    if not head.outputs:
        if head.foreign:
            kind = f"that of {head.kind}" if head.kind else "of its own kind"
            return f"its head is {kind} (first weight {head.foreign[0]!r}), which does not classify whole sequences", ""
        if head.adapter:
            return (
                "neither the adapter nor its base has a trained classification head; save the adapter with its head "
                "(peft: task_type='SEQ_CLS', or modules_to_save=['classifier'])",
                "",
            )
        return "has no classification head", ""
    if head.foreign:
        return (
            f"{len(head.foreign)} weights are neither of the encoder nor of its head (first {head.foreign[0]!r}), so "
            "it computes something else than transformers' own class",
            "",
        )
    if head.problem_type == "regression":
        return "its head predicts numbers, not classes (problem_type = 'regression' in config.json)", ""
    if head.outputs == 1:
        return "its head has one output; a yes-or-no classifier needs two classes", ""
    if task and head.task and task != head.task:
        return (
            f"its head was trained for problem_type = {head.problem_type!r} (config.json), and task is {task!r}",
            f'set [data] task = "{head.task}"',
        )
    if pooling and head.pooling and pooling != head.pooling:
        return (
            f"its head reads {POOLINGS[head.pooling]} ({POOLING_KEY} in config.json), and pooling is {pooling!r}",
            "leave [model] pooling out",
        )
    unknown = [one for one in asked if one not in own]
    if not unknown:
        return None
    if head.has_default_names and own == head.names:
        called = f"its {len(own)} classes are called {own[0]} to {own[-1]}"
    else:
        called = f"its classes are {_listed(own)}"
    if len(asked) == len(own):
        advice = f"name its outputs in their order: [model] classes = {json.dumps(list(asked), ensure_ascii=False)}"
        advice += " (if that is the order) or id2label in config.json"
    elif len(asked) < len(own):
        advice = f"name its {len(own)} outputs in their order with [model] classes, or id2label in config.json"
    else:
        advice = "leave the other proteins out with [data] classes"
    return f"{called}, those of the proteins {_listed(asked)}", advice


def _listed(names: Sequence[str]) -> str:
    """Some names as a line quotes them."""
    text = ", ".join(names)
    return text if len(text) <= 60 and text.isprintable() else shown(text)
