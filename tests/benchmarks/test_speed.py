"""The benchmark at toy size: it runs, compares the right things and gives times; what the times are is not tested."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from benchmarks import speed
from benchmarks.speed import TimedVariant
from models.config import MelConfig
from models.preprocess import AugmentMelSTFT


def test_table_and_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "ProcessPoolExecutor", lambda number, mp_context: ThreadPoolExecutor(number))  # starts faster
    monkeypatch.setattr(speed, "MATRIX", 64)
    figure = tmp_path / "speed.png"
    options = "--widths 0.1 --batch_sizes 3 --threads 1 --rounds 1 --clip_seconds 1"
    assert speed.main([*options.split(), "--figure", str(figure)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("front end ") for line in lines) == 2
    assert sum(line.startswith("mn01 ") for line in lines) == len(speed.VARIANTS)
    assert [line.split(",")[:2] for line in lines if "GFLOP/s" in line] == [["1 thread", " batch 3"]]
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_times_are_compared_within_a_part_and_with_the_limit() -> None:
    def work(part: str, name: str) -> TimedVariant:
        return TimedVariant(part, name, 1e9, lambda: torch.zeros(1))

    times = {
        work(speed.LIMIT, ""): [9.0, 9.0, 9.0],
        work("net", "eager"): [2.0, 4.0, 9.0],
        work("net", "fast"): [1.0, 1.0, 3.0],
        work("other", "eager"): [8.0, 8.0, 8.0],
    }
    rows = speed.evaluate(times, limit=1e10)
    assert [(row.part, row.variant, row.seconds, row.times_as_fast) for row in rows] == [
        ("net", "eager", 4.0, 1.0),
        ("net", "fast", 1.0, 3.0),  # of 2, 4 and 3: round by round
        ("other", "eager", 8.0, 1.0),
    ]
    assert [row.share for row in rows] == pytest.approx([0.025, 0.1, 0.0125])


def test_the_plain_front_end_is_the_front_end() -> None:
    waveform = torch.randn(2, 16000)
    mel = MelConfig(n_mels=64)
    expected = AugmentMelSTFT.from_config(mel).eval()(waveform)
    torch.testing.assert_close(speed.plain_log_mel(mel, waveform), expected, rtol=0, atol=2e-4)


def test_a_variant_that_computes_something_else_is_refused() -> None:
    ones = torch.ones(3)
    speed.check({"plain": lambda: (ones, ones), "same": lambda: (ones, ones + 1e-5)})
    for wrong in (ones + 0.1, ones * math.nan):
        with pytest.raises(ValueError, match="wrong"):
            speed.check({"plain": lambda: (ones, ones), "wrong": lambda wrong=wrong: (ones, wrong)})


def test_the_front_ends_arithmetic_is_that_of_ten_seconds() -> None:
    assert 25e6 < speed.front_end_operations(MelConfig(), 320_000) < 40e6  # 1000 transforms of 25,600 operations, and the rest
