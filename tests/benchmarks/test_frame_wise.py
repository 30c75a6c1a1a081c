"""The benchmark on tiny networks; what the figures are is not tested."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks import frame_wise
from models.config import Arch, FrameWiseArch


def test_a_row_for_each_network_and_backend(tmp_path: Path) -> None:
    torch.manual_seed(0)
    archs = {"mn01": Arch(3, 0.1), "fmn01": FrameWiseArch(3, 0.1)}
    rows = frame_wise.measure(archs, 1.0, 1, tmp_path)
    assert [row[:2] for row in rows] == [(name, backend) for name in archs for backend in ("PyTorch", "ONNX Runtime")]
    assert all(float(row[2]) > 0 and float(row[3]) > 0 for row in rows) and rows[0][4] == "1.00"


def test_the_networks_are_the_released_ones() -> None:
    assert frame_wise.architectures(0.4)["fmn04+gru-104"] == FrameWiseArch(width_mult=0.4, sequence_model="gru", sequence_size=104)
