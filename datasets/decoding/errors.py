"""What keeps a recording from being read, and what is missing of it."""

import logging
from dataclasses import dataclass

from models.errors import UserError


class AudioError(UserError):
    """A recording cannot be decoded or encoded; the message names it in one line."""


class CrashError(AudioError):
    """A recording ended the process that decoded it."""


class HangError(AudioError):
    """A recording kept the process that decoded it busy, without any sound, for longer than it may."""


@dataclass(frozen=True)
class Report:
    """Where remarks about a recording go: into a list, or into the log where there is none; `strict` makes them errors."""

    name: str
    strict: bool = False
    warnings: list[str] | None = None

    def __call__(self, text: str) -> None:
        line = f"{self.name} {text}"
        if self.strict:
            raise AudioError(line)
        if self.warnings is None:
            logging.warning(line)
        elif line not in self.warnings:
            self.warnings.append(line)
