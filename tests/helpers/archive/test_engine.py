"""The engine without Ray: the steps of its workers, called in this process; then once with Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from helpers.archive import decode, engine
from helpers.archive.attempts import ATTEMPTS, Attempts
from helpers.archive.decode import Reading, TaskDecoder
from helpers.archive.engine import TaskKey, run
from helpers.archive.inputs import Entry, list_inputs, open_entry
from helpers.archive.output import Output
from helpers.archive.parcels import Address, Counts, Parcel, cut_parts
from helpers.archive.parquet_files import read_batches
from helpers.archive.plan import Plan
from helpers.archive.pool import DecodeStep, NetworkStep, WriteStep, to_row, unpacked
from models.errors import UserError

RATE = 8000
LENGTHS = (1.0, 0.5, 3.0, 1.0, 0.25)  # seconds


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Noise; of the last file, only a text."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number, seconds in enumerate(LENGTHS):
        soundfile.write(folder / f"{number}.wav", rng.uniform(-0.5, 0.5, round(seconds * RATE)), RATE, subtype="FLOAT")
    (folder / "broken.wav").write_text("this is no sound")
    return folder


def loudness(parcel: Parcel, samples: np.ndarray) -> pa.Table:
    rows = [
        {"source": piece.source, "start": piece.start, "end": piece.end, "error": piece.error, "power": float(np.sum(own**2))}
        for piece, own in zip(parcel.pieces, parcel.waveforms(samples), strict=True)
    ]
    kinds = {"source": pa.string(), "start": pa.float64(), "end": pa.float64(), "error": pa.string(), "power": pa.float64()}
    return pa.Table.from_pylist(rows, pa.schema(kinds))


@dataclass
class Loudness:
    """A work whose network is a sum."""

    reading: Reading = Reading(RATE)
    compute: Callable[[Parcel, np.ndarray], pa.Table] = loudness

    def decoder(self) -> TaskDecoder:
        return TaskDecoder(self.reading)

    def network(self, threads: int) -> Callable[[Parcel, np.ndarray], pa.Table]:
        return self.compute


@dataclass
class LocalPool:
    """What Ray's workers do, one after the other."""

    attempts: Attempts = field(default_factory=Attempts)
    decoders: int = 1

    def written(self, work: Any, plan: Plan, output: Output, tasks: Sequence[TaskKey]) -> Iterator[engine.Written]:
        decoder, network = DecodeStep(work, plan, output, self.attempts), NetworkStep(work, 1, self.attempts)
        for task in tasks:
            for decoded in decoder(to_row(task)):
                for computed in network(decoded):
                    for row in WriteStep(output)(computed):
                        yield from (written for written, _ in unpacked(row))

    def compact(self, output: Output, shard: int) -> None:
        output.compact(shard)

    def finish(self) -> None:
        pass


def planned(folder: Path, output: Path, shard: int = 4, task: int = 2) -> tuple[Plan, Output]:
    plan = Plan(output)
    plan.extend(list_inputs(str(folder)), shard, task)
    return plan, Output(output)


def rows(output: Output) -> list[dict[str, Any]]:
    return [row for batch in output.rows() for row in batch.to_pylist()]


def compute(folder: Path, output: Path, work: Loudness | None = None, **sizes: int) -> tuple[list[dict[str, Any]], Counts]:
    plan, out = planned(folder, output, **sizes)
    counts = run(work or Loudness(), plan, out, LocalPool(), lambda counts: None)
    return rows(out), counts


def test_each_recording_becomes_one_row_in_the_order_of_the_plan(recordings: Path, tmp_path: Path) -> None:
    found, counts = compute(recordings, tmp_path / "out")
    assert [row["source"] for row in found] == ["0.wav", "1.wav", "2.wav", "3.wav", "4.wav", "broken.wav"]
    assert [row["end"] for row in found] == [*LENGTHS, None]
    assert "broken.wav" in found[-1]["error"]
    for row in found[:-1]:
        assert row["power"] == pytest.approx(np.sum(soundfile.read(recordings / row["source"])[0] ** 2), rel=1e-5)
    assert (counts.recordings, counts.seconds, dict(counts.failures)) == (6, sum(LENGTHS), {"audio": 1})
    assert counts.network_seconds > 0 and counts.staged == 0


def test_small_parcels_and_parts_of_long_recordings_change_no_sum(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = compute(recordings, tmp_path / "whole")
    monkeypatch.setattr(decode, "PARCEL_SECONDS", 1.2)
    parts = Loudness(Reading(RATE, part=RATE, part_hop=RATE, shortest_part=RATE // 2))
    cut, counts = compute(recordings, tmp_path / "cut", parts, task=64)
    assert [(row["start"], row["end"]) for row in cut if row["source"] == "2.wav"] == [(0, 1), (1, 2), (2, 3)]
    for row in whole:
        powers = [part["power"] for part in cut if part["source"] == row["source"]]
        assert sum(powers) == pytest.approx(row["power"])
    assert counts.recordings == 6


def test_a_finished_run_computes_nothing_again(recordings: Path, tmp_path: Path) -> None:
    compute(recordings, tmp_path / "out")

    def fail(parcel: Parcel, samples: np.ndarray) -> pa.Table:
        raise AssertionError("computed again")

    plan, output = Plan(tmp_path / "out"), Output(tmp_path / "out")
    staged = []
    assert run(Loudness(compute=fail), plan, output, LocalPool(), staged.append).recordings == 0
    assert sum(counts.staged for counts in staged) == 6


@pytest.mark.parametrize("parcels_before", range(7))
def test_a_run_that_ended_anywhere_is_resumed_from_there(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parcels_before: int
) -> None:
    expected, _ = compute(recordings, tmp_path / "expected")
    monkeypatch.setattr(decode, "PARCEL_SECONDS", 1.2)
    computed: list[str] = []

    def interrupted(parcel: Parcel, samples: np.ndarray) -> pa.Table:
        if len(computed) == parcels_before:
            raise KeyboardInterrupt
        computed.append(parcel.pieces[0].source)
        return loudness(parcel, samples)

    plan, output = planned(recordings, tmp_path / "out", task=3)
    if parcels_before < 5:
        with pytest.raises(KeyboardInterrupt):
            run(Loudness(compute=interrupted), plan, output, LocalPool(), lambda counts: None)
    else:
        parcels_before = 99
        run(Loudness(compute=interrupted), plan, output, LocalPool(), lambda counts: None)

    def noted(parcel: Parcel, samples: np.ndarray) -> pa.Table:
        assert not set(computed) & {piece.source for piece in parcel.pieces}
        return loudness(parcel, samples)

    run(Loudness(compute=noted), plan, output, LocalPool(), lambda counts: None)
    assert rows(output) == expected


def test_a_run_that_ended_before_a_shard_became_a_file_makes_it(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, output = planned(recordings, tmp_path / "out")
    with monkeypatch.context() as context, pytest.raises(UserError, match="not complete"):
        context.setattr(LocalPool, "compact", lambda *_: None)
        run(Loudness(), plan, output, LocalPool(), lambda counts: None)
    assert rows(output) == []
    assert run(Loudness(), plan, output, LocalPool(), lambda counts: None).recordings == 0
    assert len(rows(output)) == 6


def test_staged_parcels_of_other_recordings_are_computed_again(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a decoder hung once: what was cut into parcels then is cut in another way now."""
    expected, _ = compute(recordings, tmp_path / "expected")
    plan, output = planned(recordings, tmp_path / "out", task=4)
    monkeypatch.setattr(decode, "PARCEL_SECONDS", 1.2)
    with monkeypatch.context() as context, pytest.raises(UserError, match="not complete"):
        context.setattr(Output, "compact", lambda *_: None)
        run(Loudness(), plan, output, LocalPool(), lambda counts: None)
    last = max(output.parcels_of(0), key=lambda parcel: parcel.number)
    output.folder.remove(last.name)
    monkeypatch.setattr(decode, "PARCEL_SECONDS", 2.0)
    run(Loudness(), plan, output, LocalPool(), lambda counts: None)
    assert rows(output) == expected


def test_a_parcel_that_is_staged_both_as_the_last_one_and_not_is_computed_again(recordings: Path, tmp_path: Path) -> None:
    expected, _ = compute(recordings, tmp_path / "expected")
    plan, output = planned(recordings, tmp_path / "out")
    with pytest.MonkeyPatch.context() as context, pytest.raises(UserError, match="not complete"):
        context.setattr(Output, "compact", lambda *_: None)
        run(Loudness(), plan, output, LocalPool(), lambda counts: None)
    for parcel in output.parcels_of(0):
        output.write_parcel(Address(0, parcel.task, 0, False), pa.Table.from_batches(read_batches(output.folder.path(parcel.name))))
    parcels_of = Output.parcels_of
    with pytest.MonkeyPatch.context() as context:  # in the worst order
        context.setattr(Output, "parcels_of", lambda *given: sorted(parcels_of(*given), key=lambda parcel: parcel.is_last))
        run(Loudness(), plan, output, LocalPool(), lambda counts: None)
    assert rows(output) == expected


def test_a_task_whose_parcels_do_not_fit_together_is_done_again(recordings: Path, tmp_path: Path) -> None:
    """As where a worker is killed, and its task is decoded again in another way."""
    expected, _ = compute(recordings, tmp_path / "expected")

    class Shifted(LocalPool):
        times = 0

        def written(self, *given: Any) -> Iterator[engine.Written]:
            self.times += 1
            for written in super().written(*given):
                is_wrong = self.times == 1 and written.address.task == 1
                yield engine.Written(written.address, (1, 0), written.next_position, written.counts) if is_wrong else written

    plan, output = planned(recordings, tmp_path / "out")
    shifted = Shifted()
    run(Loudness(), plan, output, shifted, lambda counts: None)
    assert rows(output) == expected
    assert shifted.times == 2


def test_rows_that_are_lost_on_the_way_are_an_error(recordings: Path, tmp_path: Path) -> None:
    class Losing(LocalPool):
        def written(self, *args: Any) -> Iterator[engine.Written]:
            first, *others = super().written(*args)
            yield from others

    plan, output = planned(recordings, tmp_path / "out")
    with pytest.raises(UserError, match="not complete"):
        run(Loudness(), plan, output, Losing(), lambda counts: None)


def test_a_parcel_that_ends_its_worker_is_given_up(recordings: Path, tmp_path: Path) -> None:
    plan, output = planned(recordings, tmp_path / "out")
    local = LocalPool()
    for _ in range(ATTEMPTS):
        local.attempts.begin(Address(0, 1, 0, True))
    counts = run(Loudness(), plan, output, local, lambda counts: None)
    assert [row["source"] for row in rows(output) if row["error"]] == ["2.wav", "3.wav", "broken.wav"]
    assert counts.failures == {"worker": 2, "audio": 1}


def test_a_recording_that_ends_the_worker_that_decodes_is_given_up(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that crashes a decoder in the worker itself; KeyboardInterrupt stands for the end of a process."""
    expected, _ = compute(recordings, tmp_path / "expected")

    def open_some(entry: Entry) -> str | bytes:
        if entry.source in ("1.wav", "3.wav"):
            raise KeyboardInterrupt
        return open_entry(entry)

    monkeypatch.setattr(decode, "open_entry", open_some)
    plan, output = planned(recordings, tmp_path / "out", task=4)
    local, ends = LocalPool(), 0
    while not output.is_complete(0):
        try:
            run(Loudness(), plan, output, local, lambda counts: None)
        except KeyboardInterrupt:
            ends += 1
            assert ends < 5 * ATTEMPTS
    found = rows(output)
    assert [row["source"] for row in found if row["error"]] == ["1.wav", "3.wav", "broken.wav"]
    assert [row for row in found if not row["error"]] == [row for row in expected if row["source"] in ("0.wav", "2.wav", "4.wav")]
    assert ends > ATTEMPTS


def test_a_recording_that_cannot_be_computed_costs_that_recording(recordings: Path, tmp_path: Path) -> None:
    def compute_some(parcel: Parcel, samples: np.ndarray) -> pa.Table:
        if any(piece.source == "1.wav" and piece.error is None for piece in parcel.pieces):
            raise UserError("it is no number")
        return loudness(parcel, samples)

    found, counts = compute(recordings, tmp_path / "out", Loudness(compute=compute_some))
    assert [row["source"] for row in found] == ["0.wav", "1.wav", "2.wav", "3.wav", "4.wav", "broken.wav"]
    assert [row["error"] is None for row in found] == [True, False, True, True, True, False]
    assert found[1]["error"] == "1.wav: it is no number"
    assert counts.failures == {"network": 1, "audio": 1}


def test_errors_of_the_machine_end_the_run(recordings: Path, tmp_path: Path) -> None:
    def full(parcel: Parcel, samples: np.ndarray) -> pa.Table:
        raise OSError(28, "No space left on device")

    plan, output = planned(recordings, tmp_path / "out")
    with pytest.raises(OSError, match="No space"):
        run(Loudness(compute=full), plan, output, LocalPool(), lambda counts: None)


def test_the_kind_of_a_failure(recordings: Path) -> None:
    entries = list(list_inputs(str(recordings)))
    (recordings / "0.wav").unlink()
    (recordings / "1.wav").write_bytes(b"")
    [(parcel, samples)] = TaskDecoder(Reading(RATE))(0, 0, entries)
    kinds = {piece.source: piece.error_kind for piece in parcel.pieces}
    assert kinds == {"0.wav": "missing", "1.wav": "audio", "2.wav": None, "3.wav": None, "4.wav": None, "broken.wav": "audio"}
    assert [len(own) for own in parcel.waveforms(samples)] == [0, 0, 24000, 8000, 2000, 0]


def test_each_channel_is_a_piece(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "stereo.wav", np.tile([[0.25, -0.5]], (RATE, 1)), RATE, subtype="FLOAT")
    [(parcel, samples)] = TaskDecoder(Reading(RATE, per_channel=True))(0, 0, list(list_inputs(str(tmp_path))))
    assert [(piece.channel, piece.position) for piece in parcel.pieces] == [(1, (0, 0)), (2, (0, 1))]
    assert [own.mean() for own in parcel.waveforms(samples)] == pytest.approx([0.25, -0.5], abs=1e-3)


@pytest.mark.parametrize("size", [1, 99, 100, 149, 150, 151, 249, 250, 1000])
@pytest.mark.parametrize(("length", "hop", "shortest"), [(100, 100, 11), (130, 100, 50), (100, 100, 100)])
def test_parts_cover_a_recording(size: int, length: int, hop: int, shortest: int) -> None:
    sound = np.arange(size, dtype=np.float32)
    parts = list(cut_parts(np.array_split(sound, -(-size // 7)), length, hop, shortest))
    assert [is_last for *_, is_last in parts] == [False] * (len(parts) - 1) + [True]
    for number, (first, samples, _) in enumerate(parts):
        assert first == number * hop
        assert np.array_equal(samples, sound[first : first + len(samples)])
    assert all(len(samples) == length for _, samples, is_last in parts[:-1])
    first, samples, _ = parts[-1]
    assert first + len(samples) == size
    assert len(parts) == 1 or len(samples) >= shortest
