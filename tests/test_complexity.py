from __future__ import annotations

import sys
from pathlib import Path

import pytest

import complexity
from helpers import cli
from models.registry import PRETRAINED


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.splitlines()[-1]


@pytest.fixture(autouse=True)
def no_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is there to load, and nowhere to load it from."""
    monkeypatch.setenv("EFFICIENTAT_RESOURCES", str(tmp_path / "empty"))
    monkeypatch.setenv("EFFICIENTAT_RELEASE_URL", (tmp_path / "nowhere").as_uri())


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [("mn10_as", "4.88", "0.54"), ("mn40_as_ext(2)", "68.43", "8.03"), ("mn10_as_hop_15", "4.88", "0.36")],
)
def test_last_line_for_a_released_model(capsys: pytest.CaptureFixture[str], name: str, params: str, macs: str) -> None:
    assert complexity.main(["--model_name", name]) == 0
    assert last_line(capsys) == (
        f"Model '{name}' has {params} million parameters and inference of a single 10-seconds audio clip requires "
        f"{macs} billion multiply-accumulate operations."
    )


def test_says_what_is_not_counted(capsys: pytest.CaptureFixture[str]) -> None:
    complexity.main([])
    first, second, last = capsys.readouterr().out.splitlines()
    assert first.startswith("Counted: convolutions and linear layers. Not counted")
    assert "AugmentMelSTFT (1), BatchNorm2d (46)" in second
    assert last.startswith("Model 'width 1.0, mlp head' has 4.88 million parameters")


def test_a_described_network_and_front_end(capsys: pytest.CaptureFixture[str]) -> None:
    complexity.main("--model_width 1 --head_type fully_convolutional --n_mels 64 --hop_size 640".split())
    assert last_line(capsys).startswith("Model 'width 1.0, fully convolutional head' has 3.48 million parameters")
    complexity.main("--se_dims t --hop_size 480".split())  # sized for the 667 frames of the clip
    assert "requires 0.36 billion" in last_line(capsys)


def test_a_checkpoint_by_its_path(capsys: pytest.CaptureFixture[str], tiny_checkpoint: Path) -> None:
    complexity.main(["--model_name", str(tiny_checkpoint)])
    assert last_line(capsys).startswith(f"Model '{tiny_checkpoint}' has 0.12 million parameters")


def test_an_ensemble(capsys: pytest.CaptureFixture[str]) -> None:
    complexity.main("--ensemble mn10_as_hop_15 mn04_as".split())
    assert last_line(capsys) == (
        "Model 'ensemble of mn10_as_hop_15, mn04_as' has 5.86 million parameters and inference of a single 10-seconds "
        "audio clip requires 0.47 billion multiply-accumulate operations."
    )


def test_the_published_ensemble_row_is_the_sum_of_its_rounded_members(capsys: pytest.CaptureFixture[str]) -> None:
    names = [name for name in PRETRAINED if name.startswith("mn40_as")]
    complexity.main(["--ensemble", *names])
    lines = capsys.readouterr().out.splitlines()
    assert len(names) == 9 and "615.87" in lines[9] and "72.27" in lines[9]
    assert "615.85 million parameters" in lines[-1] and "72.25 billion" in lines[-1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--model_name mn10_ass", "did you mean mn10_as"),
        ("--ensemble mn10_as mn11_as", "unknown model 'mn11_as'"),
        ("--model_name mn10_as --model_width 2", "contradicts mn10_as"),
        ("--ensemble mn10_as mn10_as_mels_40 --n_mels 128", "contradict mn10_as_mels_40"),
    ],
)
def test_mistakes(options: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        complexity.main(options.split())


def test_name_and_ensemble_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        complexity.main("--model_name mn10_as --ensemble mn10_as".split())
    assert end.value.code == 2
    assert "not allowed with" in capsys.readouterr().err


def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["complexity.py", "--model_name", "no_such.pt"])
    with pytest.raises(SystemExit) as end:
        cli.run(complexity.main)
    assert end.value.code == 1
    output = capsys.readouterr()
    assert output.out == "" and len(output.err.splitlines()) == 1 and "no_such.pt" in output.err
