"""helpers.distillation.block_figure: the figure of a run's block errors."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import matplotlib

from helpers.distillation.block_figure import main


def test_every_block_has_a_line(tmp_path: Path) -> None:
    header = "epoch,train_loss," + ",".join(f"block_{number}" for number in range(12))
    rows = [f"{epoch},1.0," + ",".join(str(0.1 / (epoch + 1 + number)) for number in range(12)) for epoch in range(3)]
    (tmp_path / "metrics.csv").write_text("\n".join([header, *rows]) + "\n")
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        assert main([str(tmp_path), str(tmp_path / "blocks.svg")]) == 0
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", (tmp_path / "blocks.svg").read_text())
    assert [text for text in texts if "block " in text] == [f"block {number}" for number in range(11)]
    assert "logits" in texts


def test_a_run_without_features_is_refused(tmp_path: Path, failing_message: Callable[..., str]) -> None:
    assert "metrics.csv" in failing_message(main, tmp_path, "blocks.png")
    (tmp_path / "metrics.csv").write_text("epoch,train_loss\n0,1.0\n")
    assert "--feature_kd" in failing_message(main, tmp_path, "blocks.png")
