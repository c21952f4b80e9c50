"""plmscope: find, verify and explain knowledge neurons in protein language models.

::

    import plmscope as ps

    run  = ps.open_run("runs/demo")
    kept = ps.select_top(run.ranking("integrated_gradients"), fraction=0.5)
    print(ps.evaluate(run.model, run.proteins("evaluation"), kept, n_random=20))

Names are imported when they are first used: ``import plmscope`` alone loads neither PyTorch nor transformers. It lets
PyTorch's threads sleep while they wait (:mod:`plmscope.threads`), if it comes before PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from plmscope.lazy import find
from plmscope.threads import wait_asleep

__version__ = "0.1.0"

wait_asleep()

if TYPE_CHECKING:
    from plmscope.comparing.comparison import Comparison, compare_runs
    from plmscope.data.annotations import read_features
    from plmscope.data.proteins import Protein, read_proteins
    from plmscope.data.splits import split_proteins
    from plmscope.errors import InputError, ModelError, PlmscopeError, RunError, SelectionError, StudyError
    from plmscope.evaluation.density import density
    from plmscope.evaluation.judging import Evaluation, Intervention, evaluate, intervene
    from plmscope.evaluation.overlap import overlap
    from plmscope.evaluation.selection import Selection, select_shared, select_top
    from plmscope.explaining.activations import activations
    from plmscope.explaining.explainer import explain
    from plmscope.explaining.explanation import Explanation
    from plmscope.explaining.variants import Variants, variants
    from plmscope.knowledge.characterize import characterize
    from plmscope.knowledge.characterize import motifs_of as motifs
    from plmscope.knowledge.concepts import build_concepts as concepts
    from plmscope.models.architectures import Architecture, register_architecture
    from plmscope.models.classifier import Classifier
    from plmscope.models.loading import load_model
    from plmscope.models.sites import Neuron, NeuronIndex, Site
    from plmscope.report.page import write_report
    from plmscope.scoring.activation import summarise_activations
    from plmscope.scoring.methods import score
    from plmscope.scoring.scores import NeuronScores
    from plmscope.scoring.table import Scorer, register_scorer
    from plmscope.store.folder import Run
    from plmscope.study.opened import open_run
    from plmscope.study.settings import Study
    from plmscope.study.study_file import read_study

#: The public names step by step, each with the module that has it (and what it is called there, where that differs).
STEPS: dict[str, dict[str, str]] = {
    "proteins": {
        "Protein": "data.proteins",
        "read_proteins": "data.proteins",
        "read_features": "data.annotations",
        "split_proteins": "data.splits",
    },
    "models": {
        "Architecture": "models.architectures",
        "Classifier": "models.classifier",
        "Neuron": "models.sites",
        "NeuronIndex": "models.sites",
        "Site": "models.sites",
        "load_model": "models.loading",
        "register_architecture": "models.architectures",
    },
    "scores": {
        "NeuronScores": "scoring.scores",
        "Scorer": "scoring.table",
        "register_scorer": "scoring.table",
        "score": "scoring.methods",
        "summarise_activations": "scoring.activation",
    },
    "selections": {
        "Selection": "evaluation.selection",
        "density": "evaluation.density",
        "overlap": "evaluation.overlap",
        "select_shared": "evaluation.selection",
        "select_top": "evaluation.selection",
    },
    "experiments": {
        "Evaluation": "evaluation.judging",
        "Intervention": "evaluation.judging",
        "evaluate": "evaluation.judging",
        "intervene": "evaluation.judging",
    },
    "knowledge": {
        "characterize": "knowledge.characterize",
        "concepts": "knowledge.concepts:build_concepts",
        "motifs": "knowledge.characterize:motifs_of",
    },
    "one protein": {
        "Explanation": "explaining.explanation",
        "Variants": "explaining.variants",
        "activations": "explaining.activations",
        "explain": "explaining.explainer",
        "variants": "explaining.variants",
    },
    "runs": {
        "Comparison": "comparing.comparison",
        "Run": "store.folder",
        "Study": "study.settings",
        "compare_runs": "comparing.comparison",
        "open_run": "study.opened",
        "read_study": "study.study_file",
        "write_report": "report.page",
    },
    "errors": {
        "InputError": "errors",
        "ModelError": "errors",
        "PlmscopeError": "errors",
        "RunError": "errors",
        "SelectionError": "errors",
        "StudyError": "errors",
    },
}
_HOME = {name: home for names in STEPS.values() for name, home in names.items()}

__all__ = [
    "Architecture",
    "Classifier",
    "Comparison",
    "Evaluation",
    "Explanation",
    "InputError",
    "Intervention",
    "ModelError",
    "Neuron",
    "NeuronIndex",
    "NeuronScores",
    "PlmscopeError",
    "Protein",
    "Run",
    "RunError",
    "Scorer",
    "Selection",
    "SelectionError",
    "Site",
    "Study",
    "StudyError",
    "Variants",
    "activations",
    "characterize",
    "compare_runs",
    "concepts",
    "density",
    "evaluate",
    "explain",
    "intervene",
    "load_model",
    "motifs",
    "open_run",
    "overlap",
    "read_features",
    "read_proteins",
    "read_study",
    "register_architecture",
    "register_scorer",
    "score",
    "select_shared",
    "select_top",
    "split_proteins",
    "summarise_activations",
    "variants",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    return find(__name__, _HOME, name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
