"""Tables of the layout for the synthetic run folder: what a model with some redundancy might give."""

from __future__ import annotations

import numpy as np
import pandas as pd

from plmscope.models.architectures import MODULES


def fake_layout(rng: np.random.Generator) -> dict[str, pd.DataFrame]:
    """Every table of the layout."""
    return {"sufficient": _sufficient(rng), **_redundancy(rng)}


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
                good = (label, method, a, b) == ("1", "correlation", 0, 1)
                each = float(rng.uniform(0, 0.04))
                both = 0.5 if good else float(rng.uniform(0, 0.1))
                pairs.append(
                    {
                        "method": method, "label": label, "a": a, "b": b, "n_a": 2, "n_b": 2, "n_proteins": 9,
                        "drop_a": each, "drop_b": each, "drop_both": both, "drop_all": 0.8, "alone_a": 0.3,
                        "alone_b": 0.4, "synergy": both - 2 * each, "ci_low": both - 2 * each - 0.1,
                        "ci_high": both - 2 * each + 0.1, "against": 0.001, "draws_degenerate": 0, "n_draws": 20,
                        "p_value": 1 / 21 if good else 0.6, "p_kind": "permutation", "degenerate": good,
                        "q_value": 0.6,
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
    }  # fmt: skip
