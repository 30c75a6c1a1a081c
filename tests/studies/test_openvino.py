"""The study at toy size, where OpenVINO is installed (make test-openvino)."""

from __future__ import annotations

from pathlib import Path

import pytest

from studies import esc10, openvino
from tests.finetuning import tone, write


def test_a_row_for_each_variant(
    tiny_audioset: Path, tiny_checkpoint: Path, tmp_path: Path, empty_resources: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openvino")
    for k, name in enumerate(esc10.CLASSES):
        write(tmp_path / f"{k + 1:03d} - {name}" / f"1-{k}-A.wav", tone(k, 0.3, k))
    argv = ["--model_name", tiny_checkpoint, "--audio_dir", tmp_path, "--dataset_dir", tiny_audioset, "--clip_seconds", 1]
    assert openvino.main([*map(str, argv), "--rounds", "1", "--format", "markdown"]) == 0
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("|")][2:]
    assert [row[0].strip() for row in rows] == ["ONNX Runtime, float32", "OpenVINO, float32", "OpenVINO, bfloat16"]
    assert float(rows[1][2]) == 1 and all(float(row[-1]) > 0 for row in rows)
