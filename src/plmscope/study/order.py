"""The stages in their order: one row a stage.

A new stage is one file of this folder, which ends with a :class:`~plmscope.study.stages.Stage`, and one row of
:data:`ROWS`. Its place among the others is what the user sees; what it depends on is said by the stage itself. Reading
the rows loads nothing else, so that the command line can list its commands at once.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StageRow:
    """One stage.

    Attributes:
        name: What users call it.
        module: Where its ``STAGE`` is.
        about: What it does, in a line, for the command line and the documentation.
        along: The stage whose command runs it too; it has none of its own. Empty: ``plmscope NAME RUN``.
        shards: Whether its command takes ``--shard``.
        asks: Whether its command asks for it where the run's study left it out, by ``enabled = true`` in its section.
    """

    name: str
    module: str
    about: str
    along: str = ""
    shards: bool = False
    asks: bool = False


ROWS: tuple[StageRow, ...] = (
    StageRow("finetune", "plmscope.study.finetuning", "read, split and fine-tune; creates the run folder"),
    StageRow(
        "score",
        "plmscope.study.scoring",
        "score every neuron by every method of the study, at once or in shards",
        shards=True,
    ),
    StageRow(
        "select",
        "plmscope.study.selecting",
        "choose the best neurons, and compare what methods and classes choose",
        along="score",
    ),
    StageRow(
        "evaluate",
        "plmscope.study.evaluating",
        "keep and ablate the best neurons on test proteins, against random selections",
        shards=True,
    ),
    StageRow("nulls", "plmscope.study.nulls", "train and score the null models", along="density"),
    StageRow(
        "null_kinds",
        "plmscope.study.null_kinds",
        "ask what module kinds carry in the null models",
        along="density",
    ),
    StageRow(
        "density",
        "plmscope.study.counting",
        "count where the best neurons are, here and in null models that are trained for it",
        shards=True,
    ),
    StageRow(
        "null_fits",
        "plmscope.study.null_fits",
        "fit null models several times, and test the density of module kinds against them",
        along="density",
    ),
    StageRow(
        "stability",
        "plmscope.study.stability",
        "ask whether other samples and models choose the same neurons",
        along="density",
    ),
    StageRow(
        "characterize",
        "plmscope.study.characterizing",
        "compare every neuron with what is known of residues and proteins; motifs and cards of the best",
    ),
    StageRow(
        "describe",
        "plmscope.study.describing",
        "formulas over concepts for the best neurons, and sentences that are scored by what they predict",
        asks=True,
    ),
    StageRow(
        "probe",
        "plmscope.study.probing",
        "ask what the best, the worst and random neurons decide alone in probes beside the model",
        asks=True,
    ),
    StageRow(
        "intervene",
        "plmscope.study.intervening",
        "suppress and enhance each class's neurons on test proteins, and see what becomes of decisions",
        shards=True,
    ),
    StageRow(
        "layout",
        "plmscope.study.laying_out",
        "ask how knowledge is laid out: how few neurons suffice, what is there twice, shared or apart",
    ),
    StageRow(
        "faithfulness",
        "plmscope.study.comparing_scorers",
        "compare scorers with single-neuron ablation of this model: which to trust, and at what price",
        asks=True,
    ),
    StageRow("report", "plmscope.study.reporting", "write report.html from the tables, one file that opens offline"),
)


def commands() -> tuple[StageRow, ...]:
    """The stages that have a command of their own."""
    return tuple(row for row in ROWS if not row.along)


def names() -> tuple[str, ...]:
    """What the stages are called, in order."""
    return tuple(row.name for row in ROWS)
