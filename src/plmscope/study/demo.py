"""The studies of ``plmscope demo``: one in minutes, and all of it with ``--full``; and of ``plmscope init --quick``."""

from __future__ import annotations

from plmscope.errors import StudyError, shown
from plmscope.study.settings import (
    CharacterizeSection,
    DataSection,
    DensitySection,
    DescribeSection,
    EvaluateSection,
    FinetuneSection,
    InterveneSection,
    ScoreSection,
    SplitSection,
    Study,
)


def demo_study(task: str = "enzymes", full: bool = False) -> Study:
    """The study of ``plmscope demo``: the embedded model and proteins.

    Args:
        task: ``"enzymes"``, by EC class, or ``"families"``, protein families that are known by a motif.
        full: Everything, for an hour or more of two CPU cores. By default what answers the paper's two questions in
            minutes: shorter proteins, the last layer fine-tuned alone, fewer proteins, points, shares and draws, no
            interventions and no null models.

    Raises:
        StudyError: there is no such task.
    """
    if task not in ("enzymes", "families"):
        raise StudyError(f"demo task {shown(task)} is unknown; use 'enzymes' or 'families'")
    study = _full_demo() if full else _fast_demo()
    return study if task == "enzymes" else _of_families(study)


def quick_study() -> Study:
    """A first look at proteins of one's own: the demo's settings without its data and its split."""
    plain = Study()
    return _fast_demo().model_copy(update={"name": plain.name, "data": plain.data, "split": plain.split})


def _fast_demo() -> Study:
    return Study(
        name="demo",
        data=DataSection(max_length=300, too_long="skip"),
        split=SplitSection(identity=0.5, held_out="held_out"),
        finetune=FinetuneSection(epochs=1, patience=1, learning_rate=5e-4, token_budget=2048, frozen_layers=5),
        score=ScoreSection(
            methods=("activation", "integrated_gradients"),
            proteins_per_class=4,
            points=2,
            token_budget=1024,
            mean_proteins_per_class=50,
        ),
        evaluate=EvaluateSection(
            fractions=(0.5,),
            modes=("keep",),
            ablations=("mean",),
            scopes=("pooled", "module"),
            controls=("random_matched",),
            draws=20,
            draws_elsewhere=2,
            module_fractions=(0.1, 0.3),
            module_modes=("keep",),
            module_draws=2,
            max_proteins=48,
        ),
        density=DensitySection(bootstraps=100, nulls=(), halves=False),
        characterize=CharacterizeSection(max_proteins=150, max_neurons=200),
        describe=DescribeSection(enabled=False),
        intervene=InterveneSection(enabled=False),
    )


def _full_demo() -> Study:
    return Study(
        name="demo-full",
        data=DataSection(max_length=400, too_long="skip"),
        split=SplitSection(identity=0.5, held_out="held_out"),
        finetune=FinetuneSection(epochs=2, patience=2, learning_rate=5e-4, token_budget=2048, frozen_layers=5),
        score=ScoreSection(proteins_per_class=8, points=6, token_budget=1024),
        evaluate=EvaluateSection(
            methods=("activation", "activation_contrast", "integrated_gradients"),
            fractions=(0.1, 0.2, 0.5, 0.8),
            scopes=("pooled", "module"),
            draws=20,
            draws_elsewhere=2,
            module_fractions=(0.05, 0.1, 0.2, 0.5),
            module_modes=("keep",),
            module_draws=20,
        ),
        density=DensitySection(bootstraps=200, null_draws=4),
        characterize=CharacterizeSection(max_proteins=750),
        intervene=InterveneSection(factors=(2.0,), draws=4, neurons=24, proteins_per_class=8),
    )


def _of_families(study: Study) -> Study:
    """The same on the embedded families: more classes, each of fewer proteins and clusters."""
    return study.model_copy(
        update={
            "name": f"{study.name}-families",
            "data": study.data.model_copy(update={"path": "plmscope:families", "label": "family", "max_length": 1022}),
            "split": study.split.model_copy(update={"train": 0.6, "test": 0.25}),
            "finetune": study.finetune.model_copy(update={"epochs": 4, "patience": 4}),
            "score": study.score.model_copy(update={"proteins_per_class": 4}),
            "evaluate": study.evaluate.model_copy(update={"max_proteins": 52}),
            "characterize": study.characterize.model_copy(update={"max_proteins": 0, "min_proteins": 5}),
            "intervene": study.intervene.model_copy(update={"proteins_per_class": 4}),
        }
    )
