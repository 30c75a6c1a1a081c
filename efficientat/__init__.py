"""Efficient pre-trained CNNs for audio tagging: the project as one package.

Installed with pip, it holds `efficientat.models`, `efficientat.datasets`, `efficientat.helpers` and the scripts. In a checkout the
same names are the folders next to this one, imported with their own imports rewritten, see `efficientat._imports`.
"""

from __future__ import annotations

from importlib import import_module as _import_module
from pathlib import Path as _Path
from typing import TYPE_CHECKING
from typing import Any as _Any

if TYPE_CHECKING:
    from efficientat.helpers.tagger.audio_tagger import AudioTagger
    from efficientat.models.ensemble import get_ensemble_model
    from efficientat.models.MobileNetV3 import get_model
    from efficientat.models.registry import list_models

__version__ = "0.1.0"
__all__ = ["AudioTagger", "get_ensemble_model", "get_model", "list_models"]

_HOMES = {
    "AudioTagger": "helpers.tagger.audio_tagger",
    "get_ensemble_model": "models.ensemble",
    "get_model": "models.MobileNetV3",
    "list_models": "models.registry",
}

if not (_Path(__file__).parent / "models").is_dir():
    from efficientat import _imports

    _imports.install(_Path(__file__).resolve().parent.parent)


def __getattr__(name: str) -> _Any:
    """Import what `__all__` names when it is first used: the package itself imports no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
