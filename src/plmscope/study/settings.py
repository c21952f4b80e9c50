"""The study file: every setting with its default, its meaning and its range.

Reading refuses unknown keys (and names the nearest known one) and impossible values; writing puts the meaning beside
every key, so that ``study.toml`` in a run folder explains itself.

One file although it is long: it is the list of all settings.

>>> Study().split.identity
0.3
"""

from __future__ import annotations

import json
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from plmscope.data.labels import LabelTask
from plmscope.errors import shown
from plmscope.knowledge.concepts import KINDS, Kind
from plmscope.scoring.scores import ranked_by
from plmscope.scoring.table import described
from plmscope.study.rules import check_possible

#: Null models: the same pipeline on shuffled labels, and from random weights.
NULLS = ("label_shuffled", "random_weights")
#: The largest seed that NumPy and scikit-learn take.
MAX_SEED = 2**32 - 1
_CALLED = {int: "a whole number", float: "a number", bool: "true or false"}


class SettingsSection(BaseModel):
    """A table of the study file; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _of_its_type(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse ``"5"`` and true for 5, and 1 for true, which pydantic takes; its strict mode takes no list either."""
        wanted: Any = cls.model_fields[str(info.field_name)].annotation
        kind = get_args(wanted)[0] if get_origin(wanted) is tuple else wanted
        for one in value if isinstance(value, list | tuple) else [value]:
            if kind in _CALLED and (isinstance(one, str) or isinstance(one, bool) != (kind is bool)):
                given = shown(one) if isinstance(one, str) else json.dumps(one, default=str)[:60]
                raise ValueError(f"{given} is not {_CALLED[kind]}")
        return value


#: Settings that change how much memory and time is needed, and results by rounding at most. The token budget of
#: fine-tuning is none of these: it is the size of a batch.
MEMORY = frozenset({"score.token_budget", "score.recompute", "evaluate.token_budget", "characterize.token_budget"})
#: Names of files, which are known by what is in them: they may be moved.
FILES = frozenset({"data.path", "data.labels", "model.checkpoint", "characterize.features", "characterize.structures"})
#: Settings that no result depends on.
WITHOUT_EFFECT = MEMORY | FILES


class DataSection(SettingsSection):
    """Which proteins."""

    path: str = Field(
        "plmscope:enzymes",
        min_length=1,
        description="FASTA, CSV, TSV, Parquet, JSON lines or Swiss-Prot flat file (.gz .bz2 .xz .zst too), a folder of "
        "such, -, plmscope:enzymes or plmscope:families",
    )
    label: str = Field(
        "ec:1",
        min_length=1,
        description="ec:1 to ec:4, a column, columns with 1 or 0 joined by a comma, header:PATTERN with one group, or "
        "file: one of the folder",
    )
    labels: str = Field("", description="second table with columns about the proteins, by id; empty: none")
    task: LabelTask | Literal[""] = Field(
        "",
        description="single: one class a protein; multi: one or more, joined by ; in a column; empty: as the "
        "checkpoint says, else single",
    )
    ec_column: str = Field("", description="EC numbers: a column or header:PATTERN; empty: ec, EC number, EC")
    separator: str = Field(";", min_length=1, description="between the classes of one protein, where task = multi")
    id_column: str = Field("", description="ids in a table; empty: id, Entry or accession")
    sequence_column: str = Field("", description="sequences in a table; empty: sequence or Sequence")
    classes: tuple[str, ...] = Field((), description="proteins with another class are left out; empty: none are")
    min_per_class: int = Field(1, ge=1, description="proteins of classes with fewer are left out and counted")
    duplicates: Literal["error", "first", "keep", "join"] = Field(
        "first", description="equal sequences: error, first: others are left out and counted, keep, join: their classes"
    )
    min_length: int = Field(30, ge=1, description="shorter proteins are left out and counted")
    max_length: int = Field(1022, ge=1, description="the longest protein in residues")
    too_long: Literal["error", "skip", "windows"] = Field(
        "error", description="error, skip: left out and counted, windows: of max_length residues, in one set"
    )
    other_letters: Literal["error", "skip"] = Field(
        "error", description="sequences with * inside, - or other letters that are no residue: error, skip: left out"
    )
    window_overlap: int = Field(256, ge=0, description="residues that two windows share, at least")

    @property
    def task_or_single(self) -> LabelTask:
        """The task; ``single`` where it is left open, which a study's first stage settles by the checkpoint."""
        return self.task or "single"


class SplitSection(SettingsSection):
    """Train, validation and test."""

    method: Literal["cluster", "random", "column"] = Field("cluster", description="cluster, random or column")
    identity: float = Field(0.3, ge=0, le=1, description="sequence identity of the clusters")
    coverage: float = Field(0.8, ge=0, le=1, description="share of a member that has to align")
    train: float = Field(0.7, gt=0, lt=1, description="share of every class")
    validation: float = Field(0.15, gt=0, lt=1, description="share of every class")
    test: float = Field(0.15, gt=0, lt=1, description="share of every class")
    held_out: str = Field(
        "",
        description="column: only clusters marked 1 there are tested on; empty: none, or the embedded proteins' own",
    )
    column: str = Field("split", description="what method = column reads; file: one of the folder")
    test_folds: tuple[str, ...] = Field(
        (), description="values of column that are test, where it has folds; all others are train; empty: it names sets"
    )
    validation_folds: tuple[str, ...] = Field((), description="and those that are validation; empty: drawn from train")
    cluster_column: str = Field("", description="column with clusters made elsewhere; empty: MMseqs2's, or none")

    @field_validator("test_folds", "validation_folds", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        """Folds are numbers or names; a column has both as text."""
        whole = isinstance(value, list | tuple)
        return (
            [str(one) if isinstance(one, int) and not isinstance(one, bool) else one for one in value]
            if whole
            else value
        )

    @model_validator(mode="after")
    def _sum(self) -> SplitSection:
        if abs(self.train + self.validation + self.test - 1) > 1e-9:
            raise ValueError(f"train + validation + test = {self.train + self.validation + self.test:g}, must be 1")
        return self


class ModelSection(SettingsSection):
    """Which protein language model."""

    checkpoint: str = Field(
        "plmscope:embedded", min_length=1, description="plmscope:embedded, a folder, or a Hugging Face hub id"
    )
    revision: str = Field("", description="hub revision: a branch, tag or commit; empty: the newest")
    pooling: Literal["", "first", "mean"] = Field(
        "",
        description="what the head reads: first, the first token, or mean, the mean of the residues; empty: as the "
        "checkpoint says, else first",
    )
    classes: tuple[str, ...] = Field(
        (), description="names of the outputs of a trained head, in their order; empty: those of its config.json"
    )
    new_head: bool = Field(False, description="true: a new head also where the checkpoint has one for these classes")


class FinetuneSection(SettingsSection):
    """Classification."""

    epochs: int = Field(10, ge=0, description="at most; 0: the checkpoint is a classifier, taken as it is")
    learning_rate: float = Field(2e-4, gt=0, description="peak of AdamW")
    token_budget: int = Field(4096, ge=1, description="padded tokens a batch")
    class_weights: bool = Field(True, description="weigh classes inversely to their frequency")
    patience: int = Field(3, ge=1, description="epochs without a better validation balanced accuracy")
    lora_rank: int = Field(0, ge=0, le=1024, description="rank of LoRA adapters, merged at the end; 0: all weights")
    frozen_layers: int = Field(0, ge=0, description="embeddings and first layers that stay as they are; 0: none")


class ScoreSection(SettingsSection):
    """Which scores, and on how many training proteins."""

    methods: tuple[str, ...] = Field(
        ("activation", "activation_std", "activation_contrast", "integrated_gradients"),
        min_length=1,
        description=described(),
    )
    ranking: Literal["absolute", "rms", "class_means", "signed"] = Field(
        "absolute",
        description="what scores with a sign are ranked by, to keep and to ablate: absolute (mean over proteins of "
        "absolute token sums), rms (root mean square), class_means (mean of absolute class means), signed",
    )
    target: Literal["log_odds", "logit", "log_probability"] = Field("log_odds", description="of the true class")
    baseline: Literal["zero", "mean"] = Field(
        "zero", description="what gradients are multiplied by the difference from: where an integration path starts"
    )
    points: int = Field(0, ge=0, description="quadrature points of an integrated-gradients path; 0: as tolerance asks")
    conductance_points: int = Field(
        0, ge=0, multiple_of=2, description="intervals of the conductance path; 0: as tolerance asks"
    )
    tolerance: float = Field(
        0.05, gt=0, lt=1, description="of the completeness gap, the estimated error and the best 5 %, where points = 0"
    )
    proteins_per_class: int = Field(32, ge=1, description="training proteins, each from another cluster")
    mean_proteins_per_class: int = Field(
        200, ge=1, description="training proteins, each from another cluster, that ablation means are taken over"
    )
    corruption: Literal["conservative", "shuffled"] = Field(
        "conservative",
        description="copies of attribution patching and relp: every residue replaced by a similar one, or their order",
    )
    copies: int = Field(2, ge=1, description="corrupted copies a protein of attribution patching and relp")
    recompute: bool = Field(False, description="run layers again in the backward pass: less memory, a third more time")
    token_budget: int = Field(2048, ge=0, description="tokens times points at once; 0: by free memory")

    def ranked_by(self, method: str) -> str:
        """The score that selections by a method are ranked by."""
        return ranked_by(method, self.ranking)

    @property
    def columns(self) -> tuple[str, ...]:
        """Every score that is computed: the methods, and what they are ranked by."""
        return tuple(dict.fromkeys([*self.methods, *map(self.ranked_by, self.methods)]))


class EvaluateSection(SettingsSection):
    """The grid of selections."""

    methods: tuple[str, ...] = Field((), description="which of score.methods are judged; empty: all of them")
    fractions: tuple[float, ...] = Field(
        (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.8), min_length=1, description="shares kept or ablated, increasing, below 1"
    )
    modes: tuple[Literal["keep", "ablate"], ...] = Field(
        ("keep", "ablate"), min_length=1, description="keep a selection (ablate all others), or ablate it"
    )
    ablations: tuple[Literal["mean", "zero", "resample"], ...] = Field(
        ("mean", "zero"), min_length=1, description="what an ablated neuron is held at; resample: its values in donors"
    )
    scopes: tuple[Literal["pooled", "per_site", "module"], ...] = Field(
        ("pooled", "per_site", "module"),
        min_length=1,
        description="rank all neurons together, within each site, or within each module kind with all others intact",
    )
    controls: tuple[Literal["random", "random_matched", "random_active"], ...] = Field(
        ("random", "random_matched", "random_active"), min_length=1, description="what the methods are compared with"
    )
    draws: int = Field(
        199, ge=2, description="draws of random_matched in the primary cells: keep, mean, pooled and within keys"
    )
    draws_elsewhere: int = Field(
        20, ge=2, description="draws of other controls and in every other cell; below 20 their rows are no tests"
    )
    module_fractions: tuple[float, ...] = Field(
        (0.05, 0.1, 0.2, 0.5), min_length=1, description="scope module: shares of a kind, increasing, below 1"
    )
    module_modes: tuple[Literal["keep", "ablate"], ...] = Field(
        ("keep", "ablate"), min_length=1, description="scope module: as modes"
    )
    module_ablations: tuple[Literal["mean", "zero", "resample"], ...] = Field(
        ("mean",), min_length=1, description="scope module: as ablations"
    )
    module_controls: tuple[Literal["random", "random_matched", "random_active"], ...] = Field(
        ("random_matched",), min_length=1, description="scope module: as controls, within the kind"
    )
    module_draws: int = Field(
        119, ge=2, description="scope module, keep, mean: draws of random_matched in kinds other than keys"
    )
    donors: int = Field(4, ge=1, description="resample: training proteins of other classes, the nearest in length")
    max_proteins: int = Field(
        0, ge=0, description="test proteins of distinct clusters, the same of each class, rounded up; 0: all"
    )
    token_budget: int = Field(2048, ge=1, description="padded tokens a batch")


class DensitySection(SettingsSection):
    """Where the best neurons are."""

    fractions: tuple[float, ...] = Field(
        (0.01, 0.02, 0.05, 0.1), min_length=1, description="shares whose places are counted, increasing"
    )
    bootstraps: int = Field(200, ge=0, description="resamples of the scoring proteins for the intervals")
    nulls: tuple[Literal["label_shuffled", "random_weights"], ...] = Field(
        ("label_shuffled", "random_weights"),
        description="the same pipeline on shuffled labels, and from random weights",
    )
    null_models: int = Field(
        1, ge=1, description="fits of each null model; 19 for a counted p value of 0.05, each as dear as the first"
    )
    null_draws: int = Field(
        9, ge=0, description="draws a method and module kind in the null models, by kinds as the run; 0: left out"
    )
    halves: bool = Field(True, description="score two halves of the scoring clusters too: do both choose the same?")

    @property
    def several_fits(self) -> bool:
        """Whether null models are fitted more than once."""
        return bool(self.nulls) and self.null_models > 1

    @property
    def resampled(self) -> bool:
        """Whether scores are kept so that the scoring proteins can be resampled."""
        return self.bootstraps > 0


class CharacterizeSection(SettingsSection):
    """What each neuron detects."""

    enabled: bool = Field(True, description="false leaves this stage out")
    concepts: tuple[Kind, ...] = Field(KINDS, min_length=1, description="kinds that neurons are compared with")
    features: str = Field("", description="residue features: a table, Swiss-Prot flat file or GFF3; empty: none")
    structures: str = Field("", description="folder of PDB or mmCIF files named by protein ids; empty: none")
    patterns: tuple[str, ...] = Field((), description="more sequence patterns in PROSITE syntax, such as W-x-C")
    methods: tuple[str, ...] = Field((), description="whose best neurons get a card; empty: those that are judged")
    max_neurons: int = Field(1000, ge=1, description="cards a method, best neurons first")
    max_proteins: int = Field(3000, ge=0, description="from distinct clusters, a third to confirm; 0: all clusters")
    fractions: tuple[float, ...] = Field(
        (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4),
        min_length=1,
        max_length=16,
        description="shares of residues at which a neuron fires, increasing, below 0.5",
    )
    min_proteins: int = Field(10, ge=2, description="proteins of discovery that must have a concept; half to confirm")
    fdr: float = Field(0.05, gt=0, lt=1, description="q value below which a concept is confirmed")
    min_gain: float = Field(0.5, ge=0, le=1, description="F1 above that of firing everywhere, to be explained")
    min_auroc: float = Field(
        0.8, ge=0.5, le=1, description="or AUROC, with a lower bound half as far above 0.5 and an F1 gain above 0"
    )
    windows: int = Field(100, ge=5, description="windows of a motif, at most a quarter of the proteins")
    token_budget: int = Field(2048, ge=1, description="padded tokens a batch")


class DescribeSection(SettingsSection):
    """Formulas over concepts, and sentences that are scored."""

    enabled: bool = Field(True, description="false leaves this stage out")
    max_neurons: int = Field(200, ge=1, description="of those with a card, best ranks first")
    max_residues: int = Field(300_000, ge=1000, description="of discovery, and to confirm; proteins drawn by the seed")
    share: float = Field(0.005, gt=0, le=0.1, description="of residues where a neuron fires")
    min_residues: int = Field(100, ge=10, description="of discovery where a neuron fires, to be searched for a formula")
    length: int = Field(3, ge=1, le=5, description="concepts of a formula")
    beam: int = Field(10, ge=1, le=100, description="formulas of a length that are extended")
    null: bool = Field(True, description="search again on shifted residues, which takes as long")
    maximise: int = Field(0, ge=0, description="best neurons whose preferred window is made by gradient; 0: of none")
    llm: str = Field("", description="your program that writes sentences: JSON lines in, JSON lines out; empty: none")


class ProbeSection(SettingsSection):
    """What few neurons decide alone, in probes beside the model."""

    enabled: bool = Field(False, description="true asks it; plmscope probe RUN turns it on")
    concepts: tuple[str, ...] = Field(
        (), description="residue concepts beside the class; empty: the 3 features, or else patterns, of most proteins"
    )
    max_proteins: int = Field(1000, ge=10, description="on either side, one a cluster, drawn by the seed")
    residues: int = Field(1000, ge=40, description="of a concept, half of them marked; half as many held out")
    sizes: tuple[int, ...] = Field(
        (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000), description="numbers of neurons that a probe sees, beside all"
    )
    controls: int = Field(10, ge=0, description="control tasks, whose labels say nothing; 0: none")


class InterveneSection(SettingsSection):
    """Suppressing and enhancing the neurons of every class."""

    enabled: bool = Field(True, description="false leaves this stage out")
    methods: tuple[str, ...] = Field(
        (), description="scores that choose a class's neurons; empty: integrated_gradients, or what there is"
    )
    fraction: float = Field(0.02, gt=0, le=1, description="share of all neurons that is a class's")
    factors: tuple[float, ...] = Field(
        (0.5, 2.0, 4.0), description="what activations are multiplied by, beside 0 and the mean"
    )
    draws: int = Field(20, ge=2, description="matched draws for the mean, for zero and for the factor 2")
    neurons: int = Field(200, ge=0, description="best neurons that are suppressed one by one")
    proteins_per_class: int = Field(10, ge=1, description="test proteins for single neurons")


class LayoutSection(SettingsSection):
    """How knowledge is laid out."""

    parts: tuple[Literal["sufficient", "degenerate", "recall", "shared", "modularity"], ...] = Field(
        (),
        description="sufficient (the fewest that do it), degenerate (there twice), recall (why decisions are wrong), "
        "shared (by groups of proteins), modularity (apart); empty leaves this stage out",
    )
    methods: tuple[str, ...] = Field((), description="scores whose neurons are asked about; empty: those of evaluate")
    neurons: int = Field(64, ge=2, description="best neurons of a class that sets are made of")
    proteins_per_class: int = Field(10, ge=1, description="test proteins that sets of a class are judged on")
    baseline: Literal["mean", "masked"] = Field("mean", description="attributions start at: mean, or masked residues")
    group_column: str = Field("", description="groups of shared, such as a taxon; empty: clusters, dealt into three")
    experts: int = Field(60, ge=0, description="experts of modularity that are held one by one, the fullest first")
    pruning_statistics: tuple[
        Literal["mean_absolute", "root_mean_square", "standard_deviation", "share_positive"], ...
    ] = Field(
        ("mean_absolute",), min_length=1, description="how active a unit is in a class: what is pruned for it first"
    )
    pruning_modules: tuple[Literal["query", "key", "value", "attention_output", "intermediate", "output"], ...] = Field(
        ("intermediate", "value"), min_length=1, description="module kinds whose units are pruned for a class"
    )
    pruning_steps: tuple[float, ...] = Field(
        (0.05, 0.1, 0.2, 0.3, 0.5), min_length=1, description="shares of these units that are gone, increasing, below 1"
    )
    target: float = Field(0.9, gt=0, lt=1, description="share of what the model does that a sufficient set gives back")
    draws: int = Field(20, ge=2, description="matched draws; below 20 no p value can be below 0.05")


class FaithfulnessSection(SettingsSection):
    """Which scorer to trust."""

    enabled: bool = Field(False, description="false leaves this stage out")
    methods: tuple[str, ...] = Field(
        (), description="scorers that are compared with single ablation; empty: every one that fits nothing"
    )
    sample: int = Field(1000, ge=0, description="neurons that are ablated one by one, as many of every site; 0: all")
    proteins_per_class: int = Field(4, ge=1, description="training proteins that are scored, each from another cluster")
    fractions: tuple[float, ...] = Field(
        (0.05, 0.2, 0.5, 0.8), min_length=1, description="shares kept or ablated, increasing, below 1"
    )
    draws: int = Field(5, ge=1, description="random selections of every size")


class ReportSection(SettingsSection):
    """What the report shows."""

    knowledge_fraction: float = Field(
        0.02,
        gt=0,
        le=1,
        description="share that gets cards, answers for keys, and is called knowledge neurons if it beat chance",
    )


class Study(SettingsSection):
    """All settings of a study; ``plmscope init`` writes them out with their defaults."""

    name: str = Field(
        "study", max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="names the run folder"
    )
    seed: int = Field(0, ge=0, le=MAX_SEED, description="of everything that is random")
    device: str = Field(
        "cpu",
        pattern=r"^(cpu|auto|cuda(:([0-9]+|all))?)$",
        description="cpu, cuda, cuda:1; cuda:all: a worker a GPU; auto: a model spread over GPUs",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="of scoring and evaluation")
    data: DataSection = DataSection()
    split: SplitSection = SplitSection()
    model: ModelSection = ModelSection()
    finetune: FinetuneSection = FinetuneSection()
    score: ScoreSection = ScoreSection()
    evaluate: EvaluateSection = EvaluateSection()
    density: DensitySection = DensitySection()
    characterize: CharacterizeSection = CharacterizeSection()
    describe: DescribeSection = DescribeSection()
    probe: ProbeSection = ProbeSection()
    intervene: InterveneSection = InterveneSection()
    layout: LayoutSection = LayoutSection()
    faithfulness: FaithfulnessSection = FaithfulnessSection()
    report: ReportSection = ReportSection()

    @property
    def judged(self) -> tuple[str, ...]:
        """The methods that the evaluation judges."""
        return self.evaluate.methods or self.score.methods

    @property
    def card_methods(self) -> tuple[str, ...]:
        """Methods whose best neurons get a card: those that are judged, unless the study names others."""
        return self.characterize.methods or self.judged

    @model_validator(mode="after")
    def _possible(self) -> Study:
        check_possible(self)
        return self
