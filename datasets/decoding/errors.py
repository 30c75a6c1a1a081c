"""What keeps a recording from being read, and what is missing of it."""

import logging

from models.errors import UserError


class AudioError(UserError):
    """A recording cannot be decoded or encoded; the message names it in one line."""


def remember(remark: str, warnings: list[str] | None) -> None:
    """Add a remark about a recording to a list, or log it where there is none."""
    if warnings is None:
        logging.warning(remark)
    elif remark not in warnings:
        warnings.append(remark)
