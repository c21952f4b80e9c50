"""`plmscope explain`: tables, page and JSON of a file of proteins; a stopped one continues; hostile ids do nothing."""

import json
import re
import sys
from pathlib import Path

import pandas as pd
import pytest

import plmscope as ps
from plmscope.cli import main
from plmscope.explaining import folder as module
from plmscope.explaining.explainer import Explainer, ExplainSettings
from plmscope.explaining.explanation import SCHEMA
from plmscope.explaining.folder import explain_file
from plmscope.report.html import own_text

FEW = ExplainSettings(supporting=3, opposing=1, draws=3, seed=1)
HOSTILE = "<script>alert(1)</script>&amp;\"'"
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def opened(golden, tmp_path_factory):
    return ps.open_run(golden.copy(tmp_path_factory.mktemp("explained") / "run"))


@pytest.fixture(scope="module")
def fasta(opened, tmp_path_factory):
    """Three proteins, one with a hostile id, one twice, and one that is too long for the model."""
    one, two = (p.sequence[:60] for p in opened.proteins("test")[:2])
    path = tmp_path_factory.mktemp("mine") / "mine.fasta"
    path.write_text(f">a\n{one}\n>{HOSTILE} x\n{two}\n>b\n{one[:40]}\n>long\n{one * 20}\n")
    return path


@pytest.fixture(scope="module")
def written(opened, fasta, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "explained"
    return explain_file(opened, fasta, out, settings=FEW, as_json=True)


def test_tables_page_and_json(opened, written):
    assert (written.proteins, written.excluded, written.first.id) == (3, 1, "a")
    tables = {name: pd.read_parquet(written.folder / f"{name}.parquet") for name in SCHEMA}
    for name, frame in tables.items():
        assert tuple(frame.columns) == SCHEMA[name]
        assert len(pd.read_csv(written.folder / f"{name}.csv")) == len(frame)
        assert list(dict.fromkeys(frame["id"])) == ["a", HOSTILE, "b"]
    lengths = tables["explained_proteins"]["length"]
    assert len(tables["explained_residues"]) == lengths.sum()
    lines = [json.loads(line) for line in (written.folder / "explained.jsonl").read_text().splitlines()]
    assert [len(line["residues"]) for line in lines] == lengths.tolist()
    note = json.loads((written.folder / "explained.json").read_text())
    assert [one["id"] for one in note["excluded"]] == ["long"]
    assert not (written.folder / "explain.parts").exists()
    proteins = module.read_explainable(opened, note["source"]).proteins
    alone = next(Explainer(opened, settings=FEW)(proteins[2:]))
    found = tables["explained_residues"].query("id == 'b'")["attribution"]
    assert found.to_numpy() == pytest.approx(alone.residues["attribution"].to_numpy(), abs=1e-6)


def test_the_page_takes_names_as_text_and_asks_for_nothing(written):
    page = (written.folder / "explained.html").read_text()
    assert "alert(1)" in page and "<script>alert(1)" not in page
    assert "default-src 'none'" in page
    assert not re.findall(r"(?:src|href)=\"?https?:", page)
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])
    assert [one["id"] for one in data["proteins"]] == ["a", HOSTILE, "b"]
    assert len(data["proteins"][0]["tracks"]) == len(data["proteins"][0]["neurons"])
    # What stands on it in words is that of the terminal.
    for one in data["proteins"]:
        assert one["trust"] and one["verdict"].split(" (")[0] in ("more than chance", "no more than chance")
        assert all(neuron["acting"].startswith("mostly ") for neuron in one["neurons"])
    for word in ("one.remarks", "one.trust", "one.verdict", "n.acting"):
        assert word in own_text("protein.js", package="plmscope.explaining")


def test_a_stopped_command_continues(opened, fasta, written, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "AT_ONCE", 1)
    before, explained = module.Parts.write, []

    def stop_after_one(parts, name, arrays):
        if explained:
            raise KeyboardInterrupt
        explained.append(name)
        before(parts, name, arrays)

    monkeypatch.setattr(module.Parts, "write", stop_after_one)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        explain_file(opened, fasta, out, settings=FEW)
    assert not (out / "explained.html").exists()
    again = []
    monkeypatch.setattr(module.Parts, "write", lambda *a: again.append(a[1]) or before(*a))
    said = []
    explain_file(opened, fasta, out, settings=FEW, say=said.append)
    assert len(again) == 2 and "explain: continuing after 1 of 3 proteins" in said
    for name in SCHEMA:
        one, two = (pd.read_parquet(folder / f"{name}.parquet") for folder in (out, written.folder))
        pd.testing.assert_frame_equal(one, two)
    # Nothing changed: nothing is done. Another class: everything is.
    again.clear()
    explain_file(opened, fasta, out, settings=FEW, say=said.append)
    assert not again and "explained already" in said[-1]
    explain_file(opened, fasta, out, settings=FEW, label=opened.model.labels[0])
    assert len(again) == 3
    assert set(pd.read_parquet(out / "explained_proteins.parquet")["explained"]) == {opened.model.labels[0]}


@pytest.mark.parametrize("terminal", [True, False])
def test_the_command(opened, tmp_path, capsys, monkeypatch, terminal):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    path = tmp_path / "mine.fasta"
    path.write_text(f">mine\n{opened.proteins('test')[0].sequence[:50]}\n")
    assert main(["explain", str(opened.run.path), str(path), "--json", "--quiet"]) == 0
    said = capsys.readouterr()
    lines = opened.run.path / "explained" / "mine" / "explained.jsonl"
    assert [json.loads(line)["id"] for line in lines.read_text().splitlines()] == ["mine"]
    if terminal:  # a person, who reads the summary; in a pipe a program
        assert '"residues"' not in said.out and re.match(r"mine, \d+ residues: the model says", said.out)
    else:
        assert said.out == lines.read_text()
    assert "explained 1 protein:" in said.err and f"{lines}" in said.err
    assert (opened.run.path / "explained" / "mine" / "explained.html").is_file()


@pytest.mark.parametrize(
    ("text", "how", "message"),
    [
        (">p\nMKT1AY\n", [], "protein 'p'"),
        (
            ">p\nMKTAY\n",
            ["--label", "9"],
            "class '9' is not among those of the model: 2 (transferases), 3 (hydrolases), 6 (ligases)",
        ),
        (">p\n" + "M" * 500 + "\n", [], "x longer than 126 residues); give another file"),
        # settings that only a study has are not advised
        (">p\nMK*AY\n", [], "a stop codon inside it: check its translation (frame, genetic code, pseudogene)$"),
        ("accession,peptide\np,MKTAY\n", [], "its header is 'accession', 'peptide'; rename it so$"),
    ],
)
def test_one_line_that_helps(opened, tmp_path, capsys, text, how, message):
    path = tmp_path / "bad.fasta"
    path.write_text(text)
    assert main(["explain", str(opened.run.path), str(path), "--quiet", *how]) == 2
    said = capsys.readouterr().err.strip()
    assert (said.endswith(message[:-1]) if message.endswith("$") else message in said) and len(said.splitlines()) == 1
    assert not (opened.run.path / "explained" / "bad").exists()


def test_a_folder_with_other_things_is_left_alone(opened, fasta, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("x")
    assert main(["explain", str(opened.run.path), str(fasta), "--quiet", "--out", str(tmp_path)]) == 2
    assert "holds other things ('mine.txt'); name another folder with --out" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_page_of_the_docs_has_every_column():
    text = (ROOT / "docs" / "explain-a-protein.md").read_text()
    for name, columns in SCHEMA.items():
        row = re.search(rf"^\| `{name}` \|(.*)$", text, re.MULTILINE)[1]
        assert not [column for column in columns if f"`{column}`" not in row]


def test_letters_are_read_on_the_strongest_colour():
    """Contrast of text and the strip's strongest colours, 4.5 at least (WCAG 2.2, 1.4.3), in both themes."""
    styles = own_text("report.css"), own_text("explained.css", package="plmscope.explaining")
    for start in (":root {", ':root[data-theme="dark"] {'):
        colours, tints = (
            dict(re.findall(r"--(\w+): ([^;]+);", str(css).split(start)[1].split("}")[0])) for css in styles
        )
        share = float(tints["tint"].rstrip("%")) / 100

        def light(rgb):
            linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in rgb]
            return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

        def parts(name, colours=colours):
            return [int(colours[name][i : i + 2], 16) / 255 for i in (1, 3, 5)]

        for name in ("c0", "c1"):
            mixed = [share * x + (1 - share) * y for x, y in zip(parts(name), parts("surface"), strict=True)]
            dark, bright = sorted((light(parts("text")), light(mixed)))
            assert (bright + 0.05) / (dark + 0.05) >= 4.5, (start, name)
