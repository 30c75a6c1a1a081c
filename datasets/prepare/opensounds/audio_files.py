"""Sounds from the audio files of a package, labelled by the rules; short ones of one kind are joined.

What is drawn at random has a fixed seed: the same files give the same samples.
"""

import dataclasses
import random
from collections.abc import Iterator

import numpy as np

from datasets.audio import AudioError, decode, resample
from datasets.prepare.opensounds.sounds import SAMPLE_RATE, LabelledSound, Reject, trim_silence
from datasets.prepare.opensounds.tables import Package, Rule, rule_for, rules

SPEECH_SECONDS, SPEECH_PAUSE = 6.0, (0.15, 0.4)
WALK_SECONDS, STEP_INTERVAL = 4.0, (0.45, 0.65)
SHORTEST_PART = 600  # samples; shorter files are not worth joining


def file_sounds(package: Package, files: dict[str, bytes], reject: Reject) -> Iterator[LabelledSound]:
    """Sounds of audio files, rule by rule; what a rule combines is joined."""
    paths: dict[Rule, list[str]] = {rule: [] for rule in rules(package.name) if rule.labels}
    for path in sorted(files):
        paths[rule_for(path, package.name)].append(path)
    for rule, group in paths.items():
        if not group:
            reject(rule.pattern, "no file matches this rule")
        if rule.combine or 0 < rule.cap < len(group):
            random.Random(rule.pattern).shuffle(group)
        parts = _decoded(rule, {path: files[path] for path in group[: rule.cap or None]}, reject)
        yield from _joined(rule, parts) if rule.combine else parts


def _decoded(rule: Rule, files: dict[str, bytes], reject: Reject) -> Iterator[LabelledSound]:
    for path, content in files.items():
        try:
            waveform, rate = decode(content)
        except AudioError as error:
            reject(path, f"unreadable: {error}")
        else:
            yield LabelledSound(path, rule.labels, resample(waveform, rate, SAMPLE_RATE), rate, "recording")


def _joined(rule: Rule, sounds: Iterator[LabelledSound]) -> Iterator[LabelledSound]:
    rng = random.Random(rule.pattern)
    join, seconds = (_speech, SPEECH_SECONDS) if rule.combine == "speech" else (_walk, WALK_SECONDS)
    for batch in _batches(sounds, int(seconds * SAMPLE_RATE), rule.per_clip):
        first = batch[0]
        source = f"{first.source} (+{len(batch) - 1})" if len(batch) > 1 else first.source
        waveform = join([sound.waveform for sound in batch], rng)
        yield LabelledSound(source, rule.labels, waveform, first.original_rate, "joined", recording=first.source)


def _batches(sounds: Iterator[LabelledSound], limit: int, per_batch: int) -> Iterator[list[LabelledSound]]:
    """Trimmed sounds in groups of at most `limit` samples and `per_batch` (if not 0) sounds."""
    batch, length = [], 0
    for sound in sounds:
        part = dataclasses.replace(sound, waveform=trim_silence(sound.waveform))
        if len(part.waveform) < SHORTEST_PART:
            continue
        if batch and (length + len(part.waveform) > limit or len(batch) == per_batch):
            yield batch
            batch, length = [], 0
        batch.append(part)
        length += len(part.waveform)
    if batch:
        yield batch


def _speech(prompts: list[np.ndarray], rng: random.Random) -> np.ndarray:
    pause = [np.zeros(int(rng.uniform(*SPEECH_PAUSE) * SAMPLE_RATE), np.float32) for _ in prompts]
    return np.concatenate([part for pair in zip(prompts, pause, strict=True) for part in pair])


def _walk(steps: list[np.ndarray], rng: random.Random) -> np.ndarray:
    walk = np.zeros(int(WALK_SECONDS * SAMPLE_RATE), np.float32)
    seconds, count = 0.05, 0
    while seconds < WALK_SECONDS - 0.3:
        rest = walk[int(seconds * SAMPLE_RATE) :]
        step = steps[count % len(steps)][: len(rest)]
        rest[: len(step)] += step
        seconds += rng.uniform(*STEP_INTERVAL)
        count += 1
    return walk
