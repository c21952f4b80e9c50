"""Fine-tune a protein language model to classify sequences.

Hugging Face's ``Trainer`` does the work: cross-entropy with class weights ``n / (C n_c)`` (multi-label: binary
cross-entropy, the ``n_c`` proteins of a class weighted ``(n - n_c) / n_c``), AdamW, linear decay after a warm-up, a
checkpoint an epoch, early stopping on the validation set's balanced accuracy, and mixed precision where the hardware
has it. Batches hold proteins of near length under a token budget.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import EvalPrediction

from plmscope.data.labels import BoolArray, LabelTask, pack
from plmscope.data.proteins import Protein
from plmscope.errors import ModelError
from plmscope.models.classifier import Classifier
from plmscope.models.lora import require_peft, with_adapters
from plmscope.models.spread import is_spread
from plmscope.models.workers import out_of_memory
from plmscope.progress import Track, silent
from plmscope.stats.metrics import metric


@dataclass(frozen=True)
class Training:
    """How to fine-tune.

    Attributes:
        epochs: At most this many passes over the training proteins.
        learning_rate: Peak rate of AdamW.
        token_budget: Padded tokens a batch.
        class_weights: Weigh classes inversely to their frequency.
        patience: Epochs without a better validation balanced accuracy before stopping.
        seed: Seeds the head, the order of batches and everything else.
        lora_rank: Train LoRA adapters of this rank and the head alone, and merge them; 0: all weights.
        frozen_layers: The embeddings and this many first layers stay as they are; 0: everything is trained.
    """

    epochs: int = 10
    learning_rate: float = 2e-4
    token_budget: int = 4096
    class_weights: bool = True
    patience: int = 3
    seed: int = 0
    lora_rank: int = 0
    frozen_layers: int = 0


class _Encoded(torch.utils.data.Dataset[tuple[np.ndarray, Any]]):
    """Token ids and target of every protein: its class number, or ``(C,)`` booleans in a multi-label task."""

    def __init__(self, classifier: Classifier, proteins: Sequence[Protein]) -> None:
        self.ids = [classifier.encode(protein.sequence) for protein in proteins]
        self.targets = classifier.targets(proteins)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> tuple[np.ndarray, Any]:
        return self.ids[row], self.targets[row]


class _TokenBatches(torch.utils.data.Sampler[list[int]]):
    """Batches of near length under a token budget; new ones every epoch, as many in each, the same for a seed."""

    def __init__(self, lengths: Sequence[int], token_budget: int, seed: int) -> None:
        self.lengths, self.seed, self.epoch = np.asarray(lengths), seed, 0
        self.cuts, start = [], 0
        descending = np.sort(self.lengths)[::-1]
        while start < len(descending):
            stop = start + max(1, int(token_budget // (1.1 * descending[start])))  # room for those that swap places
            self.cuts.append((start, min(stop, len(descending))))
            start = stop

    def __len__(self) -> int:
        return len(self.cuts)

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        # Lengths within 10 % may swap places: enough to mix the batches, too little to waste padding.
        order = np.argsort(-self.lengths * rng.uniform(1, 1.1, len(self.lengths)), kind="stable")
        for batch in rng.permutation(len(self.cuts)):
            start, stop = self.cuts[batch]
            yield order[start:stop].tolist()


class _Trainer(Trainer):
    """The stock trainer with token-budget batches and class weights."""

    def __init__(
        self, *args: Any, sampler: _TokenBatches, weights: torch.Tensor | None, task: LabelTask, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.sampler, self.weights, self.task = sampler, weights, task

    def get_train_dataloader(self) -> torch.utils.data.DataLoader[Any]:
        return torch.utils.data.DataLoader(
            cast(_Encoded, self.train_dataset), batch_sampler=self.sampler, collate_fn=self.data_collator
        )

    def compute_loss(  # type: ignore[override]  # the stock signature, its last argument unused
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, **_: Any
    ) -> Any:
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        weights = None if self.weights is None else self.weights.to(outputs.logits.device)
        if self.task == "multi":
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                outputs.logits.float(), labels.float(), pos_weight=weights
            )
        else:
            loss = torch.nn.functional.cross_entropy(outputs.logits.float(), labels, weight=weights)
        return (loss, outputs) if return_outputs else loss

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        # The stock method writes the names of ESM's first release (LayerNorm.gamma), which the trainer does not know
        # when it reads a checkpoint back: every LayerNorm would silently stay as it is.
        model: Any = self.model
        model.save_pretrained(output_dir, state_dict=state_dict, save_original_format=False)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        # The stock method warns, and goes on with weights that are not those of the checkpoint.
        wrong = [*load_result.missing_keys, *load_result.unexpected_keys]
        if wrong:
            raise ModelError(
                f"{self.args.output_dir}: a checkpoint has other weights than the model, first {wrong[0]!r}; "
                "delete the folder and train again"
            )


class _Watch(TrainerCallback):
    """Tells the sampler its epoch and the outside world every step."""

    def __init__(self, sampler: _TokenBatches, track: Track) -> None:
        self.sampler, self.track = sampler, track
        self.steps: Iterator[int] = iter(())

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.steps = self.track(
            range(state.global_step, state.max_steps), "fine-tuning", state.max_steps - state.global_step
        )

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.sampler.epoch = round(state.epoch or 0)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        next(self.steps, None)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        for _step in self.steps:  # early stopping: let the bar finish
            pass


def finetune(
    classifier: Classifier,
    train: Sequence[Protein],
    validation: Sequence[Protein],
    checkpoints: Path,
    training: Training,
    track: Track = silent,
) -> pd.DataFrame:
    """Train all weights, or LoRA adapters that are then merged, in place; leave those of the best validation epoch.

    Args:
        classifier: Loaded with ``labels``; changed in place.
        train: Labelled training proteins.
        validation: Labelled; decides when to stop and which epoch is kept, nothing else.
        checkpoints: Folder for one checkpoint an epoch; a stopped training continues from the last whole one.
        training: Settings.
        track: Progress.

    Returns:
        One row an epoch: ``epoch, train_loss, validation_loss, validation_balanced_accuracy``.

    Raises:
        ModelError: the loss became NaN (lower the learning rate), peft is missing, more layers are frozen than there
            are, or the model is spread over several devices.
    """
    if is_spread(classifier.model):
        raise ModelError(
            f"{classifier.name}: device 'auto' has spread it over several devices, where it is not trained; set "
            "finetune.epochs = 0 to take its head as it is, or use cuda with finetune.lora_rank"
        )
    data = {"train": _Encoded(classifier, train), "validation": _Encoded(classifier, validation)}
    weights = torch.tensor(class_weights(classifier.membership(train), classifier.task), dtype=torch.float32)
    sampler = _TokenBatches([len(ids) for ids in data["train"].ids], training.token_budget, training.seed)
    longest = max(len(ids) for ids in data["validation"].ids)
    cuda = classifier.device.type == "cuda"
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False) if cuda else torch.cpu._is_avx512_bf16_supported()
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=training.epochs,
        learning_rate=training.learning_rate,
        weight_decay=0.01,
        warmup_steps=max(1, len(sampler) // 2),
        lr_scheduler_type="linear",
        per_device_eval_batch_size=max(1, training.token_budget // longest),
        restore_callback_states_from_checkpoint=True,  # else a continued training forgets the epochs without progress
        eval_strategy="epoch",
        save_strategy="epoch",
        logging_strategy="epoch",
        logging_nan_inf_filter=False,  # a loss that is no number must be seen
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="balanced_accuracy",
        greater_is_better=True,
        seed=training.seed,
        data_seed=training.seed,
        bf16=bool(bf16),
        use_cpu=not cuda,
        disable_tqdm=True,
        report_to="none",
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
    stay_on(classifier.device, arguments)

    def collate(rows: list[tuple[np.ndarray, Any]]) -> dict[str, torch.Tensor]:
        width = max(len(ids) for ids, _ in rows)
        ids = torch.full((len(rows), width), classifier.tokenizer.pad_token_id, dtype=torch.long)
        for row, (one, _) in enumerate(rows):
            ids[row, : len(one)] = torch.from_numpy(one)
        mask = (torch.arange(width) < torch.tensor([len(one) for one, _ in rows]).unsqueeze(1)).long()
        targets = torch.from_numpy(np.array([target for _, target in rows]))
        return {"input_ids": ids, "attention_mask": mask, "labels": targets}

    _train_above(classifier, training.frozen_layers)
    adapters = None
    if training.lora_rank:
        require_peft()
        adapters = with_adapters(classifier.model, classifier.architecture, training.lora_rank, training.seed)
    trainer = _Trainer(
        model=classifier.model,
        args=arguments,
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        data_collator=collate,
        compute_metrics=_validation_metrics,
        callbacks=[EarlyStoppingCallback(training.patience), _Watch(sampler, track)],
        sampler=sampler,
        weights=weights if training.class_weights else None,
        task=classifier.task,
    )
    for callback in list(trainer.callback_handler.callbacks):
        if type(callback).__name__ in ("PrinterCallback", "ProgressCallback"):
            trainer.remove_callback(callback)
    last = _last_whole_checkpoint(checkpoints)
    if last is not None and (stopped := _stopped_early(last, training.patience)):
        arguments.num_train_epochs = stopped  # the trainer would go on for another epoch
    try:
        trainer.train(resume_from_checkpoint=last)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise ModelError(
            f"fine-tuning ran out of memory; lower [finetune] token_budget ({training.token_budget}) or "
            "data.max_length, set lora_rank, or use a device with more memory"
        ) from None
    if adapters is not None:
        classifier.model = adapters.merge_and_unload()
    classifier.freeze()
    log = _log_table(trainer.state.log_history)
    if not np.isfinite(log["train_loss"]).all():
        raise ModelError(f"fine-tuning gave a loss of NaN; lower [finetune] learning_rate ({training.learning_rate!r})")
    return log


def _train_above(classifier: Classifier, frozen: int) -> None:
    """Training mode, with the embeddings and the first ``frozen`` layers left out of the backward pass.

    Raises:
        ModelError: there are not so many layers.
    """
    model, place = classifier.model, classifier.architecture
    model.requires_grad_(True).train()
    layers = model.get_submodule(place.layers)
    if not frozen:
        return
    if frozen > len(layers):  # type: ignore[arg-type]
        raise ModelError(f"[finetune] frozen_layers = {frozen}: the model has {len(layers)} layers; lower it")  # type: ignore[arg-type]
    model.get_submodule(place.embeddings).requires_grad_(False)
    for layer in layers[:frozen]:  # type: ignore[index]
        layer.requires_grad_(False)


def stay_on(device: torch.device, arguments: TrainingArguments) -> None:
    """Train where the model is: by itself the trainer takes the first GPU, or splits batches over all of them."""
    if device.type == "cuda":
        vars(arguments)["_setup_devices"] = device  # what the property ``device`` has found
        arguments._n_gpu = 1
        torch.cuda.set_device(device)  # the accelerator's own


def class_weights(members: BoolArray, task: LabelTask) -> np.ndarray:
    """Weights ``(C,)`` that give every class the same say, from the training proteins' membership.

    Single-label: ``n / (C n_c)`` for the proteins of class c. Multi-label: ``(n - n_c) / n_c`` for those that have
    it, beside 1 for those that do not. A class without proteins counts as one with a single protein.
    """
    n, counts = len(members), np.maximum(members.sum(0), 1)
    weights: np.ndarray = n / (members.shape[1] * counts) if task == "single" else np.maximum(n - counts, 1) / counts
    return weights


def _validation_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Balanced accuracy, for early stopping."""
    logits, true = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
    answers = pack(logits > 0) if true.ndim == 2 else logits.argmax(-1)
    return {"balanced_accuracy": metric("balanced_accuracy", true, answers, np.zeros(len(true)), logits.shape[1])}


def _last_whole_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint with all its files; one that was cut short is removed."""
    newest_first = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), reverse=True)
    for path in newest_first:
        # trainer_state.json is the last file that the trainer writes, and it is JSON to its last byte or cut short.
        state = path / "trainer_state.json"
        if state.is_file() and state.read_text().rstrip().endswith("}") and _are_whole(path):
            return str(path)
        shutil.rmtree(path)
    return None


def _are_whole(checkpoint: Path) -> bool:
    """Whether weights, optimizer, schedule and random states are there to their last byte."""
    saved = [checkpoint / "optimizer.pt", checkpoint / "scheduler.pt", *checkpoint.glob("rng_state*")]
    weights = list(checkpoint.glob("*.safetensors"))
    if len(saved) < 3 or not weights or not all(zipfile.is_zipfile(path) for path in saved):
        return False
    try:
        for path in weights:
            with safe_open(str(path), framework="pt"):  # compares the header with the size of the file
                pass
    except (SafetensorError, OSError):
        return False
    return True


def _stopped_early(checkpoint: str, patience: int) -> int:
    """Number of epochs after which training had stopped for lack of progress; 0 if it had not."""
    state = json.loads((Path(checkpoint) / "trainer_state.json").read_text())
    saved = state.get("stateful_callbacks", {}).get("EarlyStoppingCallback", {}).get("attributes", {})
    return round(state["epoch"]) if saved.get("early_stopping_patience_counter", 0) >= patience else 0


def _log_table(history: list[dict[str, float]]) -> pd.DataFrame:
    """One row an epoch out of the trainer's log."""
    rows: dict[int, dict[str, float]] = {}
    for entry in history:
        row = rows.setdefault(round(entry["epoch"]), {})
        if "loss" in entry:
            row["train_loss"] = entry["loss"]
        if "eval_loss" in entry:
            row["validation_loss"] = entry["eval_loss"]
            row["validation_balanced_accuracy"] = entry["eval_balanced_accuracy"]
    columns = ["train_loss", "validation_loss", "validation_balanced_accuracy"]
    frame = pd.DataFrame.from_dict(rows, orient="index").reindex(columns=columns)
    return frame.rename_axis("epoch").reset_index()
