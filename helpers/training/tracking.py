"""Optional tracking by Weights & Biases: metrics and latest weights of a run. It never prompts."""

from __future__ import annotations

import logging
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from models.errors import UserError

MODES = ("auto", "online", "offline", "disabled")
PROJECT = "efficient-audio-tagging"

INIT_TIMEOUT_S = 30.0

logger = logging.getLogger(__name__)


def resolve_mode(mode: str) -> str:
    """Return "online", "offline" or "disabled" for one of `MODES`.

    "auto" is WANDB_MODE if set, else online where an API key is stored (`wandb login`, WANDB_API_KEY), else offline; without the
    package wandb it is "disabled". "online" without a key is a UserError.
    """
    if mode == "auto":
        if find_spec("wandb") is None:
            logger.warning("W&B is not installed, so the run's own folder is its only record")
            return "disabled"
        if os.environ.get("WANDB_DISABLED", "").lower() in ("1", "true"):
            return "disabled"
        mode = os.environ.get("WANDB_MODE") or "auto"
        mode = {"dryrun": "offline", "run": "online"}.get(mode, mode)  # W&B's own older names
        if mode not in MODES:
            raise UserError(f"WANDB_MODE is {mode!r}; it must be one of {', '.join(MODES[1:])}")
    if mode not in ("auto", "online"):
        return mode
    import wandb

    if wandb.login(prompt=False, verify=False):
        return "online"
    if mode == "online":
        raise UserError("W&B online needs a login: run `wandb login`, set WANDB_API_KEY, or use --wandb offline")
    return "offline"


class Tracker:
    """One W&B run, whose files are in `<folder>/wandb`; with mode "disabled" every method does nothing.

    Tracking never ends a training: what W&B fails to do is logged.
    """

    def __init__(self, mode: str, name: str, folder: Path, config: dict[str, Any], run_id: str) -> None:
        self._run = None
        if mode == "disabled":
            return
        import wandb

        settings = wandb.Settings(silent=True, console="off", disable_git=True, disable_code=True, init_timeout=INIT_TIMEOUT_S)
        about = {"project": PROJECT, "name": name, "id": run_id, "resume": "allow", "dir": folder.absolute(), "config": config}
        for attempt in dict.fromkeys((mode, "offline")):
            try:
                self._run = wandb.init(mode=attempt, settings=settings, **about)
                logger.info("W&B run (%s): %s", attempt, Path(self._run.dir).parent)
                return
            except Exception as error:  # of many kinds, and none of them is worth a training
                logger.warning("W&B cannot start a run (%s): %s", attempt, " ".join(str(error).split()))
                wandb.teardown()  # else its service holds the run that failed

    @property
    def folder(self) -> Path | None:
        """Folder whose files belong to the W&B run, or None."""
        return None if self._run is None else Path(self._run.dir)

    def log(self, epoch: int, metrics: dict[str, float]) -> None:
        self._call("log", {"epoch": epoch, **metrics}, step=epoch)

    def finish(self, failed: bool) -> None:
        self._call("finish", exit_code=int(failed))

    def _call(self, method: str, *args: Any, **options: Any) -> None:
        """Call a method of the W&B run; after a failure tracking is off."""
        if self._run is None:
            return
        try:
            getattr(self._run, method)(*args, **options)
        except Exception as error:
            logger.warning("W&B is off from here on: %s", " ".join(str(error).split()))
            self._run = None
