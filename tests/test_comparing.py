"""Runs compared: what an estimate over runs is, what may not be combined, and what the page says."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import plmscope
from plmscope.cli import main
from plmscope.comparing.answers import key_lead
from plmscope.comparing.beyond import COLUMNS as BEYOND
from plmscope.comparing.beyond import knowledge, layout
from plmscope.comparing.comparison import REPORT, TEXT, Comparison, compare_runs
from plmscope.comparing.estimates import estimate
from plmscope.comparing.members import divides, gather
from plmscope.comparing.tables import COMPARED
from plmscope.comparing.text import markdown
from plmscope.errors import RunError
from plmscope.report.blocks import Section, Table, TableRow, cell
from plmscope.store.folder import Run
from plmscope.store.schema import SCHEMA
from tests.fake_run import make_fake_run
from tests.test_readme import PAGES


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four finished runs of one study; the last is to be exploratory."""
    folder = tmp_path_factory.mktemp("runs")
    first = make_fake_run(folder / "seed0")
    few = {"method": ["activation", "integrated_gradients"], "fraction": [0.02, 0.05]}
    for name in ("selections", "comparison", "modules", "density", "density_null", "completeness"):
        frame = first.table(name)
        for column in frame.columns.intersection(list(few)):
            frame = frame[frame[column].isin(few[column])]
        first.write_table(name, frame)
    curves = first.table("curves")
    first.write_table("curves", curves[curves["draw"] < 3])
    for seed in range(1, 4):
        another(first, folder / f"seed{seed}", seed)
    return folder


def another(first: Run, folder: Path, seed: int) -> None:
    """The same run as another seed might have ended."""
    run, rng = Run.open(shutil.copytree(first.path, folder)), np.random.default_rng(seed)
    text = (folder / "study.toml").read_text()
    (folder / "study.toml").write_text(text.replace("seed = 0", f"seed = {seed}"))
    edited(folder, "manifest.json", seed=seed)
    for name, columns in (
        ("comparison", ("difference", "ci_low", "ci_high")),
        ("modules", ("carried", "concentration")),
        ("density", ("enrichment",)),
    ):
        frame = run.table(name)
        factor = np.exp(0.3 * rng.normal(size=len(frame)))
        run.write_table(name, frame.assign(**{column: frame[column] * factor for column in columns}))
    chosen = run.table("selections")
    width = np.where(chosen["module"] == "intermediate", 128, 32)
    run.write_table("selections", chosen.assign(neuron=(chosen["neuron"] + seed) % width))


@pytest.fixture(scope="module")
def found(made: Path) -> Comparison:
    return compare_runs([made / f"seed{i}" for i in range(3)], exploratory=[made / "seed3"])


def changed(made: Path, folder: Path, old: str, new: str, seed: int = 1) -> Path:
    """A copy of a run with another line in its study."""
    copy = Path(shutil.copytree(made / f"seed{seed}", folder))
    text = (copy / "study.toml").read_text()
    assert old in text
    (copy / "study.toml").write_text(text.replace(old, new))
    return copy


def edited(run: Path, name: str, **changes: Any) -> Path:
    """Change keys of a JSON file of a run."""
    content = json.loads((run / name).read_text())
    (run / name).write_text(json.dumps(content | changes))
    return run


# --- the estimate


def test_the_interval_is_that_of_a_t_test() -> None:
    values = np.array([0.12, 0.05, 0.2, -0.03, 0.11])
    found = estimate(values)
    other = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((other.low, other.high), rel=1e-12)
    assert (found.n, found.mean, found.sd) == (5, pytest.approx(0.09), pytest.approx(values.std(ddof=1)))
    assert (found.smallest, found.largest) == (-0.03, 0.2)


def test_ratios_are_averaged_as_logarithms() -> None:
    found = estimate([2.0, 8.0, 0.0, float("nan")], ratio=True)
    other = stats.ttest_1samp(np.log([2.0, 8.0]), 0.0).confidence_interval(0.95)
    assert (found.n, found.mean) == (2, pytest.approx(4.0))
    assert (found.low, found.high) == pytest.approx((np.exp(other.low), np.exp(other.high)))


def test_one_run_and_runs_that_agree_have_no_interval() -> None:
    one, same, none = estimate([0.3]), estimate([0.3, 0.3, 0.3]), estimate([float("nan")])
    assert (one.n, one.mean) == (1, 0.3)
    assert np.isnan([one.sd, one.low, one.high]).all()
    assert (same.n, same.sd) == (3, 0.0)
    assert np.isnan([same.low, same.high]).all()
    assert (none.n, np.isnan(none.mean)) == (0, True)


# --- runs together


def test_combined_rows_are_the_means_of_the_runs_own_tables(found: Comparison, made: Path) -> None:
    cell_of = {
        "method": "integrated_gradients", "against": "random_matched", "scope": "pooled", "mode": "keep",
        "ablation": "mean", "metric": "balanced_accuracy",
    }  # fmt: skip
    own = []
    for seed in range(3):
        table = plmscope.open_run(made / f"seed{seed}").run.table("comparison")
        own.append(table.loc[(table[list(cell_of)] == pd.Series(cell_of)).all(axis=1)].iloc[0])
    combined = found.table("combined").query("quantity == 'difference'")
    row = combined.loc[(combined[list(cell_of)] == pd.Series(cell_of)).all(axis=1)].iloc[0]
    differences = [one["difference"] for one in own]
    assert (row["n"], row["mean"]) == (3, pytest.approx(np.mean(differences)))
    other = stats.ttest_1samp(differences, 0.0).confidence_interval(0.95)
    assert (row["low"], row["high"]) == pytest.approx((other.low, other.high))
    assert row["beat"] == sum(one["p_value"] < 0.05 and one["ci_low"] > 0 for one in own)


def test_exploratory_runs_are_shown_and_in_no_estimate(found: Comparison, made: Path) -> None:
    assert found.table("combined")["n"].max() == 3
    assert set(found.table("outcomes")["run"]) == {f"seed{i}" for i in range(4)}
    assert set(found.table("outcomes").query("role == 'exploratory'")["run"]) == {"seed3"}
    assert "exploratory, in no estimate: seed3" in repr(found)
    every = compare_runs([made / f"seed{i}" for i in range(4)])
    assert every.table("combined")["n"].max() == 4
    marked = compare_runs([made / f"seed{i}" for i in range(4)], exploratory=[made / "seed3"])
    pd.testing.assert_frame_equal(marked.table("combined"), found.table("combined"))


def test_one_run_is_no_sample(made: Path) -> None:
    found = compare_runs([made / "seed0"])
    assert found.table("combined")[["low", "high"]].isna().all().all()
    assert "One run is no sample" in repr(found)
    assert not len(found.table("neurons"))


def test_what_a_kind_carries_is_counted_once_a_run(found: Comparison) -> None:
    rows = found.table("combined").query("quantity == 'carried' and metric == 'balanced_accuracy'")
    assert (rows["method"] == "").all()
    assert not rows.duplicated(["model", "module"]).any()
    rows = rows[rows["model"] == "run"]
    key = found.table("kinds").query("module == 'key' and metric == 'balanced_accuracy' and role == 'confirmation'")
    expected = key.drop_duplicates("run")["carried"].mean()
    assert rows.set_index("module").loc["key", "mean"] == pytest.approx(expected)


def test_keys_are_compared_with_the_next_kind_of_the_same_run(found: Comparison) -> None:
    kinds = found.table("kinds").query(
        "metric == 'balanced_accuracy' and mode == 'keep' and ablation == 'mean' and role == 'confirmation' "
        "and method == 'integrated_gradients' and model == 'run' and judged"
    )
    ratios = []
    for _, part in kinds.groupby("run"):
        by_kind = part.set_index("module")["concentration"]
        ratios.append(by_kind["key"] / by_kind.drop("key").max())
    lead = key_lead(found, found.groups[0], "integrated_gradients")
    assert (lead.n, lead.mean) == (3, pytest.approx(np.exp(np.mean(np.log(ratios)))))


def test_the_same_neurons_are_counted(made: Path, tmp_path: Path) -> None:
    copy = changed(made, tmp_path / "copy", "seed = 1", "seed = 11")
    pairs = compare_runs([made / "seed1", copy]).table("neurons")
    assert (pairs["jaccard"] == 1).all()
    assert (pairs["jaccard_expected"] < 1).all()
    apart = compare_runs([made / "seed1", made / "seed2"]).table("neurons")
    one, two = (plmscope.open_run(made / f"seed{i}").run.table("selections") for i in (1, 2))
    key, neuron = ["method", "scope", "fraction"], ["layer", "module", "neuron"]
    shared = one.merge(two, on=[*key, *neuron]).groupby(key).size()
    assert apart.set_index(key)["shared"].sort_index().to_dict() == shared.sort_index().to_dict()


def test_neurons_of_other_checkpoints_are_not_compared(made: Path, tmp_path: Path) -> None:
    other = changed(made, tmp_path / "other", "esm2_t6_8M_UR50D", "esm2_t12_35M_UR50D")
    edited(other, "manifest.json", model={"id": "x", "sha256": "ef" * 32, "layers": 6, "hidden": 32})
    found = compare_runs([made / "seed0", other])
    assert not len(found.table("neurons"))
    assert len(found.groups) == 2
    assert "do not correspond" in found.markdown()


# --- groups


def test_settings_that_move_the_outcome_divide_runs(made: Path, tmp_path: Path) -> None:
    mean = changed(made, tmp_path / "mean", 'baseline = "zero"', 'baseline = "mean"')
    found = compare_runs([made / "seed0", made / "seed1", mean])
    assert found.groups == ("baseline = zero", "baseline = mean")
    combined = found.table("combined").query("quantity == 'balanced_accuracy'").set_index("group")
    assert combined["n"].to_dict() == {"baseline = zero": 2, "baseline = mean": 1}
    settings = found.table("settings").set_index(["setting", "run"])
    assert settings.loc[("score.baseline", "mean"), ["value", "divides"]].tolist() == ["mean", True]
    assert "Between groups" in found.html()


def test_settings_that_only_add_rows_do_not_divide(made: Path, tmp_path: Path) -> None:
    more = changed(made, tmp_path / "more", "draws = 20", "draws = 99")
    found = compare_runs([made / "seed0", more])
    assert len(found.groups) == 1
    assert set(found.table("settings")["setting"]) == {"seed", "evaluate.draws"}
    assert not divides("report.knowledge_fraction")
    assert divides("evaluate.fractions")  # areas of other grids are other numbers


def test_files_are_known_by_what_is_in_them(made: Path, tmp_path: Path) -> None:
    moved = changed(made, tmp_path / "moved", 'path = "plmscope:enzymes"', 'path = "/elsewhere/enzymes.fasta"')
    assert len(compare_runs([made / "seed0", moved]).groups) == 1
    edited(moved, "manifest.json", data={"sha256": "12" * 32})
    assert len(compare_runs([made / "seed0", moved]).groups) == 2
    same_name = changed(made, tmp_path / "same", "seed = 1", "seed = 12")
    edited(same_name, "manifest.json", data={"sha256": "34" * 32})
    groups = compare_runs([made / "seed0", same_name]).groups
    assert groups == ("path = plmscope:enzymes", "path = plmscope:enzymes (sha256 34343434)")


# --- refusals


def test_what_cannot_be_combined_is_refused_by_name(made: Path, tmp_path: Path) -> None:
    def refused(*runs: Path) -> str:
        with pytest.raises(RunError) as error:
            gather([made / "seed0", *runs])
        assert "\n" not in str(error.value)
        return str(error.value)

    def copy(name: str) -> Path:
        return Path(shutil.copytree(made / "seed1", tmp_path / name))

    classes = edited(copy("classes"), "metrics.json", labels=["1", "2"])
    assert refused(classes) == (
        f"{made / 'seed0'} and {classes} cannot be compared: their classes differ (1, 2, 3, 4, 5, 6 against 1, 2); "
        "compare runs of one task"
    )
    task = edited(copy("task"), "metrics.json", task="multi")
    assert "one has the task single, the other multi" in refused(task)
    old = edited(copy("old"), "manifest.json", schema_version="0.9")
    assert refused(old).startswith(f"{old}: schema_version '0.9'")
    twice = copy("twice")
    assert "one study with one seed, 1, and so one observation" in refused(made / "seed1", twice)
    half = copy("half")
    stages = json.loads((half / "manifest.json").read_text())["stages"]
    edited(half, "manifest.json", stages=stages | {"evaluate": {"status": "running"}})
    assert f"{half}: its stage 'evaluate' is not finished; continue it with: plmscope run" in refused(half)
    assert "no such run folder" in refused(tmp_path / "nowhere")


def test_a_sweep_stands_for_its_finished_runs(made: Path, tmp_path: Path) -> None:
    entries = [{"run": "seed0", "status": "done"}, {"run": "seed1", "status": "failed", "reason": "x"}]
    for name in ("seed0", "seed1"):
        shutil.copytree(made / name, tmp_path / name)
    (tmp_path / "sweep.json").write_text(json.dumps({"runs": entries}))
    assert [member.name for member in gather([tmp_path])] == ["seed0"]
    (tmp_path / "sweep.json").write_text(json.dumps({"runs": entries[1:]}))
    with pytest.raises(RunError, match="none of its 1 runs is finished"):
        gather([tmp_path])
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(RunError, match="name the run folders themselves"):
        gather([tmp_path])


def test_names_tell_runs_apart(made: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        shutil.copytree(made / ("seed0" if name == "a" else "seed1"), tmp_path / name / "run")
    assert [m.name for m in gather([tmp_path / "a" / "run", tmp_path / "b" / "run"])] == ["a/run", "b/run"]


# --- what is written


def test_tables_have_their_columns_on_disk(found: Comparison, tmp_path: Path) -> None:
    page = found.write(tmp_path / "compared")
    assert page.name == REPORT
    for name, columns in COMPARED.items():
        frame = pd.read_parquet(tmp_path / "compared" / f"compared_{name}.parquet")
        assert tuple(frame.columns) == columns
        assert len(pd.read_csv(tmp_path / "compared" / f"compared_{name}.csv")) == len(frame)
    assert (tmp_path / "compared" / TEXT).read_text() == found.markdown()
    with pytest.raises(RunError, match="is a run folder"):
        found.write(found.members[0].run.path)


def test_few_runs_are_said_to_be_few(made: Path, tmp_path: Path) -> None:
    one = compare_runs([made / "seed0"]).markdown()
    assert "One run is too few for an interval over runs that lies above 0." in one
    ratio = re.search(r"keys [0-9.]+ \(n = 1\), which is [0-9.]+ times that of the next kind of the same run;", one)
    assert ratio
    two = Path(shutil.copytree(made / "seed1", tmp_path / "two"))
    metrics = json.loads((two / "metrics.json").read_text())
    metrics["splits"]["test"]["model"]["balanced_accuracy"] = (
        0.99  # another margin: an interval of one degree of freedom
    )
    (two / "metrics.json").write_text(json.dumps(metrics))
    said = compare_runs([made / "seed0", two]).markdown()
    assert "Two runs are too few for an interval over runs that lies above 0." in said


def test_the_page_of_many_runs_has_all_columns() -> None:
    rows = dict(re.findall(r"^\| `compared_(\w+)` \|(.*)$", PAGES["docs/many-runs.md"], re.MULTILINE))
    assert set(rows) == set(COMPARED)
    for table, columns in COMPARED.items():
        assert not [column for column in columns if f"`{column}`" not in rows[table]], table


def test_the_page_asks_for_nothing_and_escapes_names(made: Path, tmp_path: Path) -> None:
    odd = Path(shutil.copytree(made / "seed1", tmp_path / "a<b>|c"))
    found = compare_runs([made / "seed0", odd])
    page = found.html()
    assert "a&lt;b&gt;|c" in page
    assert "<b>|c" not in page
    outside = [a for a in re.findall(r'(?:src|href)="([^"]*)"', page) if not a.startswith(("#", "data:"))]
    assert not outside
    assert "a<b>\\|c" in found.markdown()
    tables = [line for line in found.markdown().splitlines() if line.startswith("| --- |")]
    assert len(tables) > 8


def test_markdown_says_what_a_table_says() -> None:
    table = Table("t", "Caption.", (("name", False), ("x", True)), (TableRow((cell("a|b"), cell("−1", -1, "n = 2"))),))
    assert markdown((), (Section("s", "Title", (table,)),)) == (
        "### Title\n\nCaption.\n\n| name | x |\n| --- | --: |\n| a\\|b | -1 (n = 2) |\n"
    )


def test_the_command(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(made / f"seed{i}") for i in range(3)]
    assert main(["compare", *runs, "--out", str(tmp_path / "x"), "--markdown"]) == 0
    said = capsys.readouterr()
    assert said.out == (tmp_path / "x" / TEXT).read_text()
    assert said.err == f"wrote {tmp_path / 'x' / REPORT}\n"
    assert main(["compare", *runs[:2], "--exploratory", runs[2]]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "exploratory, in no estimate: seed2"
    assert main(["compare", str(tmp_path)]) == 2
    assert "not a plmscope run folder" in capsys.readouterr().err


# --- what chosen neurons know, and how knowledge is laid out


class FakeMember:
    """Only tables and settings."""

    def __init__(self, **tables: pd.DataFrame) -> None:
        self.tables = tables
        self.settings = {"characterize.min_gain": 0.5, "characterize.min_auroc": 0.8}

    def table(self, name: str) -> pd.DataFrame:
        return self.tables.get(name, pd.DataFrame(columns=list(SCHEMA[name])))


def test_what_neurons_know_is_set_beside_others_of_their_sites() -> None:
    """Two sites of ten neurons; three chosen of one and one of the other: the expectation weighs them 3 to 1."""
    neurons = pd.DataFrame(
        [(layer, "key", n) for layer in (0, 1) for n in range(10)], columns=["layer", "module", "neuron"]
    )
    letters = neurons.assign(
        r2_letter=[0.95] * 3 + [0.95, 0.1] + [0.1] * 5 + [0.95] * 5 + [0.1] * 5, r2_window=1.0, highest="W", lowest="A"
    )
    found = neurons.assign(
        sign="+", rank=1, concept=["tryptophan (W)"] * 10 + ["ACT_SITE"] * 10, f1_gain=0.6, auroc=0.9,
        p_value=1e-9, confirmed=[True] * 10 + [False] * 9 + [True],
    )  # fmt: skip
    concepts = pd.DataFrame({"concept": ["tryptophan (W)", "ACT_SITE"], "kind": ["amino acid", "feature"]})
    chosen = neurons[[(layer == 0 and n < 3) or (layer == 1 and n == 9) for layer, _, n in neurons.to_numpy()]]
    cards = chosen.assign(method="activation", knows=["letter", "letter", "more", ""], r2_letter=0.0)
    member: Any = FakeMember(letters=letters, associations=found, concepts=concepts, neuron_cards=cards)
    frame = knowledge(member).set_index(["what", "module"])
    own = frame.loc[("is its letter", "key")]
    # Chosen: 3 of 4. Others: 1 of 7 in the first site, 5 of 9 in the second, weighed 3 to 1.
    assert own["value"] == 0.75 and own["against"] == pytest.approx((3 * (1 / 7) + 5 / 9) / 4)
    assert own["difference"] == pytest.approx(own["value"] - own["against"]) and own["n"] == 4
    sites = frame.loc[("explained by: motif or site", "all")]
    assert (sites["value"], sites["against"]) == (0.25, 0.0)
    by_letter = frame.loc[("explained by: letter", "all")]
    assert (by_letter["value"], by_letter["against"]) == (0.75, 0.75)
    assert frame.loc[("knows more than letters", "all"), "value"] == 0.25
    assert frame.loc[("unexplained", "all"), "value"] == 0.25
    assert not len(knowledge(FakeMember()))  # type: ignore[arg-type]


def test_how_knowledge_is_laid_out_stands_beside_its_null(tmp_path: Path) -> None:
    run = make_fake_run(tmp_path / "laid")
    sharing = pd.DataFrame({"neurons": [30, 10], "independent": [8, 2], "independent_against": [1.0, 1.0],
                            "specific": [2, 2], "specific_against": [4.0, 4.0]})  # fmt: skip
    run.write_table("sharing", sharing.reindex(columns=list(SCHEMA["sharing"])))
    frame = layout(gather([run.path])[0])
    assert list(frame.columns) == list(BEYOND) and frame["value"].notna().all()
    whats = frame.set_index("what")
    assert whats.loc["in the set of every group", ["value", "against"]].tolist() == [0.25, 0.05]
    table = run.table("sufficient")
    judged = table[(table["metric"] == "balanced_accuracy") & table["judged"].astype(bool)]
    assert len(whats.loc[["share that suffices"]]) == len(judged) > 0
    row = run.table("recall_summary").query("label == ''").iloc[0]
    assert whats.loc["errors mended", "value"] == row["gained"] / row["n_enhanced"]
    pairs = run.table("degenerate").query("method == 'topology'")
    row = frame[(frame["what"] == "synergy of tested pairs") & (frame["method"] == "sets by topology")].iloc[0]
    own = pairs[pairs["p_kind"] == "permutation"]["synergy"]  # one of three pairs has draws to stand beside
    assert (row["n"], row["value"], row["against"]) == (3, own.mean(), pytest.approx(0.001)) and len(pairs) == 9
    text = str(compare_runs([run.path]).markdown())
    assert "How knowledge is laid out" in text and "share that suffices" in text
