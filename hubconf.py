"""Models without a clone: entry points for torch.hub, one for each released and bundled model, and the tagger.

model = torch.hub.load("owner/repository", "mn10_as", pretrained=True)  # or the path of a clone, with source="local"
tagger = torch.hub.load("owner/repository", "tagger", "mn10_as")

Everything is imported as `efficientat.*`, so that other packages may be called datasets, models or helpers.
"""

from __future__ import annotations

from collections.abc import Callable as _Callable
from dataclasses import replace as _replace
from pathlib import Path as _Path
from typing import Any as _Any

import efficientat as _efficientat  # torch.hub puts this folder first on the path while it loads

dependencies = ["torch", "numpy", "tqdm"]  # the tagger also needs soundfile and soxr

_folder = _Path(_efficientat.__file__).resolve().parent
if _folder.parent != _Path(__file__).resolve().parent:
    raise ImportError(f"efficientat is imported already, from {_folder}: use that, or load from torch.hub in a fresh process")

from efficientat.models.registry import BUNDLED as _BUNDLED  # noqa: E402
from efficientat.models.registry import PRETRAINED as _PRETRAINED  # noqa: E402


def _entry(name: str) -> _Callable[..., _Any]:
    def entry(pretrained: bool = True, num_classes: int | None = None) -> _Any:
        from efficientat.models.checkpoints import architecture
        from efficientat.models.errors import UserError
        from efficientat.models.MobileNetV3 import get_model

        if not isinstance(pretrained, bool):
            raise UserError(f"pretrained must be True or False, not {pretrained!r:.100}")
        if pretrained:
            return get_model(num_classes, name).eval()
        arch, mel = architecture(name)
        return (arch if num_classes is None else _replace(arch, num_classes=num_classes)).build(mel).eval()

    entry.__name__ = entry.__qualname__ = name
    entry.__doc__ = f"""{name}: log-mel spectrograms (B, 1, n_mels, frames) -> logits (B, num_classes), embedding (B, C).

    In evaluation mode; `pretrained=False` gives random weights. `num_classes` None is that of the checkpoint; with another
    one the last layer (head "mlp") or the head is re-initialised. The matching front end is
    `efficientat.models.preprocess.AugmentMelSTFT.from_config(model.mel)`.
    """
    return entry


def tagger(model: str | list[str] = "mn10_as", **options: _Any) -> _Any:
    """An `AudioTagger`: recordings of any sample rate and length -> labelled scores, timelines and embeddings.

    `options` are those of `AudioTagger`: device, backend, batch_size, min_seconds, whole, layers, pooling.
    """
    return _efficientat.AudioTagger(model, **options)


globals().update({_name: _entry(_name) for _name in (*_PRETRAINED, *_BUNDLED)})
