"""Values that are not what a program expects."""

from __future__ import annotations

import math
from typing import Any

from tests.fuzz.sandbox import INJECTED

CONTROL = "\x1b[2J\x1b]0;title\x07\u202e"
LINE = f"a\n{INJECTED} line\r{INJECTED}"
FORMULA = "=cmd|' /C calc'!A0"
NUMBERS = (0, -1, 1, 3, 2**31, 2**63, 10**30, -(2**63), 0.5, -0.0, 1e-300, 1e308, math.nan, math.inf, -math.inf)
TEXTS = (
    "",
    " ",
    "x",
    "0",
    "1e999",
    "NaN",
    "../x",
    "../../owned",
    "/etc/passwd",
    CONTROL,
    LINE,
    FORMULA,
    "\ud800",
    "\x00",
    "é" * 300,
    "9" * 5000,
)


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


def json_values() -> list[Any]:
    return [None, True, False, *NUMBERS, *TEXTS, [], {}, [[1], {"a": 1}], nested(50), {"a": {"b": None}}]
