"""Find a checkpoint, and refuse one that is damaged, foreign or hostile before a model is built from it.

A checkpoint is ``plmscope:embedded``, a folder, or a Hugging Face hub id (``facebook/esm2_t6_8M_UR50D``), which is
looked up in the hub's own cache (``HF_HOME``) and downloaded there, from ``HF_ENDPOINT``, unless ``HF_HUB_OFFLINE``
is set. Of a repository only the configuration, the vocabulary and the safetensors come.

Weights are read from safetensors alone, since a pickle can run any code when it is opened. Code that comes with a
checkpoint is never run either. A folder with ``adapter_config.json`` in place of a model is a LoRA adapter; its
configuration names the model it belongs to.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open

from plmscope.errors import ModelError, one_line, shown

T = TypeVar("T")
EMBEDDED = "plmscope:embedded"
#: What to know of its judgement of proteins other than the embedded ones that were kept away from it.
SEEN = (
    f"{EMBEDDED} was trained on enzymes of UniProt and their EC numbers; proteins of yours may be among them, and then "
    "its accuracy says too little of new ones"
)
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
#: Files beside the weights that are read.
TEXTS = (
    "config.json", "vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", ADAPTER_CONFIG,
)  # fmt: skip
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
#: Pickles of a training that hold no weights.
_NO_WEIGHTS = re.compile(r"^(training_args|optimizer|scheduler|scaler|rng_state.*)\.(bin|pt|pth)$")
#: Pickles as facebookresearch/esm names them; the same models are on the hub, converted.
_FAIR_ESM = re.compile(r"^(esm1b|esm1v|esm2)_t\d+_\w+?(-contact-regression)?\.pt$")
#: What to do about a file that is not what it should be, wherever it came from.
COPY = "copy or download it again"
PICKLED = "has pickled weights only, which plmscope never opens"
#: Upper bounds of sizes in ``config.json``; beyond them it is a mistake, and building the model would fill the memory.
SIZES = {
    "num_hidden_layers": 512, "hidden_size": 2**16, "intermediate_size": 2**18, "num_attention_heads": 2**10,
    "vocab_size": 2**20, "max_position_embeddings": 2**20, "num_labels": 2**16,
}  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on the disk.

    Attributes:
        name: What was asked for.
        folder: Where it is.
        revision: Commit, if it came from the hub.
    """

    name: str
    folder: Path
    revision: str = ""

    @property
    def is_adapter(self) -> bool:
        """Whether it is a LoRA adapter and not a model."""
        return (self.folder / ADAPTER_CONFIG).is_file()

    @cached_property
    def weights(self) -> tuple[Path, ...]:
        """Its safetensors, by name; none if there are only others."""
        if self.is_adapter:
            names = [ADAPTER]
        elif (self.folder / WEIGHTS).is_file() or not (self.folder / INDEX).is_file():
            names = [WEIGHTS]
        else:
            index = read_json(self.folder / INDEX, self.name)
            names = sorted({str(name) for name in dict(index.get("weight_map") or {}).values()})
            if any(Path(name).name != name or not name.endswith(".safetensors") for name in names):
                raise ModelError(f"{self.name}: {INDEX} names files outside the folder or of another kind")
            for name in names:
                if not (self.folder / name).is_file():
                    raise ModelError(f"{self.name}: has no {name}, one of {len(names)} parts; {COPY}")
        return tuple(self.folder / name for name in names if (self.folder / name).is_file())

    @cached_property
    def header(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and type (``F32``, ``BF16`` ...) of every weight by its name, without reading one.

        Raises:
            ModelError: a file is cut short or damaged.
        """
        entries = {}
        for path in self.weights:
            try:
                with safe_open(str(path), framework="np") as handle:  # compares the header with the size of the file
                    for key in handle.keys():  # noqa: SIM118
                        part = handle.get_slice(key)
                        entries[key] = tuple(part.get_shape()), str(part.get_dtype())
            except (SafetensorError, OSError) as error:
                raise ModelError(f"{path}: is damaged ({one_line(error)}); {COPY}") from None
        return entries

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every weight by its name."""
        return {key: shape for key, (shape, _) in self.header.items()}

    @property
    def config(self) -> dict[str, Any]:
        """Its ``config.json``; empty where there is none, as beside most adapters."""
        path = self.folder / "config.json"
        return read_json(path, self.name) if path.is_file() else {}

    @cached_property
    def files(self) -> dict[str, str]:
        """sha256 of every file that is read, by name.

        Raises:
            ModelError: weights from the hub are not those that the hub announced.
        """
        digests = {}
        for path in (*(self.folder / name for name in TEXTS), *self.weights):
            if path.is_file():
                with path.open("rb") as handle:
                    digests[path.name] = hashlib.file_digest(handle, "sha256").hexdigest()
        for path in self.weights:
            blob = path.resolve()  # the cache names a large file by its sha256
            if self.revision and len(blob.name) == 64 and blob.name != digests[path.name]:
                raise ModelError(f"{blob}: is not what the hub announced (sha256 differs); delete it and run again")
        return digests

    @property
    def sha256(self) -> str:
        """Digest of all weights; that of the file if there is one."""
        digests = [self.files[path.name] for path in self.weights]
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()

    def base(self) -> str:
        """The model that an adapter belongs to: a folder (from here, or from the adapter's folder) or a hub id."""
        settings = read_json(self.folder / ADAPTER_CONFIG, self.name)
        if settings.get("peft_type") != "LORA":
            raise ModelError(
                f"{self.name}: adapters of the kind {settings.get('peft_type')!r} are not supported; LoRA is"
            )
        base = settings.get("base_model_name_or_path")
        if not isinstance(base, str) or not base:
            raise ModelError(f"{self.name}: {ADAPTER_CONFIG} names no base_model_name_or_path; add it")
        here, beside = Path(base), self.folder / base
        # As peft, from here; but not some other folder of that name, where the adapter's own has a model in it.
        held = (here / "config.json").is_file() or not (beside / "config.json").is_file()
        return base if held and (here.is_dir() or not beside.is_dir()) else str(beside)


def embedded_folder() -> Path:
    """The folder of the model that travels with the package."""
    return Path(str(resources.files("plmscope") / "embedded" / "model"))


def local_folder(name: str) -> Path | None:
    """The folder of a checkpoint that is on the disk; of a run folder that of its fine-tuned model; else ``None``."""
    folder = embedded_folder() if name == EMBEDDED else Path(os.path.expanduser(name))  # Path's raises
    try:
        if not folder.is_dir():
            return None
    except OSError:  # too long for a name
        return None
    of_run = (folder / "manifest.json").is_file() and (folder / "model" / "config.json").is_file()
    return folder / "model" if of_run and not (folder / "config.json").is_file() else folder


def _is_file(name: str) -> bool:
    """Whether a name is that of a file on the disk."""
    try:
        return Path(os.path.expanduser(name)).is_file()
    except OSError:  # too long for a name
        return False


def _of_file(path: Path) -> str:
    """What to do where a file is given in place of its folder."""
    if _FAIR_ESM.match(path.name):
        same = re.sub(r"(-contact-regression)?\.pt$", "", path.name)
        return f"is a pickle, which plmscope never opens; the same model is facebook/{same} on the hub, name that"
    if (path.parent / "config.json").is_file() or (path.parent / ADAPTER_CONFIG).is_file():
        return f"is a file; name the folder that it is in, {path.parent}"
    return "is a file; name a folder that has it with the config.json and the vocabulary of its model"


def read_json(path: Path, name: str) -> dict[str, Any]:
    """A JSON object of a checkpoint.

    Raises:
        ModelError: it is not JSON, or not an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{name}: {path.name} is not JSON ({one_line(error)}); {COPY}") from None
    if not isinstance(content, dict):
        raise ModelError(f"{name}: {path.name} is not a JSON object; {COPY}")
    return content


#: What a library raises when a file says something impossible.
_UNREADABLE = (
    OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError, StrictDataclassError,
)  # fmt: skip


def built(name: str, build: Callable[[], T]) -> T:
    """What a library builds out of files, or one line that says why it does not."""
    try:
        return build()
    except _UNREADABLE as error:
        raise ModelError(f"{name}: {one_line(error)}") from None


# --- checks


def _check_texts(found: Checkpoint) -> None:
    """Refuse a folder without configuration or vocabulary, with code of its own or an impossible configuration."""
    name, folder = found.name, found.folder
    for text in TEXTS:
        if text.endswith(".json") and (folder / text).is_file():
            content = read_json(folder / text, name)
            if content.get("auto_map"):
                raise ModelError(
                    f"{name}: {text} asks for code that comes with the model (auto_map), which plmscope never runs; "
                    "if the model is one of transformers' own, remove auto_map in a copy of the folder and name that"
                )
    if found.is_adapter:
        if (folder / WEIGHTS).is_file() or (folder / INDEX).is_file():
            raise ModelError(f"{name}: holds a model and an adapter; put {ADAPTER_CONFIG} and its weights elsewhere")
        _check_classes(found)
        return
    if not (folder / "config.json").is_file():
        inside = next((path for path in sorted(folder.glob("checkpoint-*")) if (path / "config.json").is_file()), None)
        advice = "name a Hugging Face model folder"
        if inside:
            advice = f"name one of its checkpoints, such as {inside}"
        elif _pickles(folder) or found.weights:
            advice = "copy config.json and the vocabulary of the model that it was made from into it"
        raise ModelError(f"{name}: has no config.json; {advice}")
    _check_config(found)
    if not any((folder / vocabulary).is_file() for vocabulary in ("vocab.txt", "tokenizer.json")):
        raise ModelError(f"{name}: has neither vocab.txt nor tokenizer.json; {_vocabulary(found)}")


def _check_config(found: Checkpoint) -> None:
    """Refuse sizes that are no numbers, or that no model has."""
    config = read_json(found.folder / "config.json", found.name)
    for key, value in config.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ModelError(f"{found.name}: config.json: {key} = {value!r}; {COPY}")
    for key, most in SIZES.items():
        value = config.get(key, 1)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise ModelError(
                f"{found.name}: config.json: {key} = {value!r}, must be a whole number from 1 to {most:,}; {COPY}"
            )
    if config.get("hidden_size", 0) % config.get("num_attention_heads", 1):
        raise ModelError(
            f"{found.name}: config.json: hidden_size = {config['hidden_size']} is no multiple of "
            f"num_attention_heads = {config['num_attention_heads']}; {COPY}"
        )
    _check_classes(found)
    if config.get("quantization_config"):
        raise ModelError(f"{found.name}: its weights are quantised, which is not supported; name the original model")


def _check_classes(found: Checkpoint) -> None:
    """Refuse class names that are not numbered from 0, or numbered otherwise in ``label2id``."""
    classes = found.config.get("id2label") or {}
    if not isinstance(classes, dict) or sorted(classes) != sorted(map(str, range(len(classes)))):
        raise ModelError(f"{found.name}: config.json: id2label does not number its classes from 0; correct it")
    given = found.config.get("label2id")
    other = given if isinstance(given, dict) else {}
    for number, one in classes.items():
        if str(other.get(str(one), number)) != number and [*classes.values()].count(one) == 1:
            raise ModelError(
                f"{found.name}: config.json has the class {shown(str(one))} as output {number} by id2label, as output "
                f"{other[str(one)]} by label2id; correct one of them"
            )


def _check_weights(found: Checkpoint) -> None:
    """Refuse weights that are missing, pickled, cut short, or far fewer than the configuration asks for."""
    if not found.weights:
        if pickles := _pickles(found.folder):
            raise ModelError(f"{found.name}: {PICKLED}; {_conversion(found, pickles)}")
        wanted = ADAPTER if found.is_adapter else WEIGHTS
        raise ModelError(f"{found.name}: has no {wanted}; the folder is incomplete, {COPY}")
    total = sum(math.prod(shape) for shape in found.shapes.values())
    if not found.is_adapter:
        layers, hidden, inner = (int(found.config.get(key, 0)) for key in list(SIZES)[:3])
        if (asked := layers * (4 * hidden**2 + 2 * hidden * inner)) > 1.5 * total:
            raise ModelError(
                f"{found.name}: config.json asks for {asked:,} weights or more, the files hold {total:,}; "
                "one of them is of another model, copy or download both again"
            )


# --- what is in another form, and the command that mends it


def _pickles(folder: Path) -> list[Path]:
    """Pickled weights; what a trainer pickles beside them is none."""
    pickles = sorted(path for path in folder.iterdir() if path.suffix in PICKLES and not _NO_WEIGHTS.match(path.name))
    of_weights = [path for path in pickles if path.name.startswith(("pytorch_model", "adapter_model"))]
    return of_weights or pickles[-1:]


def _conversion(found: Checkpoint, pickles: list[Path]) -> str:
    """The command that converts pickles, in the folder; of a hub's cache the one that copies them out of it first."""
    if found.revision:
        return _copied(found.name, found.revision)
    whole = (found.folder / (ADAPTER if found.is_adapter else WEIGHTS)).absolute()
    files = ", ".join(json.dumps(str(path.absolute()), ensure_ascii=False) for path in pickles)
    code = (
        "import torch; from safetensors.torch import save_file; w = dict(); "
        f'[w.update(torch.load(file, map_location="cpu", weights_only=True)) for file in [{files}]]; '
        'w = w.get("state_dict", w.get("model_state_dict", w)); '
        "save_file(dict((k, v.contiguous().clone()) for k, v in w.items() if torch.is_tensor(v)), "
        f'{json.dumps(str(whole), ensure_ascii=False)}, dict(format="pt"))'
    )
    return f"convert them where you trust them: python -c {shlex.quote(code)}"


def _copied(name: str, revision: str | None) -> str:
    """How to get a repository of the hub as a folder, in which its pickles can be converted."""
    folder = name.rpartition("/")[2]
    return (
        f"name a revision that has safetensors, or convert them where you trust them: {_download(name, revision)} "
        f"--local-dir {folder}, then name {folder} here"
    )


def _download(name: str, revision: str | None) -> str:
    """The command that gets a repository of the hub, of the same revision."""
    return f"hf download {name}" + (f" --revision {shlex.quote(revision)}" if revision else "")


def _vocabulary(found: Checkpoint) -> str:
    """Where a vocabulary comes from: of a model that was saved without its tokenizer it is that of its base."""
    if found.revision:
        return COPY
    base = str(found.config.get("_name_or_path") or "")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", base):
        base = {"esm": "facebook/esm2_t6_8M_UR50D", "bert": "Rostlab/prot_bert"}.get(
            str(found.config.get("model_type")), ""
        )
    command = f"hf download {base} vocab.txt tokenizer_config.json --local-dir {shlex.quote(str(found.folder))}"
    return "copy vocab.txt and tokenizer_config.json of the model that it was made from into it" + (
        f", such as with: {command}" if base else ""
    )


# --- the hub
