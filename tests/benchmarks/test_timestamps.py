"""The benchmark of time stamps on a second of sound: it compares two variants that agree, and reports it if they do not."""

from __future__ import annotations

import pytest
import torch

from benchmarks import timestamps

WORDS = ["--width", "0.1", "--seconds", "0.4", "--rounds", "1", "--threads", "1"]


def test_both_variants_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert timestamps.main(WORDS) == 0
    width, windows, loop, together, ratio, difference = capsys.readouterr().out.splitlines()[-1].split()
    assert (width, windows) == ("0.1", "9") and float(difference) < 1e-4
    assert float(ratio) == pytest.approx(float(loop) / float(together), rel=0.3)


def test_other_results_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    embed = timestamps.EmbeddingModel.embed
    monkeypatch.setattr(timestamps.EmbeddingModel, "embed", lambda self, waveform: embed(self, waveform) + 0.01 * torch.rand(1))
    with pytest.raises(ValueError, match="differ"):
        timestamps.main(WORDS)
