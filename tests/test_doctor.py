"""``plmscope doctor``: it says what is there, tells what is not, changes nothing and gives no secret away."""

import json
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import plmscope
from plmscope import doctor
from plmscope.cli import main
from plmscope.doctor import examine


def test_a_sound_installation(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdef")
    monkeypatch.setenv("HTTPS_PROXY", "http://me:word@host")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "hub" / "models--facebook--esm2_t6_8M_UR50D").mkdir(parents=True)
    assert main(["doctor", "--json"]) == 0
    text = capfd.readouterr().out
    found = json.loads(text)
    assert found["plmscope"]["version"] == plmscope.__version__
    assert found["libraries"]["torch"] == metadata.version("torch")
    assert found["extras"]["lora"].startswith("peft ")
    assert found["cache"]["models"] == "facebook/esm2_t6_8M_UR50D" and found["cache"]["folder"] == "~/hub"
    assert found["environment"]["HF_TOKEN"] == found["environment"]["HTTPS_PROXY"] == "set"
    assert "hf_abcdef" not in text and "word" not in text and str(tmp_path) not in text
    assert found["programs"]["mmseqs"] != "missing"
    assert not [line for line in found["problems"] if "GiB" not in line]  # a full test machine is no fault of ours
    assert main(["doctor"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert {"plmscope", "libraries", "devices", "problems"} <= set(lines)
    assert any(line.split() == ["torch", metadata.version("torch")] for line in lines)


def test_what_is_missing_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wanted = ["torch>=99", "scipy>=1", "nonesuch-a>=2,<3", "nonesuch-b>=1; extra == 'lora'"]
    monkeypatch.setattr(metadata, "requires", lambda name: wanted)
    monkeypatch.setenv("MMSEQS2_PATH", str(tmp_path / "mmseqs"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", broken)
    monkeypatch.setattr("plmscope.doctor.shutil.disk_usage", lambda path: SimpleNamespace(free=2**28))
    found = examine()
    assert found.found["libraries"]["scipy"] == metadata.version("scipy")
    assert found.found["libraries"]["torch"] == f"{metadata.version('torch')}, but >=99 is needed"
    assert found.found["libraries"]["nonesuch-a"] == "missing"
    assert found.found["extras"] == {"lora": "not installed; to have it: pip install 'plmscope[lora]'"}
    told = "\n".join(found.problems)
    assert "nonesuch-a is missing; install it: pip install 'nonesuch-a>=2,<3'" in told
    assert "nonesuch-b" not in told  # an extra is a choice
    assert f"torch {metadata.version('torch')} is outside >=99" in told
    assert f"MMseqs2 cannot be started ({tmp_path / 'mmseqs'})" in told
    assert "cuda:0 cannot compute (no driver); use --device cpu" in told
    assert "0.2 GiB of disk are free" in told
    assert repr(found).endswith("\n".join(f"  {line}" for line in found.problems))


def broken(number: int) -> None:
    raise RuntimeError("no driver\nmore")


def test_sources_that_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", absent)
    found, problems = doctor._libraries()
    assert not found and problems == [
        "plmscope is not installed, only on the path of Python; install it: pip install ."
    ]
