from __future__ import annotations

import argparse

import pytest

from helpers import cli
from helpers.training import stored_options
from models.errors import UserError


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=cli.positive_int, default=3)
    parser.add_argument("--rate", type=cli.positive_float)
    parser.add_argument("--name", default="x")
    parser.add_argument("--kind", choices=("a", "b"), default="a")
    parser.add_argument("--flag", action="store_true")
    parser.add_argument("--switch", action="store_const", const=True)
    parser.add_argument("--choice", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--pair", nargs=2, type=float)
    return parser


@pytest.mark.parametrize(
    "stored",
    [
        {"count": 5, "rate": None, "name": "y", "kind": "b", "flag": True, "pair": [1.0, 2.5], "switch": True, "choice": False},
        {"count": 5, "rate": 0.1, "name": None, "kind": "b", "flag": False, "pair": None, "switch": None, "choice": True},
    ],
)
def test_stored_options_are_as_those_of_the_command_line(stored: dict) -> None:
    changed = parser()
    stored_options.set_defaults(changed, stored, "config.json", stored.keys())
    assert vars(changed.parse_args([])) == stored
    assert changed.parse_args(["--count", "7"]).count == 7


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("count", value) for value in (-1, 0.5, 1e30, "x", None, True, [1], {})),
        *(("rate", value) for value in (float("nan"), float("inf"), "0", [])),
        *(("name", value) for value in ([], {}, False)),
        *(("kind", value) for value in ("c", None, 3)),
        *(("flag", value) for value in ("yes", 1, None)),
        *(("switch", value) for value in ("yes", 1)),
        *(("pair", value) for value in ([1.0], [1.0, 2.0, 3.0], "12", 1.0, [1.0, "x"], [1.0, None])),
    ],
)
def test_other_values_are_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(UserError, match=f"config.json holds {name} = "):
        stored_options.set_defaults(parser(), {name: value}, "config.json", [name])
