from __future__ import annotations

import os

import pytest
import torch

from helpers import devices
from helpers.devices import copied_ahead, loader_workers, pick_device, training_algorithms
from tests.pretended_cuda import PretendedCuda

CUDA = torch.device("cuda")


@pytest.mark.parametrize(
    ("cores", "variables", "expected"),
    [
        (12, {}, 12),
        (128, {}, 20),
        (1, {}, 1),
        (16, {"LOCAL_WORLD_SIZE": "4"}, 4),
        (16, {"OMPI_COMM_WORLD_LOCAL_SIZE": "5"}, 3),
        (4, {"LOCAL_WORLD_SIZE": "8"}, 1),
        (8, {"LOCAL_WORLD_SIZE": "0", "MPI_LOCALNRANKS": "x"}, 8),
    ],
)
def test_ranks_share_the_cores_that_they_may_use(
    cores: int, variables: dict[str, str], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)
    for name in devices._LOCAL_SIZE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert loader_workers() == expected


def test_float32_is_float32_on_cuda(pretended_cuda: PretendedCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert pick_device(False).type == "cpu" and torch.backends.cudnn.allow_tf32
    assert pick_device(True).type == "cuda" and not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize("deterministic", [False, True])
def test_algorithms_of_a_training(deterministic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")

    def chosen() -> tuple[bool, bool]:
        return torch.backends.cudnn.benchmark, torch.are_deterministic_algorithms_enabled()

    with training_algorithms(CUDA, deterministic):
        assert chosen() == (not deterministic, deterministic)
        assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) == deterministic
    assert chosen() == (False, False)
    with training_algorithms(torch.device("cpu"), deterministic):
        assert chosen() == (False, False)


@pytest.mark.parametrize(("device", "ahead"), [("cpu", 0), ("cuda", 1)])
def test_a_gpu_copies_one_batch_ahead(device: str, ahead: int, pretended_cuda: PretendedCuda) -> None:
    copied: list[int] = []

    def copy(number: int) -> tuple[int, list[torch.Tensor]]:
        copied.append(number)
        return 10 * number, []

    for number, batch in enumerate(copied_ahead(range(3), copy, torch.device(device))):
        assert batch == 10 * number
        assert copied == list(range(min(number + 1 + ahead, 3)))
    assert copied == [0, 1, 2]
