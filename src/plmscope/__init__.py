"""plmscope: find, verify and explain knowledge neurons in protein language models.

::

    import plmscope as ps

    run    = ps.open_run("runs/demo")
    scores = ps.score(run.model, run.proteins("scoring"), method="integrated_gradients")
    kept   = ps.select_top(scores, fraction=0.05)
    print(ps.evaluate(run.model, run.proteins("test"), kept, n_random=20))

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
    from plmscope.data.proteins import Protein, read_proteins
    from plmscope.data.splits import split_proteins
    from plmscope.errors import InputError, ModelError, PlmscopeError, RunError, SelectionError, StudyError
    from plmscope.evaluation.density import density
    from plmscope.evaluation.judging import Evaluation, Intervention, evaluate, intervene
    from plmscope.evaluation.selection import Selection, select_shared, select_top
    from plmscope.explaining.activations import activations
    from plmscope.explaining.explainer import explain
    from plmscope.explaining.explanation import Explanation
    from plmscope.explaining.variants import Variants, variants
    from plmscope.models.architectures import Architecture, register_architecture
    from plmscope.models.classifier import Classifier
    from plmscope.models.loading import load_model
    from plmscope.models.sites import Neuron, NeuronIndex, Site
    from plmscope.report.page import write_report
    from plmscope.scoring.activation import summarise_activations
    from plmscope.scoring.methods import score
    from plmscope.scoring.scores import NeuronScores
    from plmscope.scoring.table import Scorer, register_scorer
    from plmscope.study.opened import open_run
    from plmscope.study.settings import Study
    from plmscope.study.study_file import read_study

_HOME = {
    "Architecture": "models.architectures",
    "Classifier": "models.classifier",
    "Comparison": "comparing.comparison",
    "Evaluation": "evaluation.judging",
    "Explanation": "explaining.explanation",
    "InputError": "errors",
    "Intervention": "evaluation.judging",
    "ModelError": "errors",
    "Neuron": "models.sites",
    "NeuronIndex": "models.sites",
    "NeuronScores": "scoring.scores",
    "PlmscopeError": "errors",
    "Protein": "data.proteins",
    "RunError": "errors",
    "Scorer": "scoring.table",
    "Selection": "evaluation.selection",
    "SelectionError": "errors",
    "Site": "models.sites",
    "Study": "study.settings",
    "StudyError": "errors",
    "Variants": "explaining.variants",
    "activations": "explaining.activations",
    "compare_runs": "comparing.comparison",
    "density": "evaluation.density",
    "evaluate": "evaluation.judging",
    "explain": "explaining.explainer",
    "intervene": "evaluation.judging",
    "load_model": "models.loading",
    "open_run": "study.opened",
    "read_proteins": "data.proteins",
    "read_study": "study.study_file",
    "register_architecture": "models.architectures",
    "register_scorer": "scoring.table",
    "score": "scoring.methods",
    "select_shared": "evaluation.selection",
    "select_top": "evaluation.selection",
    "split_proteins": "data.splits",
    "summarise_activations": "scoring.activation",
    "variants": "explaining.variants",
    "write_report": "report.page",
}

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
    "RunError",
    "Scorer",
    "Selection",
    "SelectionError",
    "Site",
    "Study",
    "StudyError",
    "Variants",
    "activations",
    "compare_runs",
    "density",
    "evaluate",
    "explain",
    "intervene",
    "load_model",
    "open_run",
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
