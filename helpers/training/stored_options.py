"""Options that a file holds: a run's config.json, or a checkpoint. Anybody may have written them, so they are parsed again."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping
from typing import Any

from models.errors import UserError


def set_defaults(parser: argparse.ArgumentParser, stored: Mapping[str, Any], where: object, names: Collection[str]) -> None:
    """Make stored values the parser's defaults, for those of `names` that are stored.

    Raises UserError, which names the option and `where` it is stored, for a value that the command line could not have given.
    """
    actions = {action.dest: action for action in parser._actions}
    for name in names:
        if name in stored:
            try:
                parser.set_defaults(**{name: _parsed(parser, actions[name], stored[name])})
            except (argparse.ArgumentError, argparse.ArgumentTypeError, ValueError, TypeError, KeyError) as error:
                raise UserError(f"{where} holds {name} = {stored[name]!r:.100}, which --{name} does not take") from error


def _parsed(parser: argparse.ArgumentParser, action: argparse.Action, value: Any) -> Any:
    """Return what the command line makes of a value; ValueError and what argparse raises where it takes none like it."""
    if value is None:
        is_name = action.type is None and action.choices is None and action.nargs is None  # scripts set --pretrained_name to None
        if action.default is not None and not is_name:
            raise ValueError
        return None
    if action.nargs == 0 or isinstance(value, bool):  # a flag
        if action.nargs != 0 or not isinstance(value, bool):
            raise ValueError
        return value
    if isinstance(action.nargs, int) or action.nargs == "+":
        if not isinstance(value, list) or len(value) not in ((action.nargs,) if action.nargs != "+" else range(1, 1000)):
            raise ValueError
        return [_one(parser, action, item) for item in value]
    return _one(parser, action, value)


def _one(parser: argparse.ArgumentParser, action: argparse.Action, value: Any) -> Any:
    if not isinstance(value, (str, int, float)) or isinstance(value, bool):
        raise ValueError
    parsed = parser._get_value(action, str(value))
    parser._check_value(action, parsed)
    return parsed
