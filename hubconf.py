"""Models without a clone: entry points for torch.hub, one for each released and bundled model, and the tagger.

model = torch.hub.load("owner/repository", "mn10_as", pretrained=True)  # or the path of a clone, with source="local"
tagger = torch.hub.load("owner/repository", "tagger", "mn10_as")
"""

from __future__ import annotations

import sys as _sys
from collections.abc import Callable as _Callable
from dataclasses import replace as _replace
from pathlib import Path as _Path
from typing import Any as _Any

dependencies = ["torch", "numpy", "tqdm"]  # the tagger also needs soundfile and soxr

_HERE = _Path(__file__).resolve().parent


def _refuse_namesakes() -> None:
    """Raise `ImportError` where another package has the name of one of ours, such as Hugging Face's datasets."""
    for name in ("models", "datasets", "helpers"):
        module = _sys.modules.get(name)
        if module is not None and _HERE not in [_Path(folder).resolve().parent for folder in getattr(module, "__path__", [])]:
            raise ImportError(
                f"another package called {name!r} is imported already ({module!r}); load from torch.hub first, in a fresh process"
            )


def _entry(name: str) -> _Callable[..., _Any]:
    def entry(pretrained: bool = True, num_classes: int = 527) -> _Any:
        from models.checkpoints import architecture
        from models.MobileNetV3 import MobileNetV3, get_model

        if pretrained:
            return get_model(num_classes, name).eval()
        arch, mel = architecture(name)
        return MobileNetV3(_replace(arch, num_classes=num_classes), mel).eval()

    entry.__name__ = entry.__qualname__ = name
    entry.__doc__ = f"""{name}: log-mel spectrograms (B, 1, n_mels, frames) -> logits (B, num_classes), embedding (B, C).

    In evaluation mode, with random weights if not `pretrained`. `models.preprocess.AugmentMelSTFT.from_config(model.mel)` is the
    front end that it expects. Another `num_classes` gives the last layer a fresh start.
    """
    return entry


def tagger(model: str | list[str] = "mn10_as", **options: _Any) -> _Any:
    """An `AudioTagger`: recordings of any rate and length -> labelled scores, time lines and embeddings.

    `options` are those of `helpers.tagger.audio_tagger.AudioTagger`: device, backend, batch_size, min_seconds, layers, pooling.
    """
    from helpers.tagger.audio_tagger import AudioTagger

    return AudioTagger(model, **options)


_refuse_namesakes()

from models.registry import BUNDLED as _BUNDLED  # noqa: E402
from models.registry import PRETRAINED as _PRETRAINED  # noqa: E402

globals().update({_name: _entry(_name) for _name in (*_PRETRAINED, *_BUNDLED)})
