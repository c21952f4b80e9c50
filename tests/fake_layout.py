"""Tables of the layout for the synthetic run folder: what a model with some redundancy might give."""

from __future__ import annotations

import numpy as np
import pandas as pd

from plmscope.models.architectures import MODULES


def fake_layout(rng: np.random.Generator) -> dict[str, pd.DataFrame]:
    """Every table of the layout."""
    return {"sufficient": _sufficient(rng), **_redundancy(rng), **_recall(rng), **_shared(rng), **_modules(rng)}


def _sufficient(rng: np.random.Generator) -> pd.DataFrame:
    """A tenth of the neurons suffices; queries carry nothing."""
    rows = []
    for module in ("", *MODULES):
        for metric in ("balanced_accuracy", "log_odds"):
            judged, n = module != "query", 960 if module else 9600
            k = float(rng.integers(n // 20, n // 8)) if judged else np.nan
            rows.append(
                {
                    "method": "integrated_gradients", "scope": "module" if module else "pooled", "module": module,
                    "metric": metric, "target": 0.9, "n_neurons": n, "intact": 0.7, "held": 0.2 if judged else 0.7,
                    "carried": 0.5 if judged else 0.0, "carried_low": 0.4 if judged else 0.0, "judged": judged, "k": k,
                    "fraction": k / n, "faithfulness": 0.95, "ci_low": 0.91, "ci_high": 1.0, "k_random": 0.6 * n,
                    "n_draws": 20, "p_value": 1 / 21 if judged else np.nan,
                    "p_kind": "permutation" if judged else "not_judged",
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def _redundancy(rng: np.random.Generator) -> dict[str, pd.DataFrame]:
    """One degenerate pair in class 1, none elsewhere."""
    components, pairs, exchanged = [], [], []
    for label in ("1", "2", "3"):
        for method in ("correlation", "topology"):
            for number in range(3):
                components.append((method, label, number, number, "intermediate", 3 * number))
                components.append((method, label, number, number, "intermediate", 3 * number + 1))
            for a, b in ((0, 1), (0, 2), (1, 2)):
                tested = (a, b) == (0, 1)  # the greatest synergy of the class and grouping
                good = tested and (label, method) == ("1", "correlation")
                each = float(rng.uniform(0, 0.02))
                both = 0.5 if good else float(rng.uniform(0, 0.06))
                both = max(both, 0.1) if tested else both
                pairs.append(
                    {
                        "method": method, "label": label, "a": a, "b": b, "n_a": 2, "n_b": 2, "n_proteins": 9,
                        "drop_a": each, "drop_b": each, "drop_both": both, "drop_all": 0.8, "alone_a": 0.3,
                        "alone_b": 0.4, "synergy": both - 2 * each, "ci_low": both - 2 * each - 0.1,
                        "ci_high": both - 2 * each + 0.1, "against": 0.001 if tested else np.nan,
                        "draws_degenerate": 0, "n_draws": 20 if tested else 0,
                        "p_value": (1 / 21 if good else 0.6) if tested else np.nan,
                        "p_kind": "permutation" if tested else "not_tested", "degenerate": good,
                        "q_value": 0.6 if tested else np.nan,
                    }
                )  # fmt: skip
        for share in (0.01, 0.05, 0.1):
            exchanged.append(
                {
                    "label": label, "share": share, "held": "a", "n_neurons": 2, "n_proteins": 9, "probability": 0.7,
                    "probability_exchanged": 0.7 - share, "kept": 1 - share / 0.7, "kept_intact": 0.99, "against": 0.98,
                    "n_draws": 20, "p_value": 1 / 21, "p_kind": "permutation",
                }
            )  # fmt: skip
    columns = ["method", "label", "component", "layer", "module", "neuron"]
    return {
        "components": pd.DataFrame(components, columns=columns), "degenerate": pd.DataFrame(pairs),
        "substitutions": pd.DataFrame(exchanged),
        "claims": _rows(
            "label n_neurons n_true n_false auroc ci_low ci_high auroc_model against n_draws p_value p_kind",
            ("1", 4, 9, 45, 0.9, 0.8, 0.97, 0.93, 0.85, 20, 1 / 21, "permutation"),
        ),
    }  # fmt: skip


def _rows(columns: str, *rows: tuple[object, ...]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=columns.split())


def _recall(rng: np.random.Generator) -> dict[str, pd.DataFrame]:
    """Class 1 has errors of recall; class 3 has no error at all."""
    nan = np.nan
    return {
        "recall": _rows(
            "id label predicted right kn_true kn_predicted failure gained gained_against gained_other",
            *((f"P1{i:04d}", "1", "1", True, 0.9, 0.9, "", nan, nan, nan) for i in range(20)),
            *((f"P1{i:04d}", "1", "2", False, 0.1, 0.4, "low and conflict", 1.0, 0.05, 0.0) for i in range(20, 26)),
        ),
        "recall_summary": _rows(
            "label n_right n_wrong auroc ci_low ci_high auroc_against p_value p_kind low low_against conflict "
            "conflict_against n_enhanced gained gained_against gained_other p_gained n_others pulled pulled_against "
            "n_draws",
            ("1", 20, 6, 0.91, 0.8, 0.99, 0.62, 1 / 21, "permutation", 0.8, 0.3, 0.7, 0.5, 6, 4, 0.3, 0, 1 / 21, 12, 1,
             0.2, 20),
            ("3", 22, 0, nan, nan, nan, nan, nan, "not_judged", nan, nan, nan, nan, 0, 0, nan, 0, nan, 0, 0, nan, 20),
            ("", 42, 6, 0.91, 0.8, 0.99, 0.62, 1 / 21, "permutation", 0.8, 0.3, 0.7, 0.5, 6, 4, 0.3, 0, 1 / 21, 12, 1,
             0.2, 20),
        ),
        "recall_context": _rows(
            "feature_type measure n_proteins n_residues n_left_out change against difference ci_low ci_high p_value "
            "q_value",
            ("ACT_SITE", "kn", 12, 14, 1, -0.05, -0.01, -0.04, -0.08, -0.01, 0.01, 0.02),
            ("ACT_SITE", "log_odds", 12, 14, 1, -0.3, -0.28, -0.02, -0.2, 0.15, 0.4, 0.4),
        ),
    }  # fmt: skip


def _shared(rng: np.random.Generator) -> dict[str, pd.DataFrame]:
    """Class 1 rests on the same neurons in two taxa."""
    return {
        "shared_neurons": _rows(
            "label layer module neuron groups n_groups smallest_share kind",
            ("1", 3, "intermediate", 5, "Bacteria; Eukaryota", 2, 0.9, "independent"),
            ("1", 4, "value", 7, "Bacteria", 1, 0.1, "specific"),
        ),
        "sharing": _rows(
            "label groups n_clusters neurons independent independent_against p_independent specific specific_against "
            "p_specific jaccard jaccard_expected p_overlap n_deals",
            ("1", "Bacteria; Eukaryota", 8, 2, 1, 1.1, 0.8, 1, 0.9, 0.6, 0.5, 0.002, 1e-4, 199),
        ),
        "transfer": _rows(
            "label chosen_on measured_on n n_proteins drop drop_own against p_value p_kind ratio ci_low ci_high dealt "
            "p_dealt n_draws q_value",
            *(
                ("1", a, b, 64, 10, 0.4, 0.42, 0.02, 1 / 21, "permutation", 0.95, 0.8, 1.1, 0.41, 0.5, 20, 1 / 21)
                for a in ("Bacteria", "Eukaryota") for b in ("Bacteria", "Eukaryota")
            ),
        ),
    }  # fmt: skip


def _modules(rng: np.random.Generator) -> dict[str, pd.DataFrame]:
    """Class 1 can be cut out, class 2 is fragile; the random network has as much of experts."""
    pruning = [
        (label, "mean_absolute", step, share, int(7680 * share), 1 - step / 6, 1 - step / 20, 0.8, 0.8, 0.7, 0.7)
        for label in ("1", "2") for step, share in enumerate((0.05, 0.1, 0.2, 0.3, 0.5), 1)
    ]  # fmt: skip
    measures = [
        (model, measure, label, value, chance, 0.01, 200)
        for model in ("run", "label_shuffled", "random_weights")
        for measure, label, value, chance in (
            ("nmi", "", 0.12, 0.09), ("half", "1", 12, 20.5), ("overlap", "", 0.2, 0.25),
        )
    ]  # fmt: skip
    return {
        "pruning": _rows(
            "label statistic step fraction n_neurons accuracy_label accuracy_others accuracy_label_against "
            "accuracy_others_against accuracy_label_dealt accuracy_others_dealt", *pruning,
        ),
        "separability": _rows(
            "label statistic n_proteins separability ci_low ci_high against p_value p_kind dealt p_dealt n_draws "
            "q_value",
            ("1", "mean_absolute", 10, 0.5, 0.3, 0.7, 0.05, 1 / 21, "permutation", 0.04, 1 / 21, 20, 0.049),
            ("2", "mean_absolute", 10, 0.4, 0.2, 0.6, 0.38, 0.5, "permutation", 0.41, 0.6, 20, 0.5),
        ),
        "experts": _rows("layer neuron expert", *((3, n, n // 32) for n in range(64))),
        "expert_classes": _rows(
            "layer expert label n_neurons n expected enrichment damage damage_against p_damage p_value q_value",
            (3, 0, "1", 32, 9, 1.6, 5.6, 0.3, 0.02, 1 / 21, 1e-5, 1e-4),
            (3, 1, "1", 32, 1, 1.6, 0.6, np.nan, np.nan, np.nan, 0.8, 0.9),
        ),
        "modularity": _rows("model measure label value against p_value n_deals", *measures),
    }  # fmt: skip
