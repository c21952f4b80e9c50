"""Scores of several processes against those of one: the same tables, whoever scored which part."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from plmscope.cli import main
from plmscope.data.proteins import Protein
from plmscope.errors import BusyError, RunError, SelectionError
from plmscope.evaluation import collected
from plmscope.models.classifier import Classifier
from plmscope.progress import silent
from plmscope.scoring import shards
from plmscope.scoring.methods import SCORERS
from plmscope.scoring.scores import NeuronScores, resampling_groups, signed_form, with_class_means
from plmscope.scoring.shards import PartialScores, merge_shards, score_shard
from plmscope.scoring.table import row_of, signed_methods
from plmscope.store import resume
from plmscope.store.folder import Run
from plmscope.store.resume import Parts
from plmscope.study import Stages
from plmscope.study.scoring import parts_stamp
from plmscope.study.study_file import read_study
from plmscope.tasks.shard import Shard
from tests.conftest import Golden
from tests.test_scores import QUICK

SIGNED = signed_methods()
SCORED = ("neurons", "class_scores", "completeness", "selections", "agreement", "ablation_means", "class_overlap")


def every_method(
    model: Classifier, proteins: list[Protein], groups: list[str] | None, quick: Sequence[str] = tuple(SCORERS)
) -> list[NeuronScores]:
    """Scores by all scorers of the project."""
    found: dict[str, NeuronScores] = {}
    for method in quick:
        if method not in found:
            name = signed_form(method)[0]
            how = QUICK.get(name, {}) | ({"rms": True} if name in SIGNED else {})
            how = how | ({"fit": False} if row_of(method).fit else {})
            made = SCORERS[method](model, proteins, groups=groups, token_budget=200, **how)
            found |= {one.method: one for one in with_class_means(made)}
    return [found[method] for method in quick]


def run(model: Classifier, proteins: list[Protein], folder: Path, shard: Shard, **settings: Any) -> PartialScores:
    """One shard of the proteins by every method, saved."""
    groups = resampling_groups([f"c{i // 2}" for i in range(len(proteins))], [p.label for p in proteins], 2)
    parts = Parts(folder, "stamp", shared=True)
    means = np.ones((3, len(model.index)))
    settings = {"score": lambda some, of, track: every_method(model, some, of), **settings}
    found = score_shard(
        proteins=proteins, groups=groups, index=model.index, parts=parts, shard=shard, track=silent,
        say=lambda line: None, constants=means, **settings,
    )  # fmt: skip
    parts.write(shard.name, found.arrays())
    return found


def file_of(folder: Path, stamp: str, shard: Shard) -> Path:
    return Parts(folder, stamp, shared=True).path(shard.name)


def test_shards_merge_to_the_scores_of_one_process(
    tiny: Classifier, proteins: list[Protein], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every method, its classes, its completeness, its bootstraps, through files and in any order."""
    monkeypatch.setattr(shards, "PART_PROTEINS", 2)
    whole = run(tiny, proteins, tmp_path, Shard(1, 1))
    for number in (3, 1, 2):
        run(tiny, proteins, tmp_path, Shard(number, 3))
    merged = merge_shards(tmp_path, "stamp", proteins, tiny.index, "score")
    assert merged.done == whole.done == 5 and merged.constants is not None and merged.constants.all()
    for one, other in zip(*(p.finish(tuple(SCORERS), proteins) for p in (whole, merged)), strict=True):
        np.testing.assert_allclose(other.values, one.values, rtol=1e-12, atol=0, equal_nan=True)
        assert other.proteins == one.proteins == tuple(p.id for p in proteins)
        assert other.per_class.keys() == one.per_class.keys() and other.settings.keys() == one.settings.keys()
        for label, values in one.per_class.items():
            np.testing.assert_allclose(other.per_class[label], values, rtol=1e-11, atol=1e-14, equal_nan=True)
        assert (one.completeness is None) == (other.completeness is None)
        if one.completeness is not None and other.completeness is not None:
            assert_frame_equal(other.completeness, one.completeness, check_exact=True)
            assert list(dict.fromkeys(one.completeness["id"])) == [p.id for p in proteins]
        if row_of(one.method).fit:  # a fit a resample
            assert one.resample is None and other.resample is None
            continue
        assert one.resample is not None and other.resample is not None and one.sums is not None
        weights = np.arange(1.0, 1 + len(one.sums.keys))
        np.testing.assert_allclose(other.resample(weights), one.resample(weights), rtol=1e-11, equal_nan=True)


def test_a_killed_shard_continues_to_the_same_bits(
    tiny: Classifier, proteins: list[Protein], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "PART_PROTEINS", 2)
    monkeypatch.setattr(resume, "SAVE_SECONDS", -1)
    monkeypatch.setattr(resume, "SAVE_PAUSE", 0)
    quick, calls = ("activation", "conductance"), []

    def score(some: list[Protein], groups: list[str] | None, track: object) -> list[NeuronScores]:
        calls.append(len(some))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return every_method(tiny, some, groups, quick)

    with pytest.raises(KeyboardInterrupt):
        run(tiny, proteins, tmp_path, Shard(1, 1), score=score)
    continued = run(tiny, proteins, tmp_path, Shard(1, 1), score=score)
    assert calls == [2, 2, 2, 2, 2, 1]  # the first three were there
    (tmp_path / "b").mkdir()
    whole = run(tiny, proteins, tmp_path / "b", Shard(1, 1), score=lambda s, g, t: every_method(tiny, s, g, quick))
    for one, other in zip(*(p.finish(quick, proteins) for p in (whole, continued)), strict=True):
        assert np.array_equal(one.values, other.values)
        assert one.settings == other.settings


def test_more_shards_than_parts_leave_some_empty(tiny: Classifier, proteins: list[Protein], tmp_path: Path) -> None:
    for number in (1, 2):
        run(tiny, proteins, tmp_path, Shard(number, 2), score=lambda s, g, t: every_method(tiny, s, g, ["activation"]))
    empty = PartialScores.load(file_of(tmp_path, "stamp", Shard(2, 2)), tiny.index)
    assert empty is not None and empty.done == 0 and not empty.scored
    merged = merge_shards(tmp_path, "stamp", proteins, tiny.index, "score")
    assert merged.finish(["activation"], proteins)[0].proteins == tuple(p.id for p in proteins)


def test_missing_and_damaged_shards_are_named(tiny: Classifier, proteins: list[Protein], tmp_path: Path) -> None:
    def merge() -> PartialScores:
        return merge_shards(tmp_path, "stamp", proteins, tiny.index, "plmscope score R --shard")

    with pytest.raises(RunError, match=r"no shards of this run; make the first of two with: plmscope .* --shard 1/2"):
        merge()
    for number in (1, 3, 4):
        run(tiny, proteins, tmp_path, Shard(number, 4), score=lambda s, g, t: every_method(tiny, s, g, ["activation"]))
    PartialScores().save(file_of(tmp_path, "stamp", Shard(1, 9)))  # of another division, hardly begun
    with pytest.raises(RunError, match=r"shard 2/4 is missing; make it with: plmscope score R --shard 2/4"):
        merge()
    shutil.copy(file_of(tmp_path, "stamp", Shard(4, 4)), file_of(tmp_path, "stamp", Shard(2, 4)))
    assert merge().done == 1
    path = file_of(tmp_path, "stamp", Shard(1, 4))
    content = path.read_bytes()
    for damaged in (content[:100], content[: len(content) // 2], b"", content[:-1]):
        path.write_bytes(damaged)
        with pytest.raises(RunError, match=r"shard 1/4 is not finished or damaged; make it with: .* --shard 1/4"):
            merge()
    path.rename(file_of(tmp_path, "other", Shard(1, 4)))
    for one in tmp_path.glob("stamp*"):
        one.unlink()
    with pytest.raises(RunError, match=r"no shards of this run .those that are there belong to other settings"):
        merge()


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "1/0", "-1/2", "1/2/3", "a/b", "1.0/2", "²/3"])
def test_impossible_shards(text: str) -> None:
    with pytest.raises(SelectionError, match="need NUMBER/TOTAL"):
        Shard.parse(text)


def table(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(folder / f"{name}.parquet")


def test_command_line_shards_give_the_tables_of_an_unsharded_run(
    golden: Golden, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The shard that ends last merges; other tables of the run stay as they are."""
    folder = golden.copy(tmp_path / "run")
    for name in SCORED:
        (folder / f"{name}.parquet").unlink()
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    stamp = parts_stamp(read_study(folder / "study.toml"), Run.open(folder))
    (folder / "score.parts").mkdir()
    PartialScores().save(file_of(folder / "score.parts", stamp, Shard(1, 2)))  # killed early
    assert main(["score", str(folder), "--shard", "2/2", "--quiet"]) == 0  # its own work is done
    shutil.rmtree(folder / "score.parts")
    with Run.open(folder).locked(shared=True):  # as another shard does
        assert main(["score", str(folder), "--shard", "2/2"]) == 0
    assert "score: shard 2/2 is in " in capfd.readouterr().err
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} == before
    assert main(["score", str(folder), "--merge"]) == 2
    assert f"shard 1/2 is missing; make it with: plmscope score {folder} --shard 1/2" in capfd.readouterr().err
    assert main(["score", str(folder), "--shard", "1/2"]) == 0
    assert "score: merged the shards in " in capfd.readouterr().err
    for name in SCORED:
        assert_frame_equal(table(folder, name), table(golden.run, name), check_exact=True, obj=name)
    assert not (folder / "score.parts").exists()
    assert main(["score", str(folder), "--quiet"]) == 0
    assert "merged" not in capfd.readouterr().err  # finished before


def test_shards_in_another_folder_from_a_copy_that_cannot_be_written(
    golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine with a copy of the run folder alone: neither its data nor its lock are needed."""
    folder, parts = golden.copy(tmp_path / "run"), tmp_path / "parts"
    study = (folder / "study.toml").read_text().replace(str(golden.data), "nowhere.tsv")
    (folder / "study.toml").write_text(study)
    with Run.open(folder).locked(), monkeypatch.context() as patch:
        patch.setattr(
            "plmscope.study.sharding.os.access", lambda path, mode: mode != os.W_OK
        )  # root may write anywhere
        for number in (1, 2):
            assert main(["score", str(folder), "--shard", f"{number}/2", "--out", str(parts), "--quiet"]) == 0
    mine = golden.copy(tmp_path / "mine")
    (mine / "neurons.parquet").unlink()
    assert main(["score", str(mine), "--merge", "--out", str(parts), "--quiet"]) == 0
    for name in SCORED:
        assert_frame_equal(table(mine, name), table(golden.run, name), check_exact=True, obj=name)
    assert len(list(parts.glob("*.npz"))) == 2  # they are the user's


def test_one_shard_is_scored_by_one_process(golden: Golden, tmp_path: Path) -> None:
    folder = outdated(golden.copy(tmp_path / "run"), "neurons.parquet")
    opened = Run.open(folder)
    stages = Stages(read_study(folder / "study.toml"), opened)
    with opened.locked(), pytest.raises(BusyError, match="another plmscope process is writing here"):
        stages.share("score", Shard(1, 2))
    path = file_of(folder / "score.parts", parts_stamp(stages.study, stages.run), Shard(1, 2))
    path.parent.mkdir()
    with shards_lock(path), pytest.raises(BusyError, match="another process does this shard"):
        stages.share("score", Shard(1, 2))
    with opened.locked(shared=True), pytest.raises(BusyError, match="another plmscope process is writing here"):
        stages.execute()


def shards_lock(path: Path) -> Any:
    from plmscope.store.files import lock

    return lock(path.with_suffix(".lock"), "held by the test")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shard", "3/2"], "--shard '3/2': need NUMBER/TOTAL"),
        (["--shard", "1/2", "--merge"], "--shard and --merge exclude each other"),
        (["--out", "x"], "--out needs --shard or --merge"),
    ],
)
def test_refused_options(golden: Golden, options: list[str], message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["score", str(golden.run), *options]) == 2
    assert message in capfd.readouterr().err


def outdated(folder: Path, *products: str) -> Path:
    """A run that lacks some of its files."""
    for name in products:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return folder


DIVIDED = {
    "evaluate": ("curves", "predictions", "comparison", "modules"),
    "density": ("modules_null", "curves_null", "density", "density_null", "null_fits", "null_tests", "stability"),
    "intervene": ("interventions", "intervention_effects", "neuron_effects"),
}


@pytest.mark.parametrize("stage", list(DIVIDED))
def test_shards_of_other_stages_give_their_tables(
    stage: str, golden: Golden, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first two keep their share and change no table; a command for the last one finishes the stage."""
    monkeypatch.setattr(collected, "FEW", 0)
    folder = outdated(golden.copy(tmp_path / "run"), *(f"{name}.parquet" for name in DIVIDED[stage]))
    if stage == "density":
        outdated(folder, "nulls", "null_fits")
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    for number in (3, 1):
        with Run.open(folder).locked(shared=True):  # as another shard does
            assert main([stage, str(folder), "--shard", f"{number}/3"]) == 0
        assert f"{stage}: shard {number}/3 is done; the stage waits for others" in capfd.readouterr().err
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} == before
    assert main([stage, str(folder), "--shard", "2/3"]) == 0
    said = capfd.readouterr().err
    assert f"{stage}: done in" in said
    assert all(known == total for known, total in re.findall(r"continuing after ([\d,]+) of ([\d,]+)", said))
    for name in DIVIDED[stage]:
        assert_frame_equal(table(folder, name), table(golden.run, name), check_exact=True, obj=name)
    assert not (folder / f"{stage}.parts").exists()
    assert [path.name for path in folder.rglob("*.lock")] == [".lock"]
    assert main([stage, str(folder), "--shard", "1/3"]) == 0
    assert f"{stage}: finished before" in capfd.readouterr().err


def test_the_command_of_a_stage_does_what_shards_left(golden: Golden, tmp_path: Path) -> None:
    """Half of the selections are a shard's; the rest is done by the plain command, and by it alone."""
    folder = outdated(golden.copy(tmp_path / "run"), "curves.parquet")
    assert main(["evaluate", str(folder), "--shard", "2/2", "--quiet"]) == 0
    with np.load(next((folder / "evaluate.parts").glob("*.npz"))) as kept:
        done = kept["tasks"].tolist()
    assert done == list(range(1, 2 * len(done), 2))
    tried: list[int] = []
    of = collected.evaluate_points

    def watched(classifier: Classifier, proteins: Any, grid: Any, points: Sequence[Any], *more: Any) -> Any:
        tried.append(len(points))
        return of(classifier, proteins, grid, points, *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collected, "evaluate_points", watched)
        assert main(["evaluate", str(folder), "--quiet"]) == 0
    assert tried == [len(table(folder, "curves")) - len(done)]
    assert_frame_equal(table(folder, "curves"), table(golden.run, "curves"), check_exact=True)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["evaluate", "RUN", "--shard", "1/2", "--engine", "processes"], "--shard excludes --engine"),
        (["intervene", "RUN", "--shard", "1/2", "--other", "RUN"], "leave out --selection and --other"),
        (
            ["density", "NO_NULLS", "--shard", "1/2"],
            "nothing to divide, since the study says [density] nulls = []",
        ),
        (["evaluate", "UNSCORED", "--shard", "1/2"], "the stage 'score' comes first; run 'plmscope run "),
    ],
)
def test_refused_shards(
    golden: Golden, tmp_path: Path, command: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = golden.copy(tmp_path / "run")
    if "NO_NULLS" in command:
        study = (folder / "study.toml").read_text()
        (folder / "study.toml").write_text(re.sub(r"(?m)^nulls = .*$", "nulls = []", study))
    if "UNSCORED" in command:
        outdated(folder, "neurons.parquet", "curves.parquet")
    named = [str(folder) if word in ("RUN", "NO_NULLS", "UNSCORED") else word for word in command]
    assert main(named) == 2
    assert message in capfd.readouterr().err
