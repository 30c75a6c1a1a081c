"""The console scripts: `efficientat._commands.NAME` runs the script NAME.py as its command line does."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module

from efficientat.models.command import run


def __getattr__(name: str) -> Callable[[], None]:
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return partial(run, import_module(f"efficientat.{name}").main, fast_exit=name == "inference")
