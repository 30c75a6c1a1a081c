"""`--embed` of inference.py: embeddings of recordings, of their windows or of their frames, in a file."""

from __future__ import annotations

import argparse
import sys
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.inference.options import decoding_options, open_inputs, reading_options
from helpers.inference.sources import Inputs
from helpers.tagger.audio_tagger import HOP_SECONDS
from helpers.tagger.embedding_files import escaped, journal_bytes, journal_rows, stored_rows, stored_sources, write_embeddings
from helpers.tagger.results import Failure
from helpers.tagger.run_files import RunFile
from models.command import printable

if TYPE_CHECKING:
    from helpers.tagger.audio_tagger import AudioTagger


def embed_recordings(tagger: AudioTagger, args: argparse.Namespace, inputs: Inputs, journal: RunFile) -> int:
    """Write embeddings of recordings, of their windows or of their frames, to a file; `journal` keeps rows until all are there.

    Return the exit code.
    """
    path: Path = args.embed
    hop, size = args.hop or HOP_SECONDS, tagger.backend.embedding_size
    window, hop = (tagger.step_seconds, tagger.step_seconds) if args.timestamps else (args.window, hop)
    info = {
        "model": args.ensemble or args.model_name,
        "layers": args.layers,
        "pooling": args.pooling,
        "columns": tagger.backend.columns,
        "sample_rate": tagger.sample_rate,
        "min_seconds": tagger.min_seconds,
        "whole": tagger.whole,
        "window": window,
        "hop": hop if window else None,
        **reading_options(args),
    }
    stored = stored_sources(path, info) if args.skip_existing and path.exists() else set()
    inputs.skip(lambda source: source in journal.done or escaped(source) in stored, len(journal.done) + len(stored))
    options = {**reading_options(args), **decoding_options(args, inputs)}
    if args.timestamps:
        results = tagger.embed_frames(open_inputs(inputs), **options)
    else:
        results = tagger.embed_files(open_inputs(inputs), window=window, hop=hop, **options)
    with journal:
        for source, group in inputs.follow(results):
            rows = failed = warnings = 0
            for result in group:
                if isinstance(result, Failure):
                    failed = 1
                    continue
                journal.write(journal_bytes(result))
                rows += 1
                warnings += len(result.warnings)
            journal.finish_recording(source, rows=rows, failed=failed > 0, warnings=warnings)
        if journal.rows or not path.exists():
            existing = stored_rows(path) if stored else ()
            added = (
                row for row in journal_rows(journal, size) if escaped(row.source) not in stored
            )  # it may just have been written
            write_embeddings(path, chain(existing, added), size, info)
    journal.path.unlink()
    skipped = f", {len(stored)} were there" if stored else ""
    print(f"{printable(path)}: {journal.rows} embeddings of {size} values, {journal.summary()}{skipped}", file=sys.stderr)
    return 1 if journal.failed else inputs.code
