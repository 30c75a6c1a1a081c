"""Many probes on stored embeddings: several at a time, and none of them twice."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Hashable, Mapping
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from itertools import islice, pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from tqdm import tqdm

from helpers.probing.embedding_cache import StoredClips
from helpers.probing.probe import Protocol, probe
from helpers.probing.scoring import EVENT_METRICS, EventScoring, frame_targets
from helpers.probing.tasks import ProbeTask

EVENT_CHECK_EVERY = 10  # epochs, the kit's for DCASE 2016 task 2

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class ProbeRequest:
    """What a probe is trained on, and how."""

    clips: list[StoredClips]  # of the task's data sets
    layers: list[str]
    task: ProbeTask
    seed: int
    protocol: Protocol

    def fingerprint(self) -> str:
        """Return a hash of all that the result depends on."""
        embeddings = [stored.info | {"layers": self.layers} for stored in self.clips]
        content = json.dumps([embeddings, self.task.fingerprint, self.seed, asdict(self.protocol)])
        return hashlib.sha256(content.encode()).hexdigest()


def train_probe(request: ProbeRequest) -> dict[str, Any]:
    """Train a probe on one thread; return its score, those of the folds, and the configuration that was best."""
    torch.set_num_threads(1)
    task, protocol = request.task, request.protocol
    embeddings = np.concatenate([stored.read(request.layers) for stored in request.clips])
    targets, splits, scoring = task.targets, task.splits, None
    if task.events:
        targets, splits, scoring = _timestamps(task, [stored.times() for stored in request.clips])
        protocol = replace(protocol, check_every=EVENT_CHECK_EVERY)
    result = probe(
        embeddings,
        targets,
        splits,
        single_label=task.single_label,
        metric=task.metric,
        folds=task.folds,
        scoring=scoring,
        seed=request.seed,
        protocol=protocol,
    )
    folds = [fold.score for fold in result.folds]
    return {"score": result.score, "folds": folds, "configuration": asdict(result.configuration)}


def _timestamps(task: ProbeTask, times: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray, EventScoring]:
    """Return targets, splits and scoring of all timestamps of a task, from the clips and times of each of its data sets."""
    events = task.events
    firsts = np.cumsum([0, *(len(clips) for clips in task.clips[:-1])])
    numbers = np.concatenate([first + clip for first, (clip, _) in zip(firsts, times, strict=True)])
    moments = np.concatenate([of_set for _, of_set in times])
    bounds = np.searchsorted(numbers, np.arange(len(events.truth) + 1))
    targets = [
        frame_targets(truth, moments[first:last], events.num_classes)
        for truth, (first, last) in zip(events.truth, pairwise(bounds), strict=True)
    ]
    grid = {"median_filter_ms": events.median_filter_ms, "min_duration_ms": events.min_duration_ms}
    scoring = EventScoring(numbers, moments, events.truth, collar=EVENT_METRICS[task.metric], **grid)
    return np.concatenate(targets), task.splits[numbers], scoring


def run_probes(requests: Mapping[Key, ProbeRequest], path: Path, processes: int) -> dict[Key, dict[str, Any]]:
    """Return the result of `train_probe` for each request.

    Results are appended to a file of JSON lines. Those already in it are not computed again, so a restart resumes.
    """
    known = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):  # the last line of a killed run
                entry = json.loads(line)
                known[entry["request"]] = entry["result"]
    fingerprints = {key: request.fingerprint() for key, request in requests.items()}
    missing = [key for key in requests if fingerprints[key] not in known]
    bar = tqdm(total=len(requests), initial=len(requests) - len(missing), desc="probes", unit="probe", disable=None)
    with bar, open(path, "a", encoding="utf-8") as file, ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        waiting = iter(missing)
        # No more at a time than there are processes, so that Ctrl-C ends soon.
        running = {pool.submit(train_probe, requests[key]): key for key in islice(waiting, processes)}
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                fingerprint = fingerprints[running.pop(future)]
                try:
                    known[fingerprint] = future.result()
                except BrokenProcessPool as error:
                    raise OSError(
                        "a process that trained a probe was killed, perhaps for lack of memory; use fewer jobs"
                    ) from error
                # A new line, also after a torn one.
                file.write("\n" + json.dumps({"request": fingerprint, "result": known[fingerprint]}))
                file.flush()
                bar.update()
                running |= {pool.submit(train_probe, requests[key]): key for key in islice(waiting, 1)}
    return {key: known[fingerprints[key]] for key in requests}
