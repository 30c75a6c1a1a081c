"""What archive.py makes of its options: how recordings are read, by which models, and what rows hold."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.archive.decode import Reading
from helpers.archive.network import Tagging, load_taggers
from helpers.archive.parcels import PART_SECONDS
from helpers.archive.schema import Settings, schema
from helpers.inference.options import event_options
from helpers.tagger.audio_tagger import HOP_SECONDS, WINDOW_SECONDS
from helpers.tagger.reading import ReadOptions
from helpers.tagger.recording_events import EventFinder
from helpers.tagger.thresholds import read_thresholds
from helpers.tagger.windows import to_samples
from models import assets
from models.errors import UserError

if TYPE_CHECKING:
    from helpers.tagger.audio_tagger import AudioTagger

# What rows depend on: an archive is resumed with the same.
STORED = (
    "model_name", "backend", "min_seconds", "events", "embed", "layers", "pooling", "top_k", "window", "hop", "threshold",
    "off_threshold", "median", "channel", "per_channel", "strict",
)  # fmt: skip


def tagging(args: argparse.Namespace, version: str) -> tuple[Tagging, dict[str, Any]]:
    """Return the work that options ask for, and the manifest of its archive. `UserError` for what does not go together."""
    if isinstance(args.threshold, str):  # workers need no file, and an archive is resumed with the same values
        args = argparse.Namespace(**vars(args) | {"threshold": read_thresholds(Path(args.threshold))})
    names = tuple(os.path.abspath(name) if os.path.isfile(name) else name for name in args.model_name)
    models = {"cuda": args.gpus_per_network > 0, "backend": args.backend, "batch_size": args.batch_size}
    models |= {"min_seconds": args.min_seconds, "layers": args.layers, "pooling": args.pooling}
    taggers = load_taggers(names, **models | {"cuda": False})  # a driver needs no GPU
    for tagger in taggers if not args.embed else ():
        tagger.classes(None)  # raises for a model without classes
    labels = [tagger.labels for tagger in taggers]
    settings = Settings(
        models=names,
        events=args.events,
        embed=args.embed,
        top_k=args.top_k,
        window=None if args.events else args.window,
        hop=(args.hop or HOP_SECONDS) if args.window and not args.events else None,
        per_channel=args.per_channel,
    )
    events = event_options(args) | {"window": args.window, "hop": args.hop} if args.events else {}
    windows = [EventFinder(tagger, **events).windows[0] for tagger in taggers] if args.events else []  # raises what is wrong
    hashes = [model_hash(tagger, name, args.backend) for tagger, name in zip(taggers, names, strict=True)]
    about = {"model": "+".join(settings.names), "model_hash": "+".join(hashes), "version": version}
    sizes = [tagger.backend.embedding_size for tagger in taggers]
    rows = schema(settings, labels, sizes)
    work = Tagging(settings, reading(args, taggers, settings, max(windows, default=0.0)), rows, models, events, about)
    described = [
        {"name": title, "given": given, "sha256": sha256, "labels": list(own), "columns": tagger.backend.columns}
        for title, given, sha256, own, tagger in zip(settings.names, args.model_name, hashes, labels, taggers, strict=True)
    ]
    stored = {name: getattr(args, name) for name in STORED}
    manifest = {"version": version, "input": args.input, "settings": {**vars(settings), **stored}, "models": described}
    return work, json.loads(json.dumps(manifest))


def reading(args: argparse.Namespace, taggers: Sequence[AudioTagger], settings: Settings, event_window: float) -> Reading:
    """Return how recordings are read: into parts of such lengths that results are those of the whole recording."""
    rates = {tagger.sample_rate for tagger in taggers}
    if len(rates) > 1:
        raise UserError(f"the models compute at {' and '.join(map(str, sorted(rates)))} Hz; make an archive for each rate")
    if args.channel is not None and args.per_channel:
        raise UserError(f"--per_channel reads all channels, so it does not go with --channel {args.channel}; leave one out")
    [rate] = rates
    if settings.window is not None:  # the next part begins with the window behind the last one of this part
        window, hop = to_samples(settings.window, settings.hop, rate)
        count = max(1, round(PART_SECONDS * rate) // hop)
        lengths = ((count - 1) * hop + window, count * hop, window)
    elif settings.events:
        part = round(PART_SECONDS * rate)
        lengths = (part, part, round(event_window * rate))
    else:  # windows side by side
        window = round(max(WINDOW_SECONDS, *(tagger.min_seconds for tagger in taggers)) * rate)
        part = window * max(1, round(PART_SECONDS * rate) // window)
        lengths = (part, part, window)
    options = ReadOptions(channel=args.channel, strict=args.strict)
    return Reading(rate, options, args.per_channel, args.time_limit or None, *lengths)


def model_hash(tagger: AudioTagger, name: str, backend: str) -> str:
    """Return the SHA-256 of a model's file."""
    return assets.content_hash(Path(tagger.backend.path) if backend == "onnx" else assets.checkpoint_path(name))


def check_manifest(found: dict[str, Any], wanted: dict[str, Any], address: str) -> None:
    """Raise `UserError` where an archive was made with other options or models, or a manifest is that of something else."""
    if not isinstance(found.get("settings"), dict) or not isinstance(found.get("models"), list):
        raise UserError(f"the manifest.json in {address} is not that of an archive; give another --output")
    for name, value in wanted["settings"].items():
        if (before := found["settings"].get(name)) != value:
            raise UserError(
                f"{address} was made with {name} {before!s:.100}, not {value!s:.100}; give the same options, or another --output"
            )
    for before, model in zip(found["models"], wanted["models"], strict=True):
        if before["sha256"] != model["sha256"]:
            raise UserError(
                f"{address} was made with another {model['given']}: its SHA-256 was {before['sha256'][:16]}... and is "
                f"{model['sha256'][:16]}...; give the same model, or another --output"
            )
