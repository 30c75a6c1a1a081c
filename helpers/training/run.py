"""The folder of one training run: what was run, what it printed and measured, its checkpoints, and how it resumes after a kill."""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import logging
import math
import os
import platform
import subprocess
import sys
import uuid
from collections.abc import Sequence
from importlib import metadata
from itertools import chain, count
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

import torch

from datasets.csv_table import safe_cell
from helpers.training import distributed, stored_options, tracking
from models import assets, checkpoints, files, interrupts
from models.base import TaggingNetwork
from models.command import LineFormatter, printable
from models.config import is_whole
from models.errors import UserError

RUNS_DIR = Path("runs")  # in the working directory
# What --resume may change; clips and teacher must stay the same (`Run.require_same`), also in files that were moved.
MAY_CHANGE = {"resume", "cuda", "precision", "num_workers", "dataset_dir", "n_epochs", "save_minutes", "wandb", "deterministic"}
MAY_CHANGE |= {"teacher", "teacher_preds", "fname_to_index", "cache_path", "train", "patience"}
# What last.pt holds next to the model.
STATE = {"progress": dict, "micro_batches": int, "optimizer": dict, "scaler": dict, "best": (float, int), "fingerprints": dict}
WRITTEN = ("config.json", "metrics.csv", "last.pt", "best.pt")  # each of them complete at any moment
APPENDED = ("log.txt", "metrics.csv")
PACKAGES = ("efficientat", "torch", "torchaudio", "torchvision", "numpy", "h5py", "scikit-learn", "soundfile", "soxr", "wandb")
_PROJECT_DIR = Path(__file__).resolve().parents[2]

logger = logging.getLogger(__name__)


class Run:
    """Writes `config.json`, `log.txt`, `metrics.csv`, `last.pt` and `best.pt` to a folder of its own.

    A context: `fit` opens the folder once everything before training has succeeded; leaving closes it. An exception other than a
    user's mistake opens it too, in the folder of an earlier run the log alone, so that there is a log of the crash. Nothing that
    is in the folder is ever removed.

    Folder: runs/<experiment_name>, with a number if it exists, so that no run overwrites another; with `args.resume` the folder it
    names; or `folder`, where an existing run resumes. Of several ranks only the main one writes. Every file but the
    log is complete at any moment: a kill while it is being written leaves its last state.
    """

    def __init__(self, args: argparse.Namespace, folder: Path | None = None) -> None:
        self.args: dict[str, Any] = vars(args)
        self.folder = folder or args.resume
        self._is_part = folder is not None
        self._is_new = self.folder is None or not (self.folder / "config.json").exists()
        _check_name(args.experiment_name)
        if self._is_part and not self._is_new:
            _refuse_changes(self.folder, read_config(self.folder)["args"], self.args)
        self.best = -math.inf
        self.resumed: tuple[checkpoints.Checkpoint, dict[str, Any]] | None = None  # where a run resumes, until `fit` has read it
        self._fingerprints: dict[str, str] = {}
        self._tracker = tracking.Tracker("disabled", args.experiment_name, RUNS_DIR, {}, "")
        if self.folder and (self.folder / "last.pt").exists():
            self.resumed = checkpoints.load_training(self.folder / "last.pt")
            state = self.resumed[1]
            lacking = [name for name, kind in STATE.items() if not isinstance(state.get(name), kind)]
            if not lacking and not is_whole(state["progress"].get("epoch")):
                lacking = ["epoch"]
            if lacking:
                raise checkpoints.CheckpointError(f"{self.folder / 'last.pt'} lacks {', '.join(lacking)}; start a new run")
            self.best = self.resumed[1]["best"]
        self._early_records = MemoryHandler(10_000, flushLevel=logging.CRITICAL + 1, flushOnClose=False)
        self._log_file: logging.FileHandler | None = None

    def __enter__(self) -> Run:
        logging.getLogger().addHandler(self._early_records)
        return self

    def open(self) -> None:
        """Create the folder, or open that of a resumed run; what was logged since the context began goes into its log."""
        if not distributed.is_main():
            return
        mode = tracking.resolve_mode(self.args["wandb"])
        config = self._open_folder()
        logger.info("this run's folder: %s", self.folder)
        name = f"{self.folder.parent.name}-{self.folder.name}" if self._is_part else self.folder.name
        self._tracker = tracking.Tracker(mode, name, self.folder, config["args"], config["run_id"])

    def _open_folder(self) -> dict[str, Any]:
        """Write config.json, start the log, and return the former; a folder in which neither can be written is not left behind."""
        if self._is_new:
            config = _description()
            existed = self.folder is not None and self.folder.exists()
            self.folder = self.folder or _new_folder(RUNS_DIR / self.args["experiment_name"])
            self.folder.mkdir(parents=True, exist_ok=True)
        else:
            config, existed = read_config(self.folder), True
            if links := [name for name in APPENDED if (self.folder / name).is_symlink()]:
                raise UserError(f"{self.folder / links[0]} is a link, and a run appends to files of its own alone; remove the link")
            for name in WRITTEN:
                files.remove_leftovers(self.folder / name)
            self._keep_rows_before(self.resumed[1]["progress"]["epoch"] if self.resumed else 0)
        try:
            _write_config(self.folder, config, self.args)
            self._open_log()
        except OSError:
            if not existed:
                with contextlib.suppress(OSError):
                    self.folder.rmdir()  # which an empty folder alone can be
            raise
        return config

    def _open_log(self) -> None:
        self._log_file = _LogFile(self.folder / "log.txt", encoding="utf-8")
        self._log_file.setFormatter(LineFormatter("%(asctime)s %(levelname)s %(message)s"))
        logging.getLogger().removeHandler(self._early_records)
        self._early_records.setTarget(self._log_file)
        self._early_records.flush()
        logging.getLogger().addHandler(self._log_file)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: Any) -> None:
        is_crash = isinstance(error, Exception) and not isinstance(error, (UserError, OSError))
        if self._log_file is None and is_crash and distributed.is_main():
            with contextlib.suppress(OSError):  # which must not hide the error itself
                self._open_folder() if self._is_new else self._open_log()
        logging.getLogger().removeHandler(self._early_records)
        if self._log_file is None:
            return
        if error is not None:
            # To the file alone: on the terminal the error is reported by whoever catches it.
            interrupted = isinstance(error, KeyboardInterrupt)
            folder = self.folder.parent if self._is_part else self.folder
            what = f"ended by {interrupts.signal_name(error)}; --resume {folder} continues" if interrupted else "ended by"
            about = None if interrupted else (kind, error, traceback)
            record = logger.makeRecord(logger.name, logging.ERROR, __file__, 0, what, (), about)
            self._log_file.handle(record)
        self._tracker.finish(failed=error is not None)
        logging.getLogger().removeHandler(self._log_file)
        with contextlib.suppress(OSError):  # of a full disk, which ends the run elsewhere
            self._log_file.close()

    def require_same(self, what: str, fingerprint: str, option: str) -> None:
        """Remember what a training is computed from; UserError where a resumed run was computed from something else.

        `option` names the input in the message.
        """
        if self.resumed and self.resumed[1]["fingerprints"].get(what) != fingerprint:
            raise UserError(f"the {what} of {self.folder} are not those given now; give the same {option}, or start a new run")
        self._fingerprints[what] = fingerprint

    def log(self, epoch: int, metrics: dict[str, float]) -> None:
        """Append one row to metrics.csv; every epoch has the same metrics."""
        if not distributed.is_main():
            return
        path = self.folder / "metrics.csv"
        is_new = not path.exists()
        with open(path, "a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["epoch", *metrics])
            if is_new:
                writer.writeheader()
            writer.writerow({"epoch": epoch, **metrics})
        self._tracker.log(epoch, metrics)

    def save(self, model: TaggingNetwork, epoch: int | None, metrics: dict[str, float], training: dict[str, Any]) -> None:
        """Write last.pt: the model, and in `training` what the run needs to resume from here."""
        if distributed.is_main():
            training = training | {"best": self.best, "fingerprints": self._fingerprints}
            checkpoints.save(self.folder / "last.pt", model, epoch=epoch, metrics=metrics, args=self.args, training=training)

    def save_if_best(self, model: TaggingNetwork, epoch: int, metrics: dict[str, float], selection: str) -> bool:
        """Write best.pt when the metric `selection` is higher than ever before in this run, and W&B's copy of the weights.

        While the metric is undefined (NaN), the first epoch is the best. Returns whether the metric is higher; only the main rank
        knows.
        """
        if not distributed.is_main():
            return False
        is_better = metrics[selection] > self.best
        paths = [self._tracker.folder / "last.pt"] if self._tracker.folder else []
        if is_better or not (self.folder / "best.pt").exists():
            self.best = max(self.best, metrics[selection])  # which NaN does not change
            paths.append(self.folder / "best.pt")
        for path in paths:
            checkpoints.save(path, model, epoch=epoch, metrics=metrics, args=self.args)
        return is_better

    def _keep_rows_before(self, epoch: int) -> None:
        """Remove from metrics.csv the epochs that will be repeated."""
        path = self.folder / "metrics.csv"
        if not path.exists():
            return
        try:
            header, *rows = path.read_text(encoding="utf-8").splitlines(keepends=True) or [""]
            kept = [row for row in rows if row.endswith("\n") and int(row.partition(",")[0]) < epoch]
            names, *values = csv.reader([header, *kept])
            for cell in chain.from_iterable(values):
                float(cell or "nan")
            if any(safe_cell(name) != name for name in names):
                raise ValueError(f"names {printable(header):.100}")
        except (ValueError, csv.Error) as error:
            raise UserError(f"{path} is not what a run writes ({error}); remove it") from error
        if kept:
            files.write_bytes(path, (header + "".join(kept)).encode())
        else:
            path.unlink()


class _LogFile(logging.FileHandler):
    """A log that does not end or disturb a run where it cannot be written, as on a full disk."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def experiment_folder(args: argparse.Namespace) -> Path:
    """The folder of an experiment of several runs, which lie in folders of their own below it: a new one, or that of `--resume`."""
    _check_name(args.experiment_name)
    folder = args.resume
    if distributed.is_main():
        config = read_config(folder) if folder else _description()
        folder = folder or _new_folder(RUNS_DIR / args.experiment_name)
        _write_config(folder, config, vars(args))
    return distributed.gather(folder)[0]


def parse_arguments(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse a training script's command line; with `--resume FOLDER` every option starts from the value it had in that run.

    Options that would make another training of it (all but `MAY_CHANGE`) can then not be changed: UserError.
    """
    args = parser.parse_args(argv)
    if not args.resume:
        return args
    stored = read_config(args.resume)["args"]
    unknown = stored.keys() - vars(args).keys()
    if unknown:
        raise UserError(f"{args.resume} is not a run of this script: its options {', '.join(sorted(unknown))} are unknown here")
    stored_options.set_defaults(parser, stored, args.resume / "config.json", stored.keys() - {"resume"})
    args = parser.parse_args(argv)
    _refuse_changes(args.resume, stored, vars(args))
    return args


def parse_as_trained(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None, checkpoint: str, names: Sequence[str]
) -> argparse.Namespace:
    """Parse a command line again, where the options `names` have the values that a checkpoint was trained with.

    A value of the command line that differs is used with a warning.
    """
    stored = checkpoints.load(checkpoint).args
    stored_options.set_defaults(parser, stored, checkpoint, names)
    args = parser.parse_args(argv)
    given = checkpoints.to_plain_data(vars(args))
    for name in names:
        if given[name] != stored.get(name, given[name]):
            logger.warning("--%s %s, where the model was trained with %s", name, given[name], stored[name])
    return args


def _refuse_changes(folder: Path, stored: dict[str, Any], args: dict[str, Any]) -> None:
    """Raise UserError where options that would make another training differ from those a run was started with."""
    given = checkpoints.to_plain_data(args)
    changed = [name for name in stored if given.get(name) != stored[name] and name not in MAY_CHANGE]
    if changed:
        differences = ", ".join(f"--{name} {given.get(name)} (was {stored[name]})" for name in changed)
        raise UserError(f"{folder} keeps its options, but {differences}; leave them out or start a new run")


def read_config(folder: Path) -> dict[str, Any]:
    """Read the config.json of a run's folder."""
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found; --resume names the folder of an earlier run, such as {RUNS_DIR}/audioset")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config["args"], dict) or not isinstance(config["run_id"], str):
            raise TypeError("no options in it")
        return config
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is not the description of a run: {error}") from error


def _description() -> dict[str, Any]:
    """What is needed next to its options to repeat a run: command, code, packages, machine."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "run_id": uuid.uuid4().hex[:12],
        "command": sys.argv,
        "git": _git_revision(),
        "versions": versions,
        "machine": {
            "platform": platform.platform(),
            "ranks": distributed.world_size(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
    }


def _write_config(folder: Path, config: dict[str, Any], args: dict[str, Any]) -> None:
    config["args"] = checkpoints.to_plain_data(args | {"resume": None})
    files.write_bytes(folder / "config.json", (json.dumps(config, indent=2) + "\n").encode())


def _check_name(name: str) -> None:
    if not name or name.startswith(".") or Path(name).name != name:
        raise UserError(f"--experiment_name names a folder below {RUNS_DIR}/ and must be plain, not {name!r}")


def _git_revision() -> str | None:
    """Commit of the code, with "+changes" when files differ from it; None outside of a git checkout."""
    if not assets.IS_CHECKOUT:  # installed, possibly within a repository of the user's
        return None

    def git(*arguments: str) -> str:
        command = ["git", "-C", os.fspath(_PROJECT_DIR), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _new_folder(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    for folder in chain([path], (path.with_name(f"{path.name}-{number}") for number in count(2))):
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder
