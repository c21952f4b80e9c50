"""A complete synthetic run folder, so that the report can be tested and looked at without a model.

The numbers follow simple shapes (a keep curve rises, draws scatter about theirs); areas, differences, p values and
densities are computed from the synthetic curves and scores, so the tables agree with each other.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import hypergeom
from scipy.stats import t as student

from plmscope.models.architectures import MODULES
from plmscope.models.sites import NeuronIndex
from plmscope.store.files import write_atomic
from plmscope.store.folder import Run
from plmscope.store.schema import SCHEMA, SCHEMA_VERSION
from plmscope.study.null_fits import tested
from tests.fake_layout import fake_layout

METHODS = ("activation", "activation_std", "activation_contrast", "integrated_gradients")
CONTROLS = ("random", "random_matched", "random_active")
LABELS = ("1", "2", "3", "4", "5", "6")
FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7)
DRAWS = 20
INDEX = NeuronIndex.of(layers=6, hidden=32, intermediate=128)
INTACT = {
    "accuracy": 0.745, "balanced_accuracy": 0.712, "macro_f1": 0.701, "log_loss": 0.83, "true_class_probability": 0.63,
    "log_probability": -0.79,
}  # fmt: skip
CHANCE = {
    "accuracy": 0.21, "balanced_accuracy": 1 / 6, "macro_f1": 0.06, "log_loss": 1.79, "true_class_probability": 0.17,
    "log_probability": -1.79,
}  # fmt: skip
BETTER = dict.fromkeys(INTACT, 1) | {"log_loss": -1}

#: Kind to the share of the model's quality that it carries and the share of it at which a method has half of that back.
KINDS = {
    "query": (0.02, 0.3), "key": (0.6, 0.05), "value": (0.95, 0.2), "attention_output": (0.95, 0.35),
    "intermediate": (0.3, 0.25), "output": (0.35, 0.4),
}  # fmt: skip
KIND_FRACTIONS = (0.05, 0.1, 0.2, 0.4, 0.7)

STUDY = """\
name = "fake"
seed = {seed}
device = "cpu"
dtype = "float32"

[data]
path = "plmscope:enzymes"
label = "ec:1"

[split]
method = "cluster"
identity = 0.3
coverage = 0.8

[model]
checkpoint = "facebook/esm2_t6_8M_UR50D"
revision = "main"

[score]
methods = ["activation", "activation_std", "activation_contrast", "integrated_gradients"]
target = "log_odds"
baseline = "zero"
points = 16
proteins_per_class = 12

[evaluate]
fractions = [0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7]
controls = ["random", "random_matched", "random_active"]
draws = 20

[density]
fractions = [0.01, 0.02, 0.05]

[report]
knowledge_fraction = 0.02
"""


def make_fake_run(path: Path, seed: int = 0) -> Run:
    """Write every table of the schema, ``metrics.json``, ``study.toml`` and the manifest into ``path``."""
    rng = np.random.default_rng(seed)
    run = Run.create(path)
    write_atomic(run.path / "study.toml", STUDY.format(seed=seed).encode())
    proteins = _proteins(rng)
    neurons = _neurons(rng)
    curves = _curves(rng)
    modules = _modules(curves)
    predictions = _predictions(rng, proteins, curves)
    truth = proteins.set_index("id")["label"].reindex(predictions["id"]).to_numpy()
    accuracy = float(np.mean(np.array(LABELS)[predictions["predicted"]] == truth))
    curves.loc[curves["ablation"] == "none", "accuracy"] = accuracy
    metrics = _metrics(proteins)
    metrics["splits"]["test"]["model"]["accuracy"] = accuracy
    tables = {
        "proteins": proteins,
        "excluded": pd.DataFrame(
            {"id": [f"X{i:03d}" for i in range(9)], "reason": ["longer than 1,022 residues"] * 6 + ["two classes"] * 3}
        ),
        "leakage": _leakage(rng, proteins),
        "training": _training(rng),
        "neurons": neurons,
        "class_scores": _class_scores(rng, neurons),
        "completeness": _completeness(rng, proteins),
        "selections": _selections(neurons),
        "curves": curves,
        "predictions": predictions,
        "comparison": _comparison(curves, modules),
        "modules": modules[modules["model"] == "run"],
        "modules_null": modules[modules["model"] != "run"],
        "density": _density(neurons),
        "curves_null": _curves_null(curves),
        "density_null": (null := _density_null(rng, neurons)),
        **_null_fits(neurons, null),
        "agreement": _agreement(neurons),
        **_knowledge(rng, neurons, proteins),
        **_interventions(rng, neurons, proteins),
        **fake_layout(rng),
        "faithfulness": _faithfulness(),
    }
    for name, frame in tables.items():
        run.write_table(name, frame)
    run.write_json("metrics.json", metrics)
    stages = {
        "finetune": (412.0, 1480.0),
        "score": (96.0, 1210.0),
        "evaluate": (733.0, 1322.0),
        "density": (41.0, 990.0),
        "characterize": (88.0, 1510.0),
    }
    manifest: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "name": "fake",
        "seed": seed,
        "device": "cpu",
        "dtype": "float32",
        "threads": 2,
        "command": "plmscope run study.toml",
        "versions": {"plmscope": "0.1.0", "python": "3.12.1", "torch": "2.9.0", "transformers": "5.23.0"},
        "model": {
            "id": "facebook/esm2_t6_8M_UR50D", "revision": "main", "sha256": "ab" * 32, "parameters": 95_000,
            "layers": 6, "hidden": 32, "architecture": "esm",
        },
        "data": {
            "source": "plmscope:enzymes", "sha256": "cd" * 32, "n_read": len(proteins) + 9, "n_excluded": 9
        },
        "split": {"method": "cluster", "identity": 0.3, "coverage": 0.8},
        "scoring_proteins": 72,
        "stages": {
            name: {"status": "done", "seconds": seconds, "peak_memory_mb": memory}
            for name, (seconds, memory) in stages.items()
        },
    }  # fmt: skip
    write_atomic(run.path / "manifest.json", json.dumps(manifest, indent=1).encode())
    return Run.open(path)


def _proteins(rng: np.random.Generator) -> pd.DataFrame:
    rows = []
    for label, size in zip(LABELS, (90, 110, 100, 60, 45, 35), strict=True):
        for i in range(size):
            length = int(rng.integers(60, 420))
            rows.append(
                {
                    "id": f"P{label}{i:04d}",
                    "sequence": "".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), length)),
                    "label": label,
                    "split": ("test", "validation", *["train"] * 5)[(i // 2) % 7],
                    "cluster": f"C{label}{i // 2:03d}",
                    "length": length,
                }
            )
    return pd.DataFrame(rows)


def _leakage(rng: np.random.Generator, proteins: pd.DataFrame) -> pd.DataFrame:
    """Nearest training identity; one protein in twelve has no alignment at all."""
    rest = proteins[proteins["split"] != "train"]
    train = proteins.loc[proteins["split"] == "train", "id"].to_numpy()
    identity = np.clip(rng.normal(0.24, 0.06, len(rest)), 0.1, 0.44)
    missing = rng.random(len(rest)) < 1 / 12
    return pd.DataFrame(
        {
            "id": rest["id"].to_numpy(),
            "split": rest["split"].to_numpy(),
            "nearest_train": np.where(missing, "", rng.choice(train, len(rest))),
            "identity": np.where(missing, 0.0, identity),
        }
    )


def _training(rng: np.random.Generator) -> pd.DataFrame:
    epochs = np.arange(1, 13)
    frames = []
    for model, floor, top in (("model", 0.45, 0.72), ("label_shuffled", 1.2, 0.19), ("random_weights", 0.9, 0.41)):
        loss = floor + (1.8 - floor) * np.exp(-epochs / 3.5)
        frames.append(
            pd.DataFrame(
                {
                    "model": model,
                    "epoch": epochs,
                    "train_loss": loss + rng.normal(0, 0.01, 12),
                    "validation_loss": loss + 0.2 + 0.02 * np.maximum(epochs - 7, 0) + rng.normal(0, 0.02, 12),
                    "validation_balanced_accuracy": top - (top - 1 / 6) * np.exp(-epochs / 3) + rng.normal(0, 0.01, 12),
                    "seconds": 33.0 + rng.normal(0, 1, 12),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def _neurons(rng: np.random.Generator) -> pd.DataFrame:
    """Scores with a shared part, so that methods agree somewhat; activations differ in scale between modules."""
    table = INDEX.table()
    scale = table["module"].map({"query": 1.6, "key": 3.0, "value": 0.6, "attention_output": 0.3, "intermediate": 0.2})
    key = np.where(table["module"] == "key", 0.45, 0.0) + np.where(table["layer"] >= 4, 0.5, 0.0)
    shared = rng.normal(size=len(table)) + key
    table["activation"] = scale.fillna(0.4) * np.abs(shared + rng.normal(size=len(table)))
    table["activation_std"] = scale.fillna(0.4) * np.exp(0.5 * shared + 0.5 * rng.normal(size=len(table)))
    table["activation_contrast"] = np.exp(0.4 * shared + 0.4 * rng.normal(size=len(table)))
    table["integrated_gradients"] = 0.01 * (shared + 0.7 * rng.standard_t(4, size=len(table)))
    return table


def _class_scores(rng: np.random.Generator, neurons: pd.DataFrame) -> pd.DataFrame:
    frames = []
    for method in ("activation_contrast", "integrated_gradients"):
        for label in LABELS:
            frame = neurons[["layer", "module", "neuron"]].copy()
            spread = neurons[method].std()
            frame["score"] = neurons[method] + spread * rng.normal(size=len(neurons))
            frames.append(frame.assign(method=method, label=label))
    return pd.concat(frames, ignore_index=True)


def _completeness(rng: np.random.Generator, proteins: pd.DataFrame) -> pd.DataFrame:
    rows = []
    width = {
        "query": 0.08,
        "key": 0.11,
        "value": 0.002,
        "attention_output": 0.001,
        "intermediate": 0.003,
        "output": 0.001,
    }
    for id_ in proteins.loc[proteins["split"] == "train", "id"].iloc[:12]:
        for site in INDEX.sites:
            expected = float(rng.normal(1.2, 0.4))
            gap = float(width[site.module] * rng.standard_t(4))
            rows.append(("integrated_gradients", id_, site.layer, site.module, expected, expected + gap, gap, 16, True))
    columns = ["method", "id", "layer", "module", "expected", "got", "gap", "points", "settled"]
    return pd.DataFrame(rows, columns=columns)


def _count(fraction: float, total: int = len(INDEX)) -> int:
    return max(1, int(fraction * total + 0.5))


def _selections(neurons: pd.DataFrame) -> pd.DataFrame:
    frames = [
        neurons.nlargest(_count(fraction), method)[["layer", "module", "neuron"]].assign(
            method=method, scope="pooled", fraction=fraction, draw=-1
        )
        for method in METHODS
        for fraction in FRACTIONS
    ]
    return pd.concat(frames, ignore_index=True)


def _curve(mode: str, half: float, metric: str, noise: np.ndarray) -> np.ndarray:
    """A logistic curve in the log of the fraction; ``half`` is the fraction at which half of the quality is kept."""
    kept = 1 / (1 + np.exp(-(np.log(FRACTIONS) - np.log(half)) / 0.6))
    share = kept if mode == "keep" else 1 - kept
    return CHANCE[metric] + (INTACT[metric] - CHANCE[metric]) * np.clip(share + noise, 0.0, 1.0)


def _curves(rng: np.random.Generator) -> pd.DataFrame:
    half = {"activation": 0.33, "activation_std": 0.26, "activation_contrast": 0.16, "integrated_gradients": 0.09}
    intact = {
        "method": "", "matched_to": "", "scope": "pooled", "module": "", "draw": -1, "mode": "keep", "ablation": "none",
        "fraction": 1.0, "n_neurons": len(INDEX), **INTACT,
    }  # fmt: skip
    series = [(method, "", -1, half[method]) for method in METHODS]
    for draw in range(DRAWS):
        series.append(("random", "", draw, 0.36))
        series += [("random_matched", method, draw, 0.31) for method in METHODS]
        series += [("random_active", method, draw, 0.24) for method in METHODS]
    rows: list[dict[str, Any]] = [intact]
    for mode in ("keep", "ablate"):
        for ablation in ("mean", "zero"):
            for method, matched_to, draw, middle in series:
                shift = (1.0 if ablation == "mean" else 1.5) * (1.0 if mode == "keep" else 1.2) * middle
                shift *= float(np.exp(rng.normal(0, 0.12))) if draw >= 0 else 1.0
                noise = rng.normal(0, 0.015, len(FRACTIONS))
                values = {metric: _curve(mode, shift, metric, noise) for metric in INTACT}
                rows += [
                    {"method": method, "matched_to": matched_to, "scope": "pooled", "module": "", "draw": draw,
                     "mode": mode, "ablation": ablation, "fraction": fraction, "n_neurons": _count(fraction)}
                    | {metric: values[metric][i] for metric in INTACT}
                    for i, fraction in enumerate(FRACTIONS)
                ]  # fmt: skip
    return pd.concat([pd.DataFrame(rows), _kind_curves(rng)], ignore_index=True)


def _kind_curves(rng: np.random.Generator) -> pd.DataFrame:
    """Kept within a kind: what it carries comes back with few of its neurons by a method, with many by random ones."""
    rows = []
    for module, (carried, half) in KINDS.items():
        common = {"scope": "module", "module": module, "mode": "keep", "ablation": "mean"}
        size = len(INDEX.table().query("module == @module"))
        lost = {name: (INTACT[name] - CHANCE[name]) * carried for name in INTACT}
        rows.append(
            common
            | {"method": "held", "matched_to": "", "draw": -1, "fraction": 0.0, "n_neurons": 0}
            | {name: INTACT[name] - lost[name] for name in INTACT}
        )
        series = [(method, "", -1, half * (1 + 0.3 * i)) for i, method in enumerate(reversed(METHODS))]
        series += [("random_matched", method, draw, 0.5) for method in METHODS for draw in range(DRAWS)]
        for method, matched_to, draw, middle in series:
            middle *= float(np.exp(rng.normal(0, 0.1))) if draw >= 0 else 1.0
            for fraction in KIND_FRACTIONS:
                back = 1 / (1 + np.exp(-(np.log(fraction) - np.log(middle)) / 0.4)) + rng.normal(0, 0.01)
                rows.append(
                    common
                    | {"method": method, "matched_to": matched_to, "draw": draw, "fraction": fraction}
                    | {"n_neurons": _count(fraction, size)}
                    | {name: INTACT[name] - lost[name] * (1 - min(1.0, max(0.0, back))) for name in INTACT}
                )
    return pd.DataFrame(rows)


def _predictions(rng: np.random.Generator, proteins: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """Classes (numbers) that the intact model predicts for test proteins; ``curve_point`` is the row in ``curves``."""
    test = proteins[proteins["split"] == "test"]
    right = rng.random(len(test)) < INTACT["accuracy"]
    true = test["label"].map(LABELS.index)
    predicted = np.where(right, true, rng.integers(len(LABELS), size=len(test)))
    point = int(np.flatnonzero(curves["ablation"] == "none")[0])
    return pd.DataFrame(
        {
            "curve_point": point,
            "id": test["id"].to_numpy(),
            "predicted": predicted,
            "log_prob_true": np.log(np.where(right, 0.8, 0.1)),
        }
    )


def _comparison(curves: pd.DataFrame, modules: pd.DataFrame) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    areas = {
        key: {metric: float(np.trapezoid(part[metric], part["fraction"])) for metric in INTACT}
        for key, part in curves[(curves["ablation"] != "none") & (curves["scope"] == "pooled")].groupby(
            ["method", "matched_to", "draw", "mode", "ablation"], sort=False
        )
    }
    for mode in ("keep", "ablate"):
        for ablation in ("mean", "zero"):
            for method in METHODS:
                for control in CONTROLS:
                    matched = "" if control == "random" else method
                    for metric in INTACT:
                        own = areas[(method, "", -1, mode, ablation)][metric]
                        draws = np.array(
                            [areas[(control, matched, draw, mode, ablation)][metric] for draw in range(DRAWS)]
                        )
                        better = BETTER[metric] * (1 if mode == "keep" else -1)
                        difference, spread = own - draws.mean(), draws.std(ddof=1)
                        width = 1.96 * float(np.hypot(spread, 0.008))
                        beaten = int(np.sum(better * own > better * draws))
                        rows.append(
                            {
                                "method": method, "ranked_by": method, "against": control, "scope": "pooled",
                                "module": "", "share_better": np.nan, "mode": mode,
                                "ablation": ablation, "metric": metric, "auc": own, "auc_against": draws.mean(),
                                "difference": difference, "better": better, "ci_low": difference - width,
                                "ci_high": difference + width, "p_value": (1 + DRAWS - beaten) / (1 + DRAWS),
                                "p_kind": "permutation", "n_draws": DRAWS,
                                "draws_beaten": beaten,
                                "primary": (metric, mode, ablation, control)
                                == ("balanced_accuracy", "keep", "mean", "random_matched"),
                            }
                        )  # fmt: skip
    frame = pd.concat([pd.DataFrame(rows), _within_keys(modules)], ignore_index=True)
    ordered = frame.loc[~frame["primary"], "p_value"].sort_values(ascending=False)
    adjusted = np.minimum.accumulate(ordered * len(ordered) / np.arange(len(ordered), 0, -1))
    frame["q_value"] = adjusted.reindex(frame.index)  # NaN on the primary rows
    return frame


def _within_keys(modules: pd.DataFrame) -> pd.DataFrame:
    """The second primary outcome, as the table of kinds has it."""
    rows = modules[(modules["model"] == "run") & (modules["module"] == "key")]
    rows = rows[rows["metric"] == "balanced_accuracy"]
    shared = [name for name in rows.columns if name in SCHEMA["comparison"]]
    return rows[shared].assign(
        against="random_matched", scope="module", better=1, draws_beaten=DRAWS, share_better=np.nan, primary=True
    )


def _modules(curves: pd.DataFrame) -> pd.DataFrame:
    """From the curves; the null models' keys carry nothing, or are no more concentrated than chance."""
    rows: list[dict[str, Any]] = []
    own = curves[curves["scope"] == "module"]
    for method in METHODS:
        for metric in ("balanced_accuracy", "log_probability"):
            for module, part in own.groupby("module", sort=False):
                intact, held = INTACT[metric], float(part.loc[part["method"] == "held", metric].iloc[0])
                carried, judged = intact - held, module != "query"
                x = np.array([0.0, *KIND_FRACTIONS, 1.0])
                mine = part.loc[part["method"] == method, metric]
                draws = part[part["matched_to"] == method].pivot_table(index="draw", columns="fraction", values=metric)
                curve, theirs = ([held, *y, intact] for y in (mine, draws.mean()))
                areas = np.trapezoid([[held, *y, intact] for y in draws.to_numpy()], x, axis=1)
                auc = float(np.trapezoid(curve, x))
                shares = [
                    float(np.interp(intact - 0.1 * carried, np.maximum.accumulate(y), x)) for y in (curve, theirs)
                ]
                p = (1 + int((areas >= auc).sum())) / (DRAWS + 1)
                width = 1.96 * float(areas.std(ddof=1))
                row = {
                    "model": "run", "method": method, "ranked_by": method, "mode": "keep", "ablation": "mean",
                    "metric": metric, "module": module, "n_neurons": int(INDEX.table()["module"].eq(module).sum()),
                    "intact": intact, "held": held, "carried": carried, "carried_low": carried - 0.05,
                    "carried_high": carried + 0.05, "judged": judged, "n_draws": DRAWS, "auc": auc,
                    "auc_against": float(areas.mean()), "difference": auc - float(areas.mean()),
                    "ci_low": auc - float(areas.mean()) - width, "ci_high": auc - float(areas.mean()) + width,
                }  # fmt: skip
                tested = {
                    "p_value": p, "p_kind": "permutation", "p_holm": min(1.0, 5 * p),
                    "sufficient_share": shares[0], "sufficient_low": 0.85 * shares[0],
                    "sufficient_high": 1.15 * shares[0], "sufficient_share_against": shares[1],
                    "concentration": shares[1] / shares[0], "concentration_low": shares[1] / shares[0] / 1.15,
                    "concentration_high": shares[1] / shares[0] * 1.15,
                }  # fmt: skip
                rows.append(row | (tested if judged else dict.fromkeys(tested, np.nan) | {"p_kind": "none"}))
    frame = pd.DataFrame(rows)
    keys = frame[frame["module"] == "key"]
    even = {"concentration": 1.05, "concentration_low": 0.9, "concentration_high": 1.2}
    nulls = [keys.assign(model="label_shuffled", judged=False), keys.assign(model="random_weights", **even)]
    return pd.concat([frame, *nulls], ignore_index=True)


def _density_rows(neurons: pd.DataFrame, fractions: tuple[float, ...]) -> pd.DataFrame:
    rows = []
    for method in METHODS:
        for fraction in fractions:
            chosen = neurons.index.isin(neurons.nlargest(_count(fraction), method).index)
            for layer in range(-1, 6):
                for module in ("all", *MODULES):
                    inside = (neurons["layer"] == layer) | (layer == -1)
                    inside &= (neurons["module"] == module) | (module == "all")
                    total, selected = int(inside.sum()), int((chosen & inside).sum())
                    density = selected / total
                    rows.append((method, fraction, layer, module, total, selected, density, density / chosen.mean()))
    return pd.DataFrame(
        rows, columns=["method", "fraction", "layer", "module", "n_total", "n_selected", "density", "enrichment"]
    )


def _density(neurons: pd.DataFrame) -> pd.DataFrame:
    frame = _density_rows(neurons, (0.01, 0.02, 0.05))
    width = 0.12 + 0.25 / np.sqrt(frame["n_selected"] + 1)
    frame["ci_low"] = np.maximum(frame["enrichment"] * (1 - width), 0.0)
    frame["ci_high"] = frame["enrichment"] * (1 + width)
    drawn = (frame["fraction"] * len(INDEX) + 0.5).astype(int)
    frame["p_value"] = hypergeom.sf(frame["n_selected"] - 1, len(INDEX), frame["n_total"], drawn)
    frame["enrichment_permuted"] = 1.0
    frame["p_permutation"] = np.where(frame["enrichment"] > 1, 1e-3, np.maximum(frame["p_value"], 1e-3))
    frame["q_value"] = np.minimum(frame["p_permutation"] * 3, 1.0)
    return frame


def _curves_null(curves: pd.DataFrame) -> pd.DataFrame:
    """The null models by kinds: the intact model, every kind held, and the keys of one."""
    ends = curves[(curves["method"] == "intact") | (curves["method"] == "held")]
    keys = curves[(curves["scope"] == "module") & (curves["module"] == "key") & (curves["method"] != "held")]
    rows = [ends.assign(null="label_shuffled"), pd.concat([ends, keys]).assign(null="random_weights")]
    return pd.concat(rows, ignore_index=True)[list(SCHEMA["curves_null"])]


def _density_null(rng: np.random.Generator, neurons: pd.DataFrame) -> pd.DataFrame:
    frames = []
    for null, share in (("label_shuffled", 0.35), ("random_weights", 0.1)):
        blurred = neurons.copy()
        for method in METHODS:
            blurred[method] = share * neurons[method] + (1 - share) * rng.permutation(neurons[method].to_numpy())
        frames.append(_density_rows(blurred, (0.01, 0.02, 0.05)).assign(null=null))
    return pd.concat(frames, ignore_index=True)


def _null_fits(neurons: pd.DataFrame, null: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Three fits, of which the first is the largest."""
    fits = [null.assign(fit=fit, enrichment=null["enrichment"] * (1 - 0.1 * fit)) for fit in range(3)]
    together = pd.concat(fits, ignore_index=True)[list(SCHEMA["null_fits"])]
    return {"null_fits": together, "null_tests": tested(_density_rows(neurons, (0.01, 0.02, 0.05)), together)}


def _agreement(neurons: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for i, method in enumerate(METHODS):
        for other in METHODS[i + 1 :]:
            spearman = float(neurons[method].corr(neurons[other], method="spearman"))
            for fraction in (0.01, 0.02, 0.05):
                n = _count(fraction)
                first, second = (set(neurons.nlargest(n, column).index) for column in (method, other))
                rows.append((method, other, fraction, spearman, len(first & second) / n, n / len(neurons)))
    return pd.DataFrame(rows, columns=["method", "other", "fraction", "spearman", "overlap", "overlap_expected"])


def _knowledge(rng: np.random.Generator, neurons: pd.DataFrame, proteins: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """What neurons detect: concepts, associations of all neurons, motifs and cards of the selected ones."""
    concepts = pd.DataFrame(
        [
            ("C", "amino acid", "residue", 400, 1800, 1790, "sequence"),
            ("charged", "group", "residue", 440, 24000, 19000, "sequence"),
            ("GxSxG", "pattern", "residue", 31, 155, 31, "Brenner 1988"),
            ("ACT_SITE", "feature", "residue", 120, 201, 199, "sites.tsv"),
            ("class 3", "class", "protein", 100, 0, 0, "label"),
        ],
        columns=["concept", "kind", "level", "n_proteins", "n_residues", "n_domains", "source"],
    )
    keys = ["layer", "module", "neuron"]
    both = neurons[keys].loc[neurons.index.repeat(2)].reset_index(drop=True)
    n = len(both)
    q, precision, recall = rng.beta(0.5, 2, n), rng.beta(2, 3, n), rng.beta(2, 2, n)
    f1 = 2 * precision * recall / (precision + recall)
    associations = both.assign(
        sign=np.tile([1, -1], n // 2), rank=1, concept=rng.choice(concepts["concept"], n), threshold=rng.normal(size=n),
        precision=precision, recall=recall * 0.9, recall_domain=recall, f1=f1, f1_gain=f1 - 0.02,
        iou=f1 / (2 - f1), auroc=rng.beta(6, 3, n), discovery_f1=f1 + 0.02, discovery_auroc=rng.beta(6, 3, n),
        n_clusters=rng.integers(20, 60, n), p_value=q / 2, q_value=q, null_auroc=rng.normal(0.5, 0.02, n),
        confirmed=q < 0.05, auroc_beyond_letter=rng.beta(3, 3, n),
    )  # fmt: skip
    letters = neurons[keys].assign(
        r2_letter=rng.beta(0.5, 0.5, len(neurons)), highest="ILV", lowest="DEK",
    )  # fmt: skip
    letters = letters.assign(r2_window=letters["r2_letter"] ** 0.5)
    top = pd.concat(
        [
            neurons.nlargest(_count(0.02), method)[keys].assign(method=method, rank=range(1, _count(0.02) + 1))
            for method in METHODS
        ],
        ignore_index=True,
    )
    chosen = top[keys].drop_duplicates(ignore_index=True)
    motifs = chosen.assign(
        sign=1, consensus="G-x-S-x-G", width=5, anchor=2, n_windows=60, n_fired=412,
        information_bits=rng.uniform(2, 14, len(chosen)),
        auroc_held_out=rng.beta(6, 3, len(chosen)), enrichment=rng.uniform(1, 30, len(chosen)),
        group=np.arange(len(chosen)) % 7,
        matrix=[rng.dirichlet(np.full(20, 0.2), 5).ravel().tolist() for _ in range(len(chosen))],
        classes=json.dumps({"3": {"share": 0.71, "enrichment": 3.2}}),
        annotations=json.dumps({"ACT_SITE": {"share": 0.3, "enrichment": 41.0}}),
        auroc_beyond_letter=rng.beta(6, 3, len(chosen)),
    )  # fmt: skip
    strips = []
    for _ in range(len(top)):
        some = proteins.sample(3, random_state=int(rng.integers(2**31)))
        strips.append(
            json.dumps(
                [
                    {
                        "id": p.id, "position": 21, "start": 11, "sequence": p.sequence[10:31],
                        "activation": np.round(rng.normal(size=21), 3).tolist(),
                        "sites": [[14, "ACT_SITE"], *([position, "GxSxG"] for position in range(19, 24))],
                    }
                    for p in some.itertuples()
                ]
            )
        )  # fmt: skip
    explained = rng.random(len(top)) < 0.6
    where = [f"{m} {i}, layer {layer}" for layer, m, i in top[keys].itertuples(index=False)]
    said = [
        "Fires on GxSxG, AUROC 0.91 on held-out clusters" if e else "Neither a concept nor a motif explains this neuron"
        for e in explained
    ]
    cards = top.assign(
        sign=1, sentence=[f"{text}; {place}." for text, place in zip(said, where, strict=True)], explained=explained,
        concept=np.where(explained, "GxSxG", ""), auroc=np.where(explained, 0.91, np.nan),
        f1=np.where(explained, 0.62, np.nan), motif=np.where(explained, "G-x-S-x-G", ""), top_proteins=strips,
    )  # fmt: skip
    cards = cards.merge(letters[[*keys, "r2_letter", "r2_window"]], on=keys)
    knows = np.where(cards["r2_letter"] >= 0.9, "letter", np.where(cards["auroc"].notna(), "more", ""))
    cards = cards.assign(knows=knows, explained=knows != "", auroc_beyond_letter=np.where(knows == "more", 0.8, np.nan))
    attributed = pd.DataFrame(
        [("ACT_SITE", "input", 31, 0.71, 0.5, 1e-4, 2e-4, 0.6, 0.01, 0.02)],
        columns=[
            "concept", "of", "n_clusters", "auroc", "null_auroc", "p_value", "q_value", "auroc_same_letter",
            "p_same_letter", "q_same_letter",
        ],
    )  # fmt: skip
    tables = {"concepts": concepts, "associations": associations, "motifs": motifs, "neuron_cards": cards}
    baselines = pd.DataFrame([("class 3", 40, 81, 0.58, 0.71)], columns=list(SCHEMA["class_baselines"]))
    searched = motifs[[*keys, "sign"]]
    n = len(searched)
    found, single = rng.beta(2, 6, n), rng.beta(2, 8, n)
    formulas = searched.assign(
        formula="(C OR near(GxSxG, 1)) AND NOT first 20 residues", length=3, discovery_iou=found + 0.02, iou=found,
        precision=rng.beta(2, 3, n), recall=rng.beta(2, 3, n), atom="C", atom_iou=single, gain=found - single,
        n_clusters=rng.integers(20, 60, n), p_value=rng.beta(0.5, 3, n), null_gain=rng.normal(-0.01, 0.003, n),
        null_p_value=rng.random(n),
    )  # fmt: skip
    area, letter = rng.beta(8, 3, n), rng.beta(5, 3, n)
    descriptions = searched.assign(
        source="template", sentence="Highest on GxSxG or in class 3", phrases=json.dumps(["GxSxG", "class 3"]), pmi=1.9,
        exemplars_explained=rng.integers(6, 16, n), simulation_r=area - 0.5, simulation_auroc=area,
        letter_r=letter - 0.5, letter_auroc=letter, others_r=0.0, others_auroc=0.5, n_others=40,
        p_value=rng.beta(0.5, 3, n), q_value=rng.beta(0.5, 3, n), counts=area > letter,
    )  # fmt: skip
    described = {"formulas": formulas.assign(q_value=formulas["p_value"]), "descriptions": descriptions}
    best = pd.concat(
        [
            neurons[keys].sample(20, random_state=number).assign(concept=concept, sign=sign, rank=range(1, 21))
            for number, concept in enumerate(concepts["concept"]) for sign in (1, -1)
        ],
        ignore_index=True,
    )  # fmt: skip
    best = best.assign(
        discovery_iou=1 / (1 + best["rank"]), iou=0.9 / (1 + best["rank"]), precision=rng.beta(2, 3, len(best)),
        recall=rng.beta(2, 3, len(best)),
    )  # fmt: skip
    curves = pd.DataFrame(
        [
            (task, "protein" if task == "class" else "residue", method, chosen, n, at * (1 + np.log10(n)), at, 0.2,
             at * (1 + np.log10(n)) - 0.2)
            for task in ("class", "ACT_SITE")
            for method, chosen, at in (("", "random", 0.2), ("probe", "top", 0.3), ("probe", "bottom", 0.15),
                                       ("probe", "distinct", 0.3), ("", "all", 0.2))
            for n in ((len(INDEX),) if chosen == "all" else (1, 10, 100))
        ],
        columns=list(SCHEMA["probe_curves"]),
    )  # fmt: skip
    layers = pd.DataFrame(
        [
            (task, "residue", mass, layer, module, int(mass * 10) + layer)
            for task in ("class", "ACT_SITE") for mass in (0.25, 0.5, 0.75) for layer in range(6) for module in MODULES
        ],
        columns=list(SCHEMA["probe_layers"]),
    )  # fmt: skip
    made = pd.concat(
        [searched.head(5).assign(of=of, start=start, agreement=6.0 if of == "neuron" else 1.0)
         for of in ("neuron", "direction", "random_weights") for start in ("random", "natural", "reversed")],
        ignore_index=True,
    )  # fmt: skip
    made = made.assign(
        matrix=[rng.dirichlet(np.full(20, 0.2), 15).ravel().tolist() for _ in range(len(made))],
        window="mssqkWaCftfesfw", relaxed_activation=10.1, discrete_activation=4.9, percentile=0.99,
        nearest_letter="C", cosine=0.3,
    )  # fmt: skip
    described["maximised"] = made
    described |= {"probe_curves": curves, "probe_layers": layers}
    two = proteins.head(2)
    structures = two[["id", "sequence"]].assign(told="x.pdb, chain A: all residues have coordinates", pdb="END\n")
    views = searched.head(6).assign(id=np.resize(two["id"], 6))
    lengths = dict(zip(two["id"], two["sequence"].str.len(), strict=True))
    views = views.assign(activation=[rng.uniform(-1, 1, lengths[name]).round(3).tolist() for name in views["id"]])
    described |= {"card_views": views, "card_structures": structures}
    more = {"attributed_residues": attributed, "letters": letters, "class_baselines": baselines}
    return tables | described | more | {"concept_neurons": best}


def _interventions(rng: np.random.Generator, neurons: pd.DataFrame, proteins: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Each class's neurons lower that class; matched draws lower every class a little."""
    sizes = proteins[proteins["split"] == "test"].groupby("label").size()
    rows, effects = [], []
    for label in LABELS:
        for factor in (np.nan, 0.0, 0.5, 2.0, 4.0):
            strength = 0.35 if np.isnan(factor) else 0.5 * (1 - factor) if factor < 1 else -0.03 * (factor - 1)
            draws = 8 if np.isnan(factor) or factor in (0, 2) else 0
            common = {
                "method": "integrated_gradients", "label": label, "factor": factor, "fraction": 0.02,
                "mode": "enhance" if factor > 1 else "suppress",
            }  # fmt: skip
            found: dict[str, list[float]] = {}
            for draw in range(-1, draws):
                for other in LABELS:
                    size = strength * (0.1 if draw >= 0 else 1.0 if other == label else 0.25)
                    change = -size + rng.normal(0, 0.01)
                    found.setdefault(other, []).append(change)
                    lost = round(max(0.0, -change) * sizes[other])
                    rows.append(
                        common
                        | {
                            "effect_on": other, "n_neurons": _count(0.02), "draw": draw, "n_proteins": sizes[other],
                            "control": "random_matched" if draw >= 0 else "", "probability": 0.66,
                            "probability_change": change, "log_odds_change": 5 * change,
                            "label_probability_change": change / 2, "decisions_changed": lost + 1,
                            "decisions_right": max(lost, sizes[other] - 1),
                            "decisions_lost": lost, "decisions_gained": 1,
                        }
                    )  # fmt: skip
            found[""] = list(np.mean([found[other] for other in LABELS if other != label], axis=0))
            for other, changes in found.items():
                own, against = changes[0], np.array(changes[1:])
                n = int(sizes.sum() - sizes[label]) if other == "" else int(sizes[other])
                tested = len(against) > 1
                difference = own - against.mean() if tested else np.nan
                effects.append(
                    common
                    | {
                        "effect_on": other, "n_proteins": n, "probability_change": own, "difference": difference,
                        "against": against.mean() if tested else np.nan, "ci_low": difference - 0.05,
                        "ci_high": difference + 0.05, "p_kind": "permutation" if tested else "none",
                        "p_value": student.sf(abs(difference) / (against.std() * 1.1), 7) if tested else np.nan,
                        "n_draws": len(against), "draws_beaten": int((own < against).sum()),
                        "decisions_right": n - 1, "decisions_lost": round(max(0.0, -own) * (n - 1)),
                        "decisions_lost_against": max(0.0, -against.mean()) * n if tested else np.nan,
                    }
                )  # fmt: skip
    table = pd.DataFrame(effects)
    keys = ["layer", "module", "neuron"]
    single = [
        dict(where)
        | {
            "effect_on": label, "n_proteins": 10, "probability_change": rng.normal(-0.01, 0.02),
            "log_odds_change": rng.normal(-0.1, 0.1), "decisions_right": 7, "decisions_changed": 1, "decisions_lost": 1,
            "decisions_gained": 0,
        }
        for where in neurons.nlargest(_count(0.02), "integrated_gradients")[keys].to_dict("records")
        for label in LABELS
    ]  # fmt: skip
    pairs = [(one, other) for i, one in enumerate(LABELS) for other in LABELS[i + 1 :]]
    shared = rng.integers(4, 20, len(pairs))
    n = _count(0.02)
    overlap = pd.DataFrame(pairs, columns=["label", "other"]).assign(
        method="integrated_gradients", fraction=0.02, n=n, n_other=n, shared=shared, jaccard=shared / (2 * n - shared),
        jaccard_expected=0.04, p_value=rng.beta(0.3, 3, len(pairs)), q_value=rng.beta(0.5, 3, len(pairs)),
    )  # fmt: skip
    stability = pd.DataFrame(
        [
            (label, other, share)
            for other, share in (("halves", 0.45), ("label_shuffled", 0.06), ("random_weights", 0.03))
            for label in (("", *LABELS) if other == "halves" else ("",))
        ],
        columns=["label", "compared_with", "jaccard"],
    ).assign(
        method="integrated_gradients", fraction=0.02, n=n, n_other=n, shared=12, jaccard_expected=0.03, p_value=0.01,
        spearman=0.4,
    )  # fmt: skip
    return {
        "interventions": pd.DataFrame(rows), "intervention_effects": table.assign(q_value=table["p_value"]),
        "neuron_effects": pd.DataFrame(single), "class_overlap": overlap, "stability": stability,
    }  # fmt: skip


def _metrics(proteins: pd.DataFrame) -> dict[str, Any]:
    def block(split: str, balanced: float) -> dict[str, Any]:
        counts = proteins.loc[proteins["split"] == split, "label"].value_counts()
        shift = np.linspace(0.08, -0.08, len(LABELS))
        return {
            "n": int(counts.sum()),
            "accuracy": balanced + 0.03,
            "balanced_accuracy": balanced,
            "macro_f1": balanced - 0.01,
            "mcc": max(0.0, (balanced - 1 / 6) * 1.2),
            "log_loss": 2.2 - 1.9 * balanced,
            "per_class": {
                label: {
                    "n": int(counts[label]),
                    "precision": float(np.clip(balanced + s / 2, 0, 1)),
                    "recall": float(np.clip(balanced + s, 0, 1)),
                    "f1": float(np.clip(balanced + s * 0.75, 0, 1)),
                }
                for label, s in zip(LABELS, shift, strict=True)
            },
        }

    return {
        "labels": list(LABELS),
        "splits": {
            split: {
                "model": block(split, balanced),
                "majority": block(split, 1 / 6),
                "composition": block(split, composition),
            }
            for split, balanced, composition in (
                ("test", INTACT["balanced_accuracy"], 0.402),
                ("validation", 0.728, 0.41),
            )
        },
    }


def _faithfulness() -> pd.DataFrame:
    """Conductance is best, attribution patching nearly as good and cheap."""
    rows = []
    for method, signed, r, seconds in (
        ("single_ablation", True, 1.0, 40.0), ("single_ablation_abs", False, 1.0, 40.0),
        ("activation", False, 0.2, 0.1), ("conductance_abs", False, 0.9, 5.0),
        ("attribution_patching_abs", False, 0.87, 0.3),
    ):  # fmt: skip
        rows.append(
            {
                "method": method, "signed": signed, "rank_r": r, "rank_r_within": r - 0.1, "top_share": r,
                "keep": 0.2 + r / 5, "ablate": 0.6 - r / 5, "keep_random": 0.22, "ablate_random": 0.55, "intact": 0.7,
                "split_half": 0.8, "cpu_seconds": seconds, "n_proteins": 12, "n_neurons": 960,
                "recommended": method == "attribution_patching_abs",
            }
        )  # fmt: skip
    return pd.DataFrame(rows)
