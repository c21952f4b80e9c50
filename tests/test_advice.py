"""Every command that a line advises is taken out of the line, run by bash as it stands, and what it is for then works.

The folder has a blank in its name, as those of many users. What needs ``python -c`` or a whole hub is in
``test_heads.py``; commands of shards are in ``test_shards.py``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from plmscope.cli import main
from plmscope.errors import PlmscopeError
from plmscope.models.loading import load_model
from plmscope.store.folder import Run, read_parquet
from plmscope.study.opened import open_run
from plmscope.study.study_file import parse_study, write_study
from tests.conftest import save_tiny_model, write_enzymes
from tests.hub import Hub, serving
from tests.test_documented_commands import SMALL, run_by_bash
from tests.test_heads import follow

ROOT = Path(__file__).parents[1]
#: Commands in the lines of the library, and the test that does what each says.
FOLLOWED = {
    "plmscope demo": "test_documented_commands.py",  # of the page with the first steps
    "plmscope init": "test_documented_commands.py",
    "plmscope finetune": "test_a_stage_that_comes_first",
    "plmscope run": "test_a_run_folder_in_place_of_a_study",
    "plmscope score": "test_tables_that_are_gone",
    "python -c": "test_the_advised_conversion_of_pickles_works_and_keeps_the_head",
    "hf download": "test_the_advised_downloads_work",
    "hf auth login": "test_the_login_is_a_command",
    "pip install": "test_what_is_to_be_installed_has_this_name",
}
COMMAND = re.compile(r"\b(plmscope (?:demo|init|run|finetune|score|evaluate|report|fetch)|python -c|hf (?:auth )?\w+"
                     r"|pip \w+)\b")  # fmt: skip


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study of a classifier that is taken as it is, and a run of it up to the scores."""
    folder = tmp_path_factory.mktemp("advice") / "my enzymes"
    folder.mkdir()
    write_enzymes(folder / "enzymes.tsv", per_class=8)
    names = ("2", "3", "6")
    save_tiny_model(
        folder / "model", id2label=dict(enumerate(names)), label2id={name: i for i, name in enumerate(names)}
    )
    content = {key: value for key, value in SMALL.items() if key not in ("", "finetune")}
    content["score"] = {"methods": ["activation_contrast"], "proteins_per_class": 4}
    content |= {"data": {"path": "enzymes.tsv"}, "model": {"checkpoint": "model"}, "finetune": {"epochs": 0}}
    (folder / "study.toml").write_text(write_study(parse_study(content, "study")))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["run", "study.toml", "--out", str(folder / "a run"), "--quiet"]) == 0
    return folder


@pytest.fixture
def run(desk: Path, tmp_path: Path) -> Path:
    """A copy of the run."""
    return Path(shutil.copytree(desk / "a run", tmp_path / "a run"))


def said(capfd: pytest.CaptureFixture[str], *command: str) -> str:
    """The one line of a command that is refused."""
    capfd.readouterr()
    assert main([*command, "--quiet"]) == 2
    return capfd.readouterr().err.strip()


def do(line: str) -> None:
    """Follow the advice at the end of a line."""
    found = re.search(r"(?:; run '(plmscope .*)'|with: (plmscope .*))$", line)
    assert found, line
    for arguments in run_by_bash(found[1] or found[2], prompted=False):
        assert main([*arguments, "--quiet"]) == 0, found[0]


def test_no_line_advises_what_no_test_does() -> None:
    lines = "\n".join(path.read_text() for path in sorted((ROOT / "src" / "plmscope").rglob("*.py")))
    assert set(COMMAND.findall(lines)) == set(FOLLOWED)
    tests = {path.name: path.read_text() for path in Path(__file__).parent.glob("test_*.py")}
    for name in FOLLOWED.values():
        assert name in tests or any(f"def {name}(" in text for text in tests.values()), name


def test_a_run_folder_in_place_of_a_study(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (run / "report.html").unlink()
    line = said(capfd, "run", str(run))
    assert "is a run folder; continue it with: plmscope run " in line
    do(line)
    assert (run / "report.html").is_file()


def test_a_stage_that_comes_first(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (run / "neurons.parquet").unlink()
    line = said(capfd, "evaluate", str(run))
    assert "the stage 'score' comes first; run 'plmscope run " in line
    do(line)
    assert main(["evaluate", str(run), "--quiet"]) == 0


def test_the_model_that_comes_before_its_shards(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    opened = Run.open(run)
    opened.update_manifest(stages={"finetune": opened.manifest()["stages"]["finetune"] | {"status": "running"}})
    line = said(capfd, "score", str(run), "--shard", "1/2")
    assert "the stage 'finetune' comes first; run 'plmscope finetune " in line
    do(line)
    assert main(["score", str(run), "--shard", "1/2", "--quiet"]) == 0


def test_no_run_yet(desk: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "no such run folder; 'plmscope run STUDY' makes one" in said(capfd, "report", str(tmp_path / "none"))


@pytest.mark.parametrize("name", ["ablation_means", "neurons"])
def test_tables_that_are_gone(run: Path, name: str) -> None:
    (run / f"{name}.parquet").unlink()
    with pytest.raises(PlmscopeError, match=r"run 'plmscope score ") as refused:
        read_parquet(open_run(run).run, name)
    do(str(refused.value))
    assert len(read_parquet(open_run(run).run, name))


def test_an_encoder_is_fine_tuned_first(desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its line has a word to fill in, the study."""
    from safetensors.torch import load_file, save_file

    encoder = Path(shutil.copytree(desk / "model", tmp_path / "encoder"))
    weights = load_file(encoder / "model.safetensors")
    kept = {key: weight for key, weight in weights.items() if not key.startswith("classifier.")}
    save_file(kept, encoder / "model.safetensors", {"format": "pt"})
    with pytest.raises(PlmscopeError) as refused:
        load_model(encoder)
    command = re.findall(r"'(plmscope finetune STUDY)'", str(refused.value))[0]
    study = (desk / "study.toml").read_text().replace('"model"', f'"{encoder}"').replace("epochs = 0", "epochs = 1")
    (desk / "encoder.toml").write_text(study)
    monkeypatch.chdir(desk)
    assert main([*command.replace("STUDY", "encoder.toml").split()[1:], "--out", "tuned", "--quiet"]) == 0
    assert load_model("tuned").labels == ("2", "3", "6")


def test_what_is_fetched_once_is_there_without_the_network(desk: Path, tmp_path: Path) -> None:
    """A revision other than the newest too."""
    ask = "from plmscope.models.loading import load_model\ntry: print(load_model('lab/tiny', revision='v1').labels)"
    ask += "\nexcept Exception as e: print(e)"

    def answer() -> str:
        return subprocess.run(
            [sys.executable, "-c", ask], env=os.environ | env | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True,
            check=True,
        ).stdout  # fmt: skip

    with serving(Hub({"lab/tiny": desk / "model"})) as address:
        env = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "NO_PROXY": "*"}
        line = answer()
        command = re.findall(r"run once with the network \((.*?)\)", line)[0]
        follow(command, tmp_path, **env, HF_HUB_OFFLINE="0")
    assert answer().strip() == "('2', '3', '6')"


def test_what_is_to_be_installed_has_this_name(tmp_path: Path) -> None:
    """Without an index pip answers only where the library is here, by the name and version of the line."""
    text = (ROOT / "src" / "plmscope" / "models" / "lora.py").read_text()
    (command,) = re.findall(r"pip install 'peft\S+'", text)
    follow(f"python -m {command} --no-index --no-deps --dry-run", tmp_path)


def test_the_login_is_a_command(tmp_path: Path) -> None:
    follow("hf auth login --help", tmp_path)
