"""The recordings that paths, folders and patterns on the command line name, and what is said about them on standard error."""

from __future__ import annotations

import glob
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain, groupby, islice
from threading import Thread
from typing import TYPE_CHECKING, TypeAlias

from datasets.audio_folders import Problem, describe_skipped, list_recordings
from helpers.tagger.results import Embedding, Failure, Tagging
from models.command import printable
from models.errors import UserError

if TYPE_CHECKING:
    from tqdm import tqdm

    from helpers.tagger.events import RecordingEvents

    Result: TypeAlias = Tagging | RecordingEvents | Embedding | Failure

STANDARD_INPUT = "-"


class Sources:
    """Iterates over recordings as they are found: a folder of any size is not listed in advance.

    A path that is neither a folder nor a pattern stays as it is, also where nothing is there. Each recording comes once.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        """Raises FileNotFoundError for a pattern that nothing matches."""
        self._parts: list[str | list[str]] = []  # a path, or the files that match a pattern
        for path in paths:
            if glob.has_magic(path) and not os.path.exists(path):
                matching = sorted(file for file in glob.glob(path, recursive=True) if os.path.isfile(file))
                if not matching:
                    raise FileNotFoundError(f"no file matches {path}")
                self._parts.append(matching)
            else:
                self._parts.append(path)
        self.problems: list[Problem] = []  # of folders; grows while they are listed, as does the next
        self._skipped: Counter[str] = Counter()

    def __iter__(self) -> Iterator[str]:
        if len(self._parts) == 1:  # nothing can come twice, and no names are kept
            yield from self._part(self._parts[0])
            return
        seen = set()
        for part in self._parts:
            for path in self._part(part):
                if path not in seen:
                    seen.add(path)
                    yield path

    def skipped(self) -> str:
        """Return what in the folders listed so far is no audio, in a few words; nothing if there is nothing."""
        return describe_skipped(self._skipped)

    def _part(self, part: str | list[str]) -> Iterator[str]:
        if isinstance(part, list):
            yield from part
        elif part == STANDARD_INPUT or not os.path.isdir(part):
            yield part
        else:
            is_empty = True
            for path in list_recordings(part, problems=self.problems, skipped=self._skipped):
                is_empty = False
                yield str(path)
            if is_empty:
                self.problems.append(Problem(part, "holds no recordings"))


class Inputs:
    """The recordings of a command, and what is said about them on standard error."""

    def __init__(self, paths: list[str]) -> None:
        """Raises `UserError` where nothing is found, and FileNotFoundError for a pattern without a match."""
        self.failed = 0
        self._paths = paths
        self._found = Sources(paths)
        first = list(islice(found := iter(self._found), 2))
        if not first:
            raise UserError("; ".join(filter(None, [*map(str, self._found.problems), self._found.skipped()])))
        self.first, self.is_one = first[0], len(first) == 1
        self.remaining: Iterator[str] = chain(first, found)
        self._done = 0  # by an earlier run
        self._told = 0  # of the problems

    def skip(self, is_done: Callable[[str], bool], count: int) -> None:
        """Leave out what an earlier run did, `count` recordings."""
        self.remaining = (source for source in self.remaining if not is_done(source))
        self._done = count

    @property
    def code(self) -> int:
        return 1 if self.failed or not all(problem.is_harmless for problem in self._found.problems) else 0

    def follow(self, results: Iterable[Result]) -> Iterator[tuple[str, Iterator[Result]]]:
        """Yield each recording with its results, to be taken at once, under a progress bar; report failures and warnings.

        The failure of a recording that is the only one is raised.
        """
        with self._bar() as bar:
            for source, group in groupby(results, lambda result: result.source):
                yield source, self._reported(group, bar)
                self._tell_problems(bar)
                if bar:
                    bar.update()
            self._tell_problems(bar)
            if skipped := self._found.skipped():
                _tell(bar, skipped)

    def _reported(self, results: Iterable[Result], bar: tqdm | None) -> Iterator[Result]:
        for result in results:
            if isinstance(result, Failure):
                if self.is_one:
                    raise result.error
                self.failed += 1
                _tell(bar, f"error: {' '.join(str(result.error).split())}")
            else:
                for text in result.warnings:
                    _tell(bar, f"warning: {text}")
            yield result

    def _tell_problems(self, bar: tqdm | None) -> None:
        for problem in self._found.problems[self._told :]:
            _tell(bar, f"{'warning' if problem.is_harmless else 'error'}: {problem}")
        self._told = len(self._found.problems)

    def _bar(self) -> AbstractContextManager[tqdm | None]:
        """Return a progress bar, or None where there is nothing to follow: tqdm takes 30 ms to import."""
        if self.is_one or not sys.stderr.isatty():
            return nullcontext()
        from tqdm import tqdm

        bar = tqdm(initial=self._done, unit="file", leave=False)
        Thread(target=self._count_all, args=(bar,), daemon=True).start()
        return bar

    def _count_all(self, bar: tqdm) -> None:
        """Give the bar its total, which a thread finds out while the first recordings are done."""
        bar.total = sum(1 for _ in Sources(self._paths))


def _tell(bar: tqdm | None, text: str) -> None:
    with bar.external_write_mode() if bar else nullcontext():
        print(printable(text), file=sys.stderr)
