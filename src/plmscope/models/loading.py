"""Load a protein sequence classifier from a checkpoint.

A checkpoint is ``plmscope:embedded`` (the model that travels with the package), a local folder, a Hugging Face hub id
such as ``facebook/esm2_t6_8M_UR50D``, or a LoRA adapter for one of these, which is merged. Only safetensors are read,
and no code that comes with a checkpoint is run. An architecture without a row in
:data:`plmscope.models.architectures.ARCHITECTURES` is refused, and so is what is silently made up elsewhere: weights
that a checkpoint lacks, or has and the architecture does not.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as hf_logging

from plmscope.data.labels import LabelTask
from plmscope.errors import ModelError, one_line
from plmscope.models.architectures import Architecture, architecture_of
from plmscope.models.checkpoints import Checkpoint, built
from plmscope.models.classifier import DTYPES, Classifier, MeanPooling
from plmscope.models.finding import find_checkpoint
from plmscope.models.heads import (
    COMPUTED,
    POOLING_KEY,
    POOLINGS,
    PROBLEM_TYPES,
    Choice,
    Names,
    choose,
    head_of,
    names_of,
)
from plmscope.models.lora import Adapter
from plmscope.models.sites import NeuronIndex
from plmscope.models.spread import AUTO, placed, spread

#: Types of stored weights other than float32, as safetensors calls them.
STORED = {"F16": "float16", "BF16": "bfloat16", "F64": "float64"}


def load_model(
    checkpoint: str | Path,
    *,
    labels: Sequence[str] | None = None,
    task: LabelTask | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    revision: str | None = None,
    seed: int = 0,
    random_weights: bool = False,
    pooling: str | None = None,
    classes: Sequence[str] = (),
    new_head: bool | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Classifier:
    """Load a classifier, or an encoder that gets a fresh classification head.

    What the checkpoint says of itself (its classes, its task, what its head reads) is the default. A setting that says
    otherwise is refused where the head has to be kept; otherwise there is a new head, and that is said.

    Args:
        checkpoint: ``plmscope:embedded``, a folder, or a hub id; a LoRA adapter is merged into its base model.
        labels: Class names. A checkpoint's own head is kept, in its order, if it is for all of these classes and this
            task, even if it has more; otherwise there is a fresh one. ``None`` takes the checkpoint's own head.
        task: ``single``, or ``multi`` for proteins with several classes; ``None``: as the checkpoint says, else
            ``single``.
        device: ``cpu``, ``cuda`` or ``cuda:1``; ``cuda:all`` is the first here, with workers on the others; ``auto``
            spreads a model over all GPUs and the host's memory (:mod:`plmscope.models.spread`).
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        revision: Hub revision: a branch, tag or commit.
        seed: Seeds the fresh head (and the weights, if they are random).
        random_weights: Take the architecture and the tokenizer of the checkpoint, but no weights: a control.
        pooling: What the head reads: ``first``, the first token, or ``mean``, the mean of the residues; ``None`` takes
            what the checkpoint says, else ``first``. It is written to ``config.json`` and unknown to transformers.
        classes: Names of the outputs of the checkpoint's own head, in their order, where its configuration does not
            name them.
        new_head: True: a fresh head for the labels also where the checkpoint has one; False: its own head or none.
        say: Told one line at a time what is downloaded, made anew, renamed or left out.

    Raises:
        ModelError: the checkpoint is missing, incomplete or damaged, the architecture is not supported, there are no
            safetensors, a weight is lacking, foreign or not finite, the device is absent, a head is asked for that
            the checkpoint does not have, or a setting contradicts what the checkpoint says.
    """
    name = str(checkpoint)
    _quiet()
    place = _device(device)
    if dtype not in DTYPES:
        raise ModelError(f"dtype {dtype!r} is not known; choose one of {', '.join(DTYPES)}")
    if pooling is not None and pooling not in POOLINGS:
        raise ModelError(f"pooling {pooling!r} is not known; choose one of {', '.join(POOLINGS)}")
    source = find_checkpoint(name, revision, say)
    adapter = Adapter(source) if source.is_adapter else None
    base = _base(adapter, say) if adapter else source
    config: Any = built(base.name, lambda: AutoConfig.from_pretrained(base.folder, trust_remote_code=False))
    architecture = _architecture(config, name)
    weights = names_of(base, architecture)
    own = [str(config.id2label[i]) for i in range(config.num_labels)]
    head = head_of(base, weights, architecture, base.config, own)
    if adapter:
        head = adapter.head(architecture, head)
    if head.pooling not in ("", *POOLINGS):
        raise ModelError(f"{name}: config.json: {POOLING_KEY} = {head.pooling!r}; choose one of {', '.join(POOLINGS)}")
    choice = choose(head, labels, task, pooling, classes, True if random_weights else new_head)
    if len(choice.names) < 2:
        raise ModelError(f"{name}: there is one class; a classifier needs two")
    config.num_labels = len(choice.names)
    config.id2label = dict(enumerate(choice.names))
    config.label2id = {label: i for i, label in enumerate(choice.names)}
    config.problem_type = PROBLEM_TYPES[choice.task]
    setattr(config, POOLING_KEY, choice.pooling)
    if architecture.model_type == "esm":
        config.classifier_dropout = None
        config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    tokenizer = _tokenizer(base)
    torch.manual_seed(seed)
    from_config: Any = AutoModelForSequenceClassification.from_config
    if random_weights:
        model = built(name, lambda: from_config(config))
    else:
        brings = bool(adapter and choice.kept and adapter.outputs(architecture))
        model, heads = _with_weights(base, weights, config, architecture, choice, brings, say)
        if adapter:
            model = adapter.merged(model, architecture, with_head=choice.kept)
            say(f"{name}: LoRA adapter merged into {base.name}")
        for line in choice.lines:
            say(line)
        if not choice.kept and not set(_head_of(model)) <= heads:
            torch.manual_seed(seed)  # the checkpoint's own head, or a part of it, knows other classes
            model.classifier.load_state_dict(from_config(config).classifier.state_dict())
        stored = sorted({STORED[kind] for _, kind in base.header.values() if kind in STORED})
        if stored and stored != [dtype]:
            say(f"{base.name}: its weights are stored in {' and '.join(stored)}; they are computed with in {dtype}")
    for key, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise ModelError(f"{name}: the weight {key!r} holds NaN or infinite values; the file is damaged")
    model = placed(model, place, DTYPES[dtype])
    if device == AUTO:
        model = spread(model, architecture.layers)
    if choice.pooling == "mean":
        MeanPooling(model, architecture.head)
    index = NeuronIndex.of(config.num_hidden_layers, config.hidden_size, config.intermediate_size)
    classifier = Classifier(
        model, tokenizer, architecture, choice.names, index, name,
        revision=source.revision,
        sha256="" if random_weights else source.sha256,
        pooling=choice.pooling,
        files=source.files
        | ({f"{base.name}/{file}": digest for file, digest in base.files.items()} if adapter else {}),
        new_head=not choice.kept,
    )  # fmt: skip
    if classifier.pairs:
        say(
            f"{name}: its tokens are pairs of residue and structure; residues are read with their structure unknown (#)"
        )
    classifier.freeze()
    return classifier


def _base(adapter: Adapter, say: Callable[[str], None]) -> Checkpoint:
    """The model of an adapter."""
    name, where = adapter.found.name, f"{adapter.base} (base_model_name_or_path in adapter_config.json)"
    try:
        base = find_checkpoint(adapter.base, None, say)
    except ModelError as error:
        raise ModelError(
            f"{name}: its base model {where} cannot be used; write the folder or hub id of the model that it was "
            f"trained on there ({error})"
        ) from None
    if base.is_adapter:
        raise ModelError(f"{name}: its base model {base.name} is an adapter too; name a model")
    return base


def find_on(checkpoint: str, device: str, revision: str | None, say: Callable[[str], None]) -> None:
    """Refuse what :func:`load_model` would refuse before it builds anything.

    Raises:
        ModelError: the device is absent, or :func:`~plmscope.models.finding.find_checkpoint` refuses the checkpoint.
    """
    _device(device)
    find_checkpoint(checkpoint, revision, say)


def _device(device: str) -> torch.device:
    """The device, if it is here; a model that is spread comes from the host's memory."""
    if device == AUTO:
        return torch.device("cpu")
    try:
        place = torch.device("cuda" if device == "cuda:all" else device)
    except RuntimeError:
        place = None
    if place is None or place.type not in ("cpu", "cuda"):  # others lack float64, which sums are in
        raise ModelError(f"device {device!r} is not known; use cpu, cuda, cuda:1, cuda:all or auto")
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise ModelError(
            f"device {device!r} is not available here; run the study with --device cpu, or on a machine that has it"
        )
    return place


def _architecture(config: Any, name: str) -> Architecture:
    """The table row of a configuration; names the checkpoint that has none."""
    try:
        return architecture_of(str(config.model_type))
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from None


def _tokenizer(found: Checkpoint) -> Any:
    """Its tokenizer."""
    try:
        return AutoTokenizer.from_pretrained(found.folder, trust_remote_code=False)
    except Exception as error:  # the library behind it raises nothing more special
        raise ModelError(
            f"{found.name}: the tokenizer cannot be read ({one_line(error)}); copy or download it again"
        ) from None


def _head_of(model: Any) -> list[str]:
    """Names of the weights of the classifier, as transformers calls its last part in every architecture."""
    return [f"classifier.{key}" for key in model.classifier.state_dict()]


def _with_weights(
    found: Checkpoint,
    names: Names,
    config: Any,
    architecture: Architecture,
    choice: Choice,
    brings: bool,
    say: Callable[[str], None],
) -> tuple[Any, set[str]]:
    """The model and the names of those weights of its head that the checkpoint lacks.

    Names of older releases (``LayerNorm.gamma``, ``rotary_embeddings.inv_freq`` in every layer, ``position_ids``) are
    understood by transformers. Any other weight that is lacking, or that has no place, is refused: the model would
    otherwise compute something else than the one that was trained.

    Args:
        found: The checkpoint.
        names: Of its weights.
        config: Of the model that is wanted.
        architecture: Where its parts are.
        choice: What becomes of its head.
        brings: Whether an adapter brings a head of its own.
        say: Told what is new and what is left out.
    """
    settings: dict[str, Any] = {"use_safetensors": True, "output_loading_info": True, "dtype": torch.float32}
    load = AutoModelForSequenceClassification.from_pretrained
    model, info = built(
        found.name,
        lambda: load(
            found.folder, config=config, trust_remote_code=False, ignore_mismatched_sizes=True,
            key_mapping=names.mapping, **settings,
        ),  # that they match is seen to here, with a better line than theirs
    )  # fmt: skip
    if names.mapping:
        model._weight_conversions = None  # it would give the prefix back when the model is saved
    if names.prefix:
        say(f"{found.name}: the prefix {names.prefix!r} of the names of its weights is taken off")
    base = architecture.layers.partition(".")[0]
    fresh = not choice.kept or brings
    others = [names.own.get(key, key) for key in info["unexpected_keys"] if not key.endswith(COMPUTED)]
    foreign = sorted(k for k in others if k.startswith(f"{base}.") and not k.startswith(architecture.unused))
    if foreign:
        raise ModelError(
            f"{found.name}: {len(foreign)} weights have no place in a model of type {architecture.model_type!r} with "
            f"the sizes of config.json, first {foreign[0]!r}; copy the config.json that was saved with them"
        )
    missing = {key for key in info["missing_keys"] if "contact_head" not in key and "inv_freq" not in key}
    heads = {key for key in missing if key.startswith(architecture.new)}
    if missing - heads:
        raise ModelError(
            f"{found.name}: the checkpoint lacks {len(missing - heads)} weights, first {min(missing - heads)!r}"
        )
    wrong = sorted(key for key, *_ in info["mismatched_keys"] if not (fresh and key.startswith(architecture.new)))
    if wrong:
        raise ModelError(
            f"{found.name}: {len(wrong)} weights have another shape than config.json says, first {wrong[0]!r}"
        )
    if heads and choice.kept and not brings:
        raise ModelError(f"{found.name}: the checkpoint lacks {len(heads)} weights of its head, first {min(heads)!r}")
    if heads and not brings:
        say(f"{found.name}: {len(heads)} weights of the classification head are not in the checkpoint, they are new")
    if others:
        say(f"{found.name}: {len(others)} weights of another head are left out, first {min(others)!r}")
    return model, heads


def _quiet() -> None:
    """Keep the library from writing bars and advice between our lines."""
    silence: Any = hf_logging
    silence.set_verbosity_error()
    silence.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
