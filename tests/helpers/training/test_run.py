from __future__ import annotations

import argparse
import csv
import errno
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.training import tracking
from helpers.training.run import STATE, Run, experiment_folder, parse_arguments
from models import checkpoints
from models.errors import UserError
from models.MobileNetV3 import get_model

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def in_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # nobody is logged in
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


STATE_OF_ONE_EPOCH = {
    "progress": {"epoch": 1}, "micro_batches": 1, "optimizer": {}, "scaler": {}, "best": 0.5, "fingerprints": {},
}  # fmt: skip


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--experiment_name", default="test")
    parser.add_argument("--wandb", default="disabled")
    parser.add_argument("--max_lr", type=float, default=1e-3)
    parser.add_argument("--dataset_dir", type=Path)
    return parser


def start(*argv: str) -> Run:
    return Run(parse_arguments(parser(), argv))


def test_a_run_records_its_configuration() -> None:
    with start("--max_lr", "0.1", "--dataset_dir", "somewhere") as run:
        logging.getLogger("helpers.anything").warning("something before")
        run.open()
        logging.getLogger("helpers.anything").warning("something happened")
    config = json.loads((run.folder / "config.json").read_text())
    assert config["args"]["max_lr"] == 0.1 and config["args"]["dataset_dir"] == "somewhere"
    assert config["versions"]["torch"] and config["versions"]["numpy"] and config["versions"]["python"]
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True)
    assert head.returncode != 0 or config["git"].startswith(head.stdout.strip())
    log = (run.folder / "log.txt").read_text()
    assert log.count("something before") == log.count("something happened") == 1


def test_an_error_is_in_the_log() -> None:
    with pytest.raises(ZeroDivisionError), start() as run:
        run.open()
        run.save(get_model(width_mult=0.1), None, {}, {})
        1 / 0  # noqa: B018
    assert "ZeroDivisionError" in (run.folder / "log.txt").read_text()
    assert not any(handler.__class__ is logging.FileHandler for handler in logging.getLogger().handlers)


def test_a_mistake_in_the_options_leaves_no_folder() -> None:
    with pytest.raises(UserError), start():
        raise UserError("a wrong option")
    assert not Path("runs").exists()


@pytest.mark.parametrize("opened", [False, True])
def test_a_crash_before_the_first_checkpoint_leaves_its_log(opened: bool) -> None:
    with pytest.raises(RuntimeError), start() as run:
        logging.getLogger("helpers.anything").warning("building the model")
        if opened:
            run.open()
        raise RuntimeError("out of memory")
    log = Path("runs/test/log.txt").read_text()
    assert "building the model" in log and "RuntimeError: out of memory" in log
    assert parse_arguments(parser(), ["--resume", "runs/test"]).experiment_name == "test"


def test_a_crash_before_a_run_resumes_adds_to_its_log_alone() -> None:
    with start() as run:
        run.open()
        run.log(0, {"mAP": 0.5})
    before = {path.name: path.read_bytes() for path in run.folder.iterdir()}
    with pytest.raises(RuntimeError), start("--resume", "runs/test", "--dataset_dir", "elsewhere"):
        raise RuntimeError("building the model failed")
    after = {path.name: path.read_bytes() for path in run.folder.iterdir()}
    assert b"building the model failed" in after.pop("log.txt").removeprefix(before.pop("log.txt"))
    assert before == after and "metrics.csv" in after


@pytest.mark.parametrize("error", [UserError, RuntimeError])
def test_a_run_that_fails_removes_no_files_of_others(error: type[Exception]) -> None:
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("years of work")
    Path("mine/.thesis.txt.part").write_text("and more")
    args = parse_arguments(parser(), [])
    for _ in range(2):  # the second time in a folder that holds a run's description
        with pytest.raises(error), Run(args, Path("mine")) as run:
            run.open()
            raise error("out of memory")
        assert Path("mine/thesis.txt").read_text() == "years of work" and Path("mine/.thesis.txt.part").exists()
        assert "out of memory" in Path("mine/log.txt").read_text()


def test_a_folder_in_which_nothing_can_be_written_is_not_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, write: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("models.files.write_atomically", full)
    with pytest.raises(OSError), start() as run:
        run.open()
    assert not list(Path("runs").iterdir())
    Path("runs/test").mkdir()
    with pytest.raises(OSError), Run(parse_arguments(parser(), []), Path("runs/test")) as run:
        run.open()
    assert Path("runs/test").is_dir()


def test_a_run_resumes_with_the_same_inputs_alone() -> None:
    with start() as run:
        run.require_same("clips", "abc", "--clips")
        run.open()
        run.save(get_model(width_mult=0.1), 0, {}, STATE_OF_ONE_EPOCH)
    run = start("--resume", "runs/test")
    run.require_same("clips", "abc", "--clips")
    with pytest.raises(UserError, match="--clips"):
        run.require_same("clips", "abd", "--clips")


def test_a_resumed_run_takes_over_its_options() -> None:
    with start("--max_lr", "0.1", "--dataset_dir", "here") as run:
        run.open()
    args = parse_arguments(parser(), ["--resume", "runs/test", "--dataset_dir", "there"])
    assert (args.max_lr, args.dataset_dir, args.resume) == (0.1, Path("there"), Path("runs/test"))
    assert parse_arguments(parser(), ["--resume", "runs/test", "--max_lr", "0.1"]).max_lr == 0.1
    with pytest.raises(ValueError, match="--max_lr"):
        parse_arguments(parser(), ["--resume", "runs/test", "--max_lr", "0.2"])


def test_a_resumed_experiment_keeps_what_was_changed_last() -> None:
    folder = experiment_folder(parse_arguments(parser(), ["--dataset_dir", "here"]))
    for argv in (["--dataset_dir", "moved"], []):  # the second time it is not given
        args = parse_arguments(parser(), ["--resume", str(folder), *argv])
        assert args.dataset_dir == Path("moved")
        assert experiment_folder(args) == folder


def test_what_cannot_be_resumed_is_refused() -> None:
    with pytest.raises(FileNotFoundError):
        start("--resume", "runs/none")
    Path("runs/other").mkdir(parents=True)
    for content in ("{", "[]", '{"args": 3, "run_id": "a"}'):
        Path("runs/other/config.json").write_text(content)
        with pytest.raises(ValueError):
            start("--resume", "runs/other")
    Path("runs/other/config.json").write_text('{"args": {"fold": 3}, "run_id": "a"}')
    with pytest.raises(ValueError, match="fold"):
        start("--resume", "runs/other")
    with start() as run:
        run.open()
    model = get_model(width_mult=0.1)
    assert STATE_OF_ONE_EPOCH.keys() == STATE.keys()
    states = [STATE_OF_ONE_EPOCH | {name: "x"} for name in STATE] + [STATE_OF_ONE_EPOCH | {"progress": {"epoch": "1"}}]
    for training in (None, *states):
        checkpoints.save(run.folder / "last.pt", model, training=training)
        with pytest.raises(checkpoints.CheckpointError, match=r"last\.pt"):
            start("--resume", str(run.folder))


@pytest.mark.parametrize("name", ["log.txt", "metrics.csv"])
def test_nothing_is_appended_to_other_files_through_links(name: str) -> None:
    with start() as run:
        run.open()
    (run.folder / "log.txt").unlink()
    Path("elsewhere").write_text("mine")
    (run.folder / name).symlink_to(Path("elsewhere").absolute())
    with pytest.raises(UserError, match=name), start("--resume", str(run.folder)) as run:
        run.open()
    assert Path("elsewhere").read_text() == "mine"


@pytest.mark.parametrize(
    "content",
    [b"epoch,x\na,b\n", b"\xff\xfe\n\xff\n", b"epoch\n" + b"9" * 5000 + b"\n", b"epoch,=1+1\n", b"epoch,x\n-1,=1+1\n"],
)
def test_a_table_that_no_run_wrote_is_named(content: bytes) -> None:
    with start() as run:
        run.open()
    (run.folder / "metrics.csv").write_bytes(content)
    with pytest.raises(UserError, match="metrics.csv"), start("--resume", str(run.folder)) as run:
        run.open()


def test_wandb_is_offline_without_a_login_and_its_run_can_be_read_back() -> None:
    assert tracking.resolve_mode("auto") == "offline"
    with start("--wandb", "auto") as run:
        run.open()
        for epoch in range(2):
            run.log(epoch, {"train_loss": 0.5, "mAP": 0.25 + epoch})
            run.save_if_best(get_model(width_mult=0.1), epoch, {"mAP": 0.25 + epoch}, "mAP")
    (path,) = run.folder.glob("wandb/offline-run-*/run-*.wandb")
    inspect = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
    output = subprocess.run(inspect, capture_output=True, text=True, check=True).stdout
    records = [json.loads(line) for line in output.splitlines()]
    history = [record["history"] for record in records if record["type"] == "history"]
    assert len(history) == 2 and "1.25" in json.dumps(history[1])
    config = next(record["run"] for record in records if record["type"] == "run")["config"]
    assert "max_lr" in json.dumps(config)
    (weights,) = path.parent.glob("files/*.pt")
    assert checkpoints.load(weights).epoch == 1
    with open(run.folder / "metrics.csv", newline="") as file:
        assert [float(row["mAP"]) for row in csv.DictReader(file)] == [0.25, 1.25]


def test_wandb_modes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracking.resolve_mode("disabled") == "disabled" and tracking.resolve_mode("offline") == "offline"
    with pytest.raises(ValueError):
        tracking.resolve_mode("online")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert tracking.resolve_mode("auto") == "disabled"
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    with pytest.raises(ValueError):
        tracking.resolve_mode("auto")
    monkeypatch.setenv("WANDB_MODE", "dryrun")
    assert tracking.resolve_mode("auto") == "offline"
    monkeypatch.setenv("WANDB_DISABLED", "true")
    assert tracking.resolve_mode("auto") == "disabled"
    monkeypatch.delenv("WANDB_DISABLED")
    monkeypatch.setattr("wandb.login", lambda **options: True)
    monkeypatch.delenv("WANDB_MODE")
    assert tracking.resolve_mode("auto") == tracking.resolve_mode("online") == "online"


def test_what_fails_in_wandb_ends_no_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracker = tracking.Tracker("offline", "name", tmp_path, {}, "abc")
    run, tracker._run = tracker._run, type("Dead", (), {"log": lambda *_, **__: {}["connection"]})()
    tracker.log(0, {"mAP": 0.5})
    tracker.finish(failed=False)
    assert "connection" in caplog.text and tracker.folder is None
    run.finish()


def test_a_folder_that_cannot_be_made_is_an_error() -> None:
    Path("runs").symlink_to("nowhere/at/all")
    with pytest.raises(OSError), start() as run:
        run.open()


@pytest.mark.slow
def test_a_server_that_cannot_be_reached_ends_no_training(tmp_path: Path) -> None:
    """In a process of its own, since W&B remembers who is logged in; without the package around the module, which imports torch."""
    code = (
        "from pathlib import Path; import tracking; tracking.INIT_TIMEOUT_S = 1.0\n"
        "tracker = tracking.Tracker(tracking.resolve_mode('auto'), 'name', Path('.'), {}, 'abc')\n"
        "tracker.log(0, {'mAP': 0.5}); tracker.finish(False)"
    )
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}  # not this process's service
    path = os.pathsep.join([str(ROOT), str(ROOT / "helpers/training")])
    environment = inherited | {"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9", "PYTHONPATH": path}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert list(tmp_path.glob("wandb/offline-run-*/run-abc.wandb")), result.stderr
