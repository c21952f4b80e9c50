"""What length and composition alone tell of a class: made proteins with known answers, and scikit-learn."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from plmscope.data.proteins import Protein
from plmscope.knowledge.class_baselines import class_baselines, with_baselines
from plmscope.knowledge.concepts import build_concepts
from plmscope.report.classes import explained_classes
from plmscope.store.schema import SCHEMA


def made(seed: int, n: int = 120) -> list[Protein]:
    """Class "short" by its length alone, "rich" by its letters alone, "any" by nothing."""
    rng = np.random.default_rng(seed)
    found = []
    for k in range(n):
        label = ("short", "rich", "any", "other")[k % 4]
        length = int(rng.integers(30, 41) if label == "short" else rng.integers(60, 120))
        letters = "ACDEFGHIKLMNPQRSTVWY" + ("WWWWWWWWWW" if label == "rich" else "")
        found.append(Protein(f"s{seed}p{k}", "".join(rng.choice(list(letters), length)), label))
    return found


def test_what_each_tells() -> None:
    train, held = made(0), made(1)
    concepts = build_concepts(train, kinds=("class",), min_proteins=5)
    table = class_baselines(train, held, concepts).set_index("concept")
    assert list(table.reset_index().columns) == list(SCHEMA["class_baselines"]) and len(table) == 4
    assert (table["n_with"] == 30).all() and (table["n_without"] == 90).all()
    assert table.loc["class short", "auroc_length"] == 1.0 and table.loc["class short", "auroc_composition"] > 0.95
    assert table.loc["class rich", "auroc_composition"] > 0.95 and table.loc["class rich", "auroc_length"] < 0.8
    # By a second route: standardised by hand; the shorter first, whatever the side of the class.
    features = [
        np.array([[p.sequence.count(a) / len(p) for a in "ACDEFGHIKLMNPQRSTVWY"] + [np.log(len(p))] for p in some])
        for some in (train, held)
    ]
    x, other = ((f - features[0].mean(0)) / features[0].std(0) for f in features)
    for label in ("rich", "any"):
        y, true = (np.array([p.label == label for p in some]) for some in (train, held))
        fitted = LogisticRegression(max_iter=2000, class_weight="balanced").fit(x, y)
        expected = roc_auc_score(true, fitted.decision_function(other))
        assert table.loc[f"class {label}", "auroc_composition"] == pytest.approx(expected, abs=1e-3)
        side = 1 if roc_auc_score(y, x[:, -1]) >= 0.5 else -1
        expected = roc_auc_score(true, side * other[:, -1])
        assert table.loc[f"class {label}", "auroc_length"] == pytest.approx(expected)


def test_proteins_whose_class_is_not_known_have_no_part() -> None:
    train, held = made(0), made(1)
    concepts = build_concepts(train, kinds=("class",), min_proteins=5)
    more = [*held, *(Protein(f"u{k}", "W" * 35) for k in range(20))]
    pd.testing.assert_frame_equal(class_baselines(train, more, concepts), class_baselines(train, held, concepts))
    one_sided = class_baselines(train, [p for p in held if p.label == "short"], concepts)
    assert one_sided[["auroc_length", "auroc_composition"]].isna().all().all()
    assert class_baselines(train, [], concepts)["n_with"].eq(0).all()


BASELINES = pd.DataFrame(
    [("EC 3.1.11", 9, 90, 0.97, 0.91), ("EC 1", 30, 69, 0.6, 0.7), ("EC 9", 1, 98, np.nan, np.nan)],
    columns=list(SCHEMA["class_baselines"]),
)
CARDS = pd.DataFrame(
    [
        (0, "key", 1, "Higher in EC 3.1.11; key.", True, "EC 3.1.11", 0.95),
        (0, "key", 2, "Higher in EC 1; key.", True, "EC 1", 0.9),
        (0, "key", 3, "Higher in EC 1; key.", True, "EC 1", 0.65),
        (0, "key", 4, "Fires on W; key.", True, "tryptophan (W)", 0.9),
        (0, "key", 5, "Neither explains.", False, "EC 1", 0.9),
        (0, "key", 6, "Higher in EC 9; key.", True, "EC 9", 0.9),
    ],
    columns=["layer", "module", "neuron", "sentence", "explained", "concept", "auroc"],
)


def test_cards_tell_it() -> None:
    said = with_baselines(CARDS, BASELINES)["sentence"].tolist()
    assert said[0] == (
        "Higher in EC 3.1.11; key. Of EC 3.1.11, length alone reaches AUROC 0.97, composition and length 0.91: the "
        "neuron no more."
    )
    assert said[1].endswith("Of EC 1, length alone reaches AUROC 0.60, composition and length 0.70.")
    assert said[2].endswith("0.70: the neuron no more.")
    assert said[3:] == CARDS["sentence"].tolist()[3:]


def test_the_report_counts_the_neurons_that_go_beyond() -> None:
    tables = {"neuron_cards": CARDS, "class_baselines": BASELINES}
    results = SimpleNamespace(get=tables.get, class_name=str)
    table = explained_classes(results)  # type: ignore[arg-type]
    assert table is not None and "1 of the 3 neurons order them better than both" in table.caption
    rows = [[cell.text for cell in row.cells] for row in table.rows]
    assert rows == [
        ["EC 1", "30", "2", "0.90", "0.78", "0.60", "0.70", "1"],
        ["EC 3.1.11", "9", "1", "0.95", "0.95", "0.97", "0.91", "0"],
    ]
    tables["neuron_cards"] = CARDS.iloc[3:5]
    assert explained_classes(results) is None  # type: ignore[arg-type]
