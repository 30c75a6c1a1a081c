"""The benchmark on a tiny network; what the figures are is not tested."""

from __future__ import annotations

import pytest
import torch

from benchmarks import dynamic
from models.config import DyMNArch


@torch.no_grad()
def test_the_plain_form_computes_the_same() -> None:
    torch.manual_seed(0)
    x = dynamic.noises(3, 40)
    network = dynamic.random_network(DyMNArch(3, 0.1, T_max=1.0), x).double()
    plain = dynamic.plain(network)
    assert any(isinstance(module, dynamic.PlainDynamicConv) for module in plain.modules())
    expected = network(x.double())[0]
    assert expected.std() > 1e-6
    torch.testing.assert_close(plain(x.double())[0], expected, rtol=1e-6, atol=1e-6)


def test_gradients_are_those_of_the_plain_form() -> None:
    torch.manual_seed(0)
    x = dynamic.noises(2, 40).double()
    network = DyMNArch(3, 0.1, T_max=2.0).build().double().train()
    gradients = []
    for form in (network, dynamic.plain(network)):
        torch.manual_seed(1)  # of the dropout
        form(x)[0].square().sum().backward()
        gradients.append([parameter.grad for parameter in form.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-9 + 1e-6 * other.abs().max().item())
    assert sum(one.abs().max() > 1e-9 for one in gradients[0]) > 100


def test_evaluation_with_and_without_gradients() -> None:
    torch.manual_seed(0)
    x = dynamic.noises(3, 40).double()
    network = dynamic.random_network(DyMNArch(3, 0.1, T_max=1.0), x.float()).double()
    recorded = network(x)[0]
    assert recorded.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(network(x)[0], recorded, rtol=1e-7, atol=1e-9)


def test_prints_a_row_for_each_variant(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--widths", "0.1", "--batch_sizes", "1", "--threads", "1", "--frames", "40", "--rounds", "1"]
    assert dynamic.main(small) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith(("dymn01", "mn01"))]
    assert len(rows) == 6 and all("Runtime" in row or "PyTorch" in row for row in rows)


def test_profile_lists_operations_within_blocks(capsys: pytest.CaptureFixture[str]) -> None:
    assert dynamic.main(["--profile", "--widths", "0.1", "--frames", "40", "--rounds", "2"]) == 0
    tables = capsys.readouterr().out.split("mn01, one thread")
    assert [table.count("depthwise convolutions") for table in tables] == [0, 1, 1] and "Softmax" in tables[1]
