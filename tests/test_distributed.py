"""Several ranks, started by torchrun as a user does, or by another launcher."""

from __future__ import annotations

import csv
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from torch import nn
from torch.distributed.launcher import LaunchConfig, elastic_launch

import ex_audioset
import ex_folder
from datasets.prepare import characters
from helpers import cli
from helpers.training import distributed, loop
from models import checkpoints
from models.errors import UserError
from models.MobileNetV3 import get_model
from tests.finetuning import ALWAYS, TINY

SCRIPT = Path(ex_audioset.__file__)
TRAIN = (
    "--train", "--kd_lambda", 1, "--clip_seconds", 0.5, "--num_workers", 0, "--batch_size", 16, "--n_epochs", 2,
    "--model_width", 0.1, "--n_mels", 32, "--warm_up_len", 0, "--max_lr", 0.003, "--roll", "--wavmix", "--gain_augment", 6,
    "--freqm", 8, "--wandb", "disabled",
)  # fmt: skip
LAUNCHER_VARIABLES = (
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "MPI_LOCALRANKID",
    "SLURM_LOCALID",
    "RANK",
    "WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "LOCAL_RANK",
)


@pytest.fixture(autouse=True)
def in_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in LAUNCHER_VARIABLES:
        monkeypatch.delenv(variable, raising=False)


def torchrun(*argv: object, script: Path = SCRIPT) -> subprocess.CompletedProcess[str]:
    """Run a script on two ranks."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", script, *map(str, argv)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def launch(function: Callable[[], object], count: int = 2) -> list[int | None]:
    """Call a function on several ranks, in processes that know of each other what a launcher other than torchrun sets.

    Returns their exit codes; what they print is in the files stdout0, stderr0, stdout1 and so on.
    """
    port = free_port()

    def run(rank: int) -> None:
        os.environ.update(RANK=str(rank), WORLD_SIZE=str(count), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        with open(f"stdout{rank}", "w") as sys.stdout, open(f"stderr{rank}", "w") as sys.stderr:
            function()

    ranks = [multiprocessing.get_context("fork").Process(target=run, args=(rank,)) for rank in range(count)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
        process.kill()  # where it waits for the other for ever
    return [process.exitcode for process in ranks]


def launch_as_torchrun(function: Callable[[], object]) -> int | None:
    """Call a function on two ranks as torchrun does, in forks: its processes take seconds to start. Returns its exit code."""

    def run() -> None:
        with open(f"stdout{os.environ['RANK']}", "w") as sys.stdout:
            function()

    config = LaunchConfig(1, 1, 2, rdzv_backend="c10d", rdzv_endpoint="127.0.0.1:0", start_method="fork", monitor_interval=0.1)
    process = multiprocessing.get_context("fork").Process(target=elastic_launch(config, run))  # it changes how signals are handled
    process.start()
    process.join(120)
    process.kill()
    return process.exitcode


def train_losses(folder: Path) -> list[float]:
    with open(folder / "metrics.csv", newline="") as file:
        return [float(row["train_loss"]) for row in csv.DictReader(file)]


def test_two_ranks_train_as_one(tiny_audioset: Path, tmp_path: Path) -> None:
    """One rank that cuts each batch in two computes what two ranks do: same clips, same losses, same weights.

    Only the statistics of batch norms differ: on one rank every micro-batch updates them. A teacher and its features are learnt
    next to the labels.
    """
    torch.manual_seed(1)
    checkpoints.save(tmp_path / "teacher.pt", get_model(width_mult=0.1, input_dim_f=32).eval())
    learn = ["--kd_lambda", "0.5", "--teacher", str(tmp_path / "teacher.pt"), "--feature_kd", "1"]
    options = [*map(str, TRAIN), "--dataset_dir", str(tiny_audioset), *learn]
    assert ex_audioset.main([*options, "--experiment_name", "one", "--accumulate", "2"]) == 0
    assert launch(lambda: ex_audioset.main([*options, "--experiment_name", "two"])) == [0, 0]
    one, two = tmp_path / "runs/one", tmp_path / "runs/two"
    assert not (tmp_path / "runs/two-2").exists()
    np.testing.assert_allclose(train_losses(one), train_losses(two), rtol=1e-4)
    first, second = (checkpoints.load(folder / "last.pt").state for folder in (one, two))
    torch.manual_seed(0)
    start = get_model(width_mult=0.1).state_dict()
    weights = [name for name in first if "running" not in name and "num_batches" not in name]
    moved = torch.cat([(first[name] - start[name]).flatten() for name in weights])
    apart = torch.cat([(first[name] - second[name]).flatten() for name in weights])
    assert apart.norm() < 0.05 * moved.norm()


def test_two_ranks_evaluate_as_one(
    tiny_audioset: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 11 clips, so that the shares differ."""
    with h5py.File(tiny_audioset / "eval_segments_mp3.hdf") as source, h5py.File("eval_segments_mp3.hdf", "w") as file:
        for key in source:
            file.create_dataset(key, data=source[key][:11], dtype=source[key].dtype)
    options = ["--model_name", str(tiny_checkpoint), "--dataset_dir", str(tmp_path), "--clip_seconds", "0.5", "--num_workers", "0"]
    assert ex_audioset.main([*options, "--per_class", "one.csv"]) == 0
    printed = capsys.readouterr().out
    assert launch_as_torchrun(lambda: ex_audioset.main([*options, "--per_class", "two.csv", "--batch_size", "2"])) == 0
    assert Path("stdout0").read_text() == printed and "mAP" in printed and not Path("stdout1").read_text()
    assert Path("one.csv").read_text() == Path("two.csv").read_text()


def test_a_rank_that_fails_ends_all_with_its_error(
    tiny_audioset: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "eval_segments_mp3.hdf"
    path.write_bytes((tiny_audioset / path.name).read_bytes())
    with h5py.File(path, "r+") as file:
        file["mp3"][5] = file["mp3"][5][:40] * 0
    options = ["--model_name", tiny_checkpoint, "--dataset_dir", tmp_path, "--clip_seconds", 0.5, "--num_workers", 0]
    monkeypatch.setattr(sys, "argv", ["ex_audioset.py", *map(str, options)])
    assert launch(lambda: cli.run(ex_audioset.main)) == [1, 1]
    message = Path("stderr1").read_text()
    assert message.startswith("rank 1: error: ") and "Yeval0000005.mp3" in message


def test_a_signal_to_one_rank_ends_all_behind_the_same_step(
    tiny_audioset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [*TRAIN, "--dataset_dir", tiny_audioset, "--experiment_name", "two"]
    monkeypatch.setattr(sys, "argv", ["ex_audioset.py", *map(str, options)])
    step = loop._Stepper.__call__

    def interrupted(*args: object) -> object:
        if distributed.rank() == 1:
            signal.raise_signal(signal.SIGTERM)
        return step(*args)

    monkeypatch.setattr(loop._Stepper, "__call__", interrupted)
    assert launch(lambda: cli.run(ex_audioset.main)) == [143, 143]
    _, state = checkpoints.load_training(tmp_path / "runs/two/last.pt")
    assert (state["progress"]["epoch"], state["progress"]["step"]) == (0, 1)
    assert "Traceback" not in Path("stderr0").read_text() + Path("stderr1").read_text()


def test_a_world_of_one_needs_no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    with distributed.group(cuda=False) as device:
        assert device.type == "cpu" and distributed.world_size() == 1 and distributed.is_main()


def test_a_launcher_that_gives_no_rank_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="RANK and MASTER_ADDR"), distributed.group(cuda=False):
        pass


def test_without_a_local_rank_the_first_rank_still_goes_first() -> None:
    def write_times() -> None:
        with distributed.group(cuda=False), distributed.local_main_first():
            start = time.monotonic()
            time.sleep(0.2)
            np.savetxt(f"times{distributed.rank()}", [start, time.monotonic()])

    assert launch(write_times) == [0, 0]
    (_, first_end), (second_start, _) = np.loadtxt("times0"), np.loadtxt("times1")
    assert second_start >= first_end


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, 0),
        ({"RANK": "5", "LOCAL_RANK": "1"}, 1),
        ({"RANK": "5", "SLURM_LOCALID": "2"}, 2),
        ({"RANK": "5", "LOCAL_RANK": "1", "SLURM_LOCALID": "0"}, 1),
        ({"RANK": "5", "LOCAL_RANK": "", "OMPI_COMM_WORLD_LOCAL_RANK": "3", "SLURM_LOCALID": "0"}, 3),
    ],
)
def test_the_local_rank_is_the_launchers(variables: dict[str, str], expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert distributed.local_rank() == expected


@pytest.mark.parametrize(
    "wrong", [{"WORLD_SIZE": "abc"}, {"RANK": "x"}, {"RANK": "-1"}, {"RANK": "2"}, {"RANK": ""}, {"MASTER_PORT": "x"}]
)
def test_what_a_launcher_sets_wrongly_is_one_line(wrong: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1"} | wrong).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=next(iter(wrong))), distributed.group(cuda=False):
        pass


def test_a_rank_that_does_not_start_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "START_TIMEOUT", timedelta(seconds=1))
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="not all 2 ranks were there within 1 s"), distributed.group(cuda=False):
        pass


def test_a_rank_that_ends_at_its_start_ends_those_that_wait_for_it() -> None:
    """Without a launcher that would end them."""

    def run(argv: None = None) -> None:
        with distributed.group(cuda=False):
            if distributed.rank() == 2:
                os._exit(3)
            with distributed.local_main_first():
                pass

    assert launch(lambda: cli.run(run), 3) == [1, 1, 3]
    assert "another rank ended" in Path("stderr0").read_text() and "another rank ended" in Path("stderr1").read_text()


@pytest.mark.parametrize(
    ("differs", "message"), [("clips", "different training clips"), ("resumed", "different states of the run")]
)
def test_ranks_that_see_different_files_end_with_what_differs(differs: str, message: str) -> None:
    def run(argv: None = None) -> None:
        with distributed.group(cuda=False):
            is_other = distributed.rank() == 1
            resumed = (None, {"progress": {"epoch": 1}}) if differs == "resumed" and is_other else None
            clips = SimpleNamespace(fingerprint="other" if differs == "clips" and is_other else "same")
            loop._check_ranks(SimpleNamespace(resumed=resumed), clips)

    assert launch(lambda: cli.run(run)) == [1, 1]
    assert message in Path("stderr0").read_text() and message in Path("stderr1").read_text()


def test_three_ranks_share_weights_statistics_and_gradients() -> None:
    """Also of 1x1 and depthwise kernels stored channels last, without warnings about their strides."""

    def new_network(rank: int) -> nn.Module:
        torch.manual_seed(rank)
        network = nn.Sequential(nn.Conv2d(2, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3))
        network[2].running_mean.fill_(rank)
        return network.to(memory_format=torch.channels_last)

    inputs = [torch.rand(2, 2, 8, 8, generator=torch.Generator().manual_seed(rank)) for rank in range(3)]

    def run() -> None:
        with distributed.group(cuda=False):
            rank = distributed.rank()
            network = new_network(rank)
            replica = distributed.replicate(network)
            means = network[2].running_mean.tolist()
            # As cuDNN returns the gradient of a 1x1 kernel, where oneDNN returns the other form.
            network[0].weight.register_hook(lambda gradient: torch.empty_strided((8, 2, 1, 1), (2, 1, 1, 1)).copy_(gradient))
            replica(inputs[rank])[0].sum().backward()
            torch.save([means, *(parameter.grad for parameter in network.parameters())], f"rank{rank}.pt")

    assert launch(run, 3) == [0, 0, 0]
    gradients = []
    for x in inputs:
        network = new_network(0)
        network(x)[0].sum().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    for rank in range(3):
        means, *own = torch.load(f"rank{rank}.pt")
        assert means == [0.0] * 8
        for gradient, of_ranks in zip(own, zip(*gradients, strict=True), strict=True):
            torch.testing.assert_close(gradient, torch.stack(of_ranks).mean(0))
        assert "strides" not in Path(f"stderr{rank}").read_text()


def test_two_ranks_end_early_together(folder_dir: Path) -> None:
    """A network that hardly moves gets no better; clips are drawn as on one rank, and each file is written once."""
    options = [
        str(folder_dir), "--from_scratch", *map(str, TINY), "--n_epochs", "9", "--patience", "1", "--max_lr", "1e-9",
        "--batch_norm_momentum", "0", "--balance", "sampling", "--batch_size", "8", *map(str, ALWAYS),
    ]  # fmt: skip
    assert ex_folder.main([*options, "--experiment_name", "one", "--accumulate", "2"]) == 0
    assert launch(lambda: ex_folder.main([*options, "--experiment_name", "two"])) == [0, 0]
    one, two = Path("runs/one"), Path("runs/two")
    assert len(train_losses(one)) == len(train_losses(two)) == 2
    np.testing.assert_allclose(train_losses(one), train_losses(two), rtol=1e-4)
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in two.iterdir())
    assert (one / "validation_confusion.csv").read_text() == (two / "validation_confusion.csv").read_text()
    assert Path("stdout0").read_text() and not Path("stdout1").read_text()


@pytest.mark.slow
def test_the_average_of_weights_is_one_over_two_ranks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two ranks keep the average that one rank keeps, and evaluate the same network."""
    pytest.importorskip("torchvision")
    import ex_imagenet

    assert characters.main(["digits", "--output_dir", str(tmp_path / "digits")]) == 0
    options = [
        "digits", "--model_width", "0.1", "--image_size", "16", "--batch_size", "64", "--n_epochs", "2", "--num_workers", "0",
        "--batch_norm_momentum", "0.2", "--wandb", "disabled",
    ]  # fmt: skip
    assert ex_imagenet.main([*options, "--experiment_name", "one", "--accumulate", "2"]) == 0
    result = torchrun(*options, "--experiment_name", "two", script=SCRIPT.with_name("ex_imagenet.py"))
    assert result.returncode == 0, result.stderr
    np.testing.assert_allclose(train_losses(tmp_path / "runs/one"), train_losses(tmp_path / "runs/two"), rtol=1e-3)
    one, two = (checkpoints.load(tmp_path / f"runs/{name}/last.pt") for name in ("one", "two"))
    for name, tensor in one.state.items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(tensor, two.state[name], atol=0.02, rtol=0.05)
    capsys.readouterr()
    assert ex_imagenet.main(["digits", "--evaluate", "runs/two/last.pt", "--num_workers", "0"]) == 0
    assert f"accuracy: {two.metrics['accuracy']:.3f}" in capsys.readouterr().out
