"""The check of a GPU, run in small on the CPU: that its sections run, and that they find what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from plmscope.models.classifier import Classifier
from plmscope.scoring import activation
from scripts import check_gpu


def tiny(device: torch.device | str, dtype: str = "float32") -> Classifier:
    return check_gpu.random_esm(2, 32, 2, torch.device(device))


def run(folder: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    status = check_gpu.main(["--out", str(folder), "--device", "cpu", "--small", "--budget", "900", *arguments])
    return status, json.loads((folder / "results.json").read_text())


def test_sections_without_the_embedded_model(tmp_path: Path) -> None:
    status, found = run(tmp_path, "--sections", "precision,memory,speed")
    assert status == 0 and set(found["sections"]) == {"precision", "memory", "speed"}
    split = [row for row in found["checks"] if "times split" in row["what"]]
    assert len(split) == 2 and all(row["value"] >= 1 for row in split)
    assert {row["what"] for row in found["speeds"]} >= {"fine-tuning step", "evaluation, 10 % kept"}
    assert all(row["proteins/s"] > 0 for row in found["speeds"])
    text = (tmp_path / "results.md").read_text()
    assert "| conductance, 8 intervals |" in text and "**failed**" not in text


def test_equal_runs_and_finds_a_wrong_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_gpu, "embedded", tiny)
    status, found = run(tmp_path, "--sections", "equal")
    assert status == 0, [row for row in found["checks"] if not row["passed"]]
    assert any("characterization" in row["what"] for row in found["checks"])

    calls = []

    def wrong(device: torch.device | str, dtype: str = "float32") -> Classifier:
        classifier = tiny(device)
        calls.append(device)
        if len(calls) > 1:  # the first is the reference
            with torch.no_grad():
                classifier.model.get_submodule("esm.encoder.layer.1.intermediate.dense").weight.mul_(1.01)
        return classifier

    monkeypatch.setattr(check_gpu, "embedded", wrong)
    status, found = run(tmp_path, "--sections", "equal")
    failed = {row["what"] for row in found["checks"] if row["passed"] is False}
    assert status == 1 and "float32, activation: worst site" in failed


def test_two_processes(tmp_path: Path) -> None:
    status, found = run(tmp_path, "--sections", "two")
    assert status == 0, found["sections"]
    assert len([row for row in found["checks"] if "against one process" in row["what"]]) == len(check_gpu.SCORE_LIMITS)


def test_a_section_that_fails_or_runs_out_of_time_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(setup: check_gpu.Setup) -> None:
        setup.results.check("memory", "before", 1, 1)
        raise ValueError("on purpose")

    def endless(setup: check_gpu.Setup) -> None:
        while True:
            np.zeros(1)

    monkeypatch.setitem(check_gpu.RUNS, "memory", broken)
    monkeypatch.setitem(check_gpu.RUNS, "two", endless)
    monkeypatch.setitem(check_gpu.SECTIONS, "two", 1 / 900)
    status, found = run(tmp_path, "--sections", "memory,two,precision")
    assert status == 1
    assert found["sections"]["memory"] == "failed: ValueError: on purpose"
    assert found["sections"]["two"].startswith("failed: OutOfTime") and found["sections"]["precision"].startswith(
        "done"
    )
    assert "before" in (tmp_path / "results.md").read_text()


def test_worst_site_and_operations() -> None:
    index = tiny("cpu").index
    wanted = np.ones(len(index))
    found = wanted.copy()
    found[index.slice(index.sites[3])] = 1.5
    assert check_gpu.worst_site(index, found, wanted) == pytest.approx(0.5)
    cost = check_gpu.Cost(33, 1280, 1)
    # Two operations a weight and token: 33 layers of 12 d^2 weights, and attention.
    assert cost.layer * 33 == pytest.approx(33 * (24 * 1280**2 + 4 * 1280))
    assert activation.METHODS[0] in check_gpu.SCORE_LIMITS


def test_no_gpu_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(SystemExit):
        check_gpu.main(["--out", str(tmp_path)])
    assert "PyTorch sees no GPU" in capsys.readouterr().err
