"""studies.dynamic: one budget, a temperature that fits it, and the whole study at toy size."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

import ex_audioset
from models import checkpoints
from models.config import DyMNArch
from studies import dynamic
from tests.studies.test_esc10 import audio_dir as esc10_dir  # noqa: F401


def options(corpus: Path, audio_dir: Path, output_dir: Path, teacher: Path, *more: object) -> list[str]:
    words = ["--dataset_dir", corpus, "--audio_dir", audio_dir, "--output_dir", output_dir, "--teacher", teacher]
    return [str(word) for word in (*words, "--model_width", 0.1, "--seeds", 1, *more)]


@pytest.mark.parametrize("n_epochs", [2, 6, 7])
def test_families_differ_in_nothing_else_and_temperatures_end_at_1(tmp_path: Path, n_epochs: int) -> None:
    args = dynamic.build_parser().parse_args(options(tmp_path, tmp_path, tmp_path, tmp_path, "--n_epochs", n_epochs))
    parser = ex_audioset.build_parser()
    runs = dynamic.plan(args)
    mn, dymn = (vars(parser.parse_args(["--train", *map(str, runs[arm, 0])])) for arm in dynamic.ARMS)
    assert {name for name in mn if mn[name] != dymn[name]} == {"arch", "T0_slope"}
    arch = DyMNArch(T0_slope=dymn["T0_slope"])
    assert arch.temperature_at(0) == 30 and arch.temperature_at(n_epochs // 2) == pytest.approx(1)


@pytest.mark.slow
def test_the_study_runs_and_resumes(
    tiny_audioset: Path,
    esc10_dir: Path,  # noqa: F811
    tmp_path: Path,
    tiny_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(dynamic.esc50, "CLIP_SECONDS", 0.3)
    short = ("--clip_seconds", 0.5, "--n_epochs", 2, "--tuning_epochs", 1)
    argv = options(tiny_audioset, esc10_dir, tmp_path, tiny_checkpoint, *short)
    assert dynamic.main(argv) == 0
    printed = capsys.readouterr().out
    assert printed.count("gain in mAP by seed, DyMN against MobileNetV3") == 2 and "| DyMN from the open corpus |" in printed
    before, after = (checkpoints.load(tmp_path / "runs/mn_0" / name).state for name in ("last.pt", "recomputed.pt"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all("running" in name or "num_batches" in name for name in changed)
    with open(tmp_path / "esc10.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["network"], row["start"], row["fold"]) for row in rows] == [
        (arm, start, "1") for arm in dynamic.ARMS for start in dynamic.STARTS
    ]
    assert (tmp_path / "dynamic.png").read_bytes().startswith(b"\x89PNG")
    assert checkpoints.load(tmp_path / "runs/dymn_0/last.pt").arch.temperature == pytest.approx(1)
    tuned = {start: checkpoints.load(tmp_path / f"runs/esc10_dymn_{start}_0/last.pt").arch for start in dynamic.STARTS}
    assert tuned["trained"].temperature == pytest.approx(1) and tuned["scratch"].temperature == 30  # of the first epoch
    runs = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/last.pt")}
    assert len(runs) == 6
    assert dynamic.main(argv) == 0
    assert {path: path.stat().st_mtime_ns for path in runs} == runs
