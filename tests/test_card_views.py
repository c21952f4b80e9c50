"""Structures on cards: which are chosen, what is coloured, how the page opens them; helices built by hand."""

import base64
import gzip
import json
import shutil

import numpy as np
import pytest

import plmscope as ps
from plmscope.cli import main
from plmscope.data.structure_features import files_of
from plmscope.knowledge.views import card_views
from plmscope.report.input import Results
from plmscope.report.structures import card_structures, structures_told, views_of
from plmscope.store.folder import Run
from tests.test_characterizing import FAST
from tests.test_structures import backbone, pdb
from tests.test_study import changed

WITH = 30


@pytest.fixture(scope="module")
def made(golden, tmp_path_factory):
    """The tiny study with structures, as a whole run; half of its proteins have a file."""
    folder = tmp_path_factory.mktemp("views")
    place = folder / "structures"
    place.mkdir()
    proteins = Run.open(golden.run).table("proteins")
    for row in proteins.head(WITH).itertuples():
        path = place / f"{row.id}.pdb"
        path.write_text(pdb(row.sequence, backbone(len(row.sequence), -57, -47), skip=(4,)))
    others = {name: {"enabled": False} for name in ("describe", "probe", "faithfulness")}
    own = {**FAST, "structures": str(place), "max_neurons": 40}
    study = changed(golden.study, folder / "study.toml", characterize=own, layout={"parts": []}, **others)
    run = golden.copy(folder / "run")
    assert main(["run", str(study), "--out", str(run), "--quiet"]) == 0
    return study, Run.open(run), place


def test_a_run_with_structures(made):
    _, run, place = made
    concepts = run.table("concepts").set_index("concept")
    assert concepts.loc["helix", "kind"] == "feature" and concepts.loc["helix", "n_proteins"] == WITH
    assert {"helix"} <= set(run.table("associations")["concept"]) | set(run.table("concept_neurons")["concept"])
    views, structures = run.table("card_views"), run.table("card_structures")
    opened = ps.open_run(run.path)
    sequences = dict(zip(structures["id"], structures["sequence"], strict=True))
    assert 0 < len(structures) <= 20 and set(views["id"]) == set(sequences)
    assert all((place / f"{name}.pdb").is_file() for name in sequences)
    cards = run.table("neuron_cards").drop_duplicates(["layer", "module", "neuron"])
    top = {tuple(row[:3]): json.loads(row[3]) for row in
           cards[["layer", "module", "neuron", "top_proteins"]].to_numpy(dtype=object).tolist()}  # fmt: skip
    for row in views.itertuples():
        names = [one["id"] for one in top[row.layer, row.module, row.neuron]]
        with_file = [name for name in names if (place / f"{name}.pdb").is_file()]
        assert row.id == with_file[0]
    # The colours are the neuron's activation along the whole protein, by another way of reading it.
    row = views.iloc[0]
    (protein,) = [p for p in opened.proteins("train") if p.id == row["id"]]
    mask = np.zeros(len(opened.model.index), bool)
    table = opened.model.index.table().reset_index(drop=True)
    mask[table[(table[["layer", "module", "neuron"]] == row[["layer", "module", "neuron"]]).all(axis=1)].index] = True
    read = ps.activations(opened.model, protein, ps.Selection(opened.model.index, mask))
    along = row["sign"] * read.iloc[:, -1].to_numpy(dtype=float)
    assert row["activation"] == pytest.approx(along / np.abs(along).max(), abs=2e-3)
    # The lines are a chain without side chains, numbered by the sequence, without what is not resolved.
    lines = [line for line in structures["pdb"][0].splitlines() if line.startswith("ATOM")]
    assert {line[12:16].strip() for line in lines} == {"N", "CA", "C", "O"}
    assert {int(line[22:26]) for line in lines} == set(range(1, len(structures["sequence"][0]) + 1)) - {5}
    assert "/" not in structures["told"][0]  # the file by its name, not where it lay


def test_few_structures_fit_and_the_others_are_counted(made):
    _, run, place = made
    opened, cards = ps.open_run(run.path), run.table("neuron_cards")
    proteins = opened.proteins("train")
    files = files_of(place, proteins)
    every = card_views(opened.model, cards, proteins, files, most=1000)
    one = card_views(opened.model, cards, proteins, files, most=1)
    assert every.without == every.left_out == 0 and len(every.structures) > 1
    assert len(one.structures) == 1 and len(one.views) + one.without == len(every.views)
    assert one.views["id"].nunique() == 1 and one.left_out > 0
    # The best ranked neuron decides.
    best = cards.sort_values("rank", kind="stable").drop_duplicates(["layer", "module", "neuron"])
    first = next(
        names for text in best["top_proteins"] if (names := [x["id"] for x in json.loads(text) if x["id"] in files])
    )
    assert one.structures["id"].tolist() == first[:1]
    none = card_views(opened.model, cards.assign(top_proteins="[]"), proteins, files)
    assert not len(none.views) and not len(none.structures)


def test_the_report_carries_them_once_and_says_what_is_left_out(made):
    _, run, _ = made
    results = Results(run)
    assert (
        "cards open in three dimensions" in structures_told(results).text
        and "left out" not in structures_told(results).text
    )
    results.manifest["characterize"] |= {"cards_without_structure": 7, "structures_left_out": 3}
    assert "3 more structures were left out, and 7 cards" in structures_told(results).text
    packed, views = card_structures(results), views_of(results)
    table = run.table("card_structures")
    assert [gzip.decompress(base64.b64decode(one["packed"])).decode() for one in packed] == table["pdb"].tolist()
    for row in run.table("card_views").itertuples():
        view = views[row.layer, row.module, row.neuron, row.sign]
        assert packed[view["structure"]]["id"] == row.id and max(map(abs, view["heights"])) == 100
        assert len(view["heights"]) == len(packed[view["structure"]]["sequence"])
    text = (run.path / "report.html").read_text()
    assert text.count('id="molecules"') == 1
    for name in ("card_views", "card_structures"):
        results.tables.pop(name, None)
    assert structures_told(results) is None and views_of(results) == {} and card_structures(results) == []


def test_a_browser_opens_one_at_a_time(made, offline_page):
    _, run, _ = made
    page, wrong = offline_page
    page.goto((run.path / "report.html").as_uri())
    page.wait_for_selector("details.solid")
    assert page.locator(".molecule").count() == 0 and not page.evaluate("'$3Dmol' in window")
    for number in (0, 1, 0):
        page.locator("details.solid > summary").nth(number).press("Enter")
        page.wait_for_selector("details.solid[open] .molecule[data-drawn=yes]", timeout=30_000)
        assert page.locator("details.solid[open]").count() == page.locator(".molecule canvas").count() == 1
    page.locator("details.solid > summary").first.press("Enter")
    page.wait_for_function("() => !document.querySelector('.molecule')")
    assert not wrong


def test_without_structures_there_are_none(made, golden, tmp_path):
    _, run, _ = made
    folder = shutil.copytree(run.path, tmp_path / "run")
    others = {name: {"enabled": False} for name in ("describe", "probe", "faithfulness")}
    plain = changed(golden.study, tmp_path / "study.toml", characterize=FAST, layout={"parts": []}, **others)
    assert main(["run", str(plain), "--out", str(folder), "--quiet"]) == 0
    assert not Run.open(folder).has("card_views") and 'id="molecules"' not in (folder / "report.html").read_text()
