"""datasets.full_length: batches of whole clips in which each clip gets the scores it gets alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from datasets import audio
from datasets.full_length import FullLengthClips
from datasets.hdf5_mp3 import Mp3Dataset, Mp3Writer
from datasets.recordings import Recordings
from models import checkpoints
from models.waveform import WaveformModel

BUNDLED = sorted((Path(__file__).resolve().parents[2] / "resources" / "recordings").glob("*.ogg"))
SECONDS = (0.3, 1.0, 1.004, 0.505, 1.0, 0.3, 1.0, 0.001)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Pieces of a real recording, as mp3s in HDF5 and as stereo wavs at 44.1 kHz."""
    folder = tmp_path_factory.mktemp("whole")
    sound = audio.load(BUNDLED[0], 32000)
    paths = []
    with Mp3Writer(folder / "a.hdf", 3) as writer:
        for i, seconds in enumerate(SECONDS):
            piece = sound[1000 * i : 1000 * i + round(seconds * 32000)]
            writer.add(f"{i}.mp3", audio.encode_mp3(piece, 32000), np.eye(3)[i % 3])
            paths.append(folder / f"{i}.wav")
            soundfile.write(paths[-1], np.stack([audio.resample(piece, 32000, 44100)] * 2, axis=1), 44100)
    return folder / "a.hdf", paths


@pytest.fixture(params=["mp3s", "wavs"])
def clips(files, request):
    if request.param == "mp3s":
        return Mp3Dataset(files[0], num_classes=3, clip_seconds=None)
    return Recordings(files[1], np.eye(3)[np.arange(len(SECONDS)) % 3], [str(i) for i in range(len(SECONDS))], clip_seconds=None)


def test_clips_are_padded_to_the_next_multiple_and_never_cut(clips):
    whole = FullLengthClips(clips)
    assert whole.lengths.tolist() == [9600, 32000, 32320, 16320, 32000, 9600, 32000, 320]
    for clip, original in zip(whole, clips, strict=True):
        assert len(clip.waveform) == whole.lengths[clip.index]
        assert torch.equal(clip.waveform[: len(original.waveform)], original.waveform)
        assert clip.waveform[len(original.waveform) :].abs().sum() == 0
        assert clip.name == original.name and torch.equal(clip.target, original.target)
    assert FullLengthClips(clips, 1.0).lengths.tolist() == [32000, 32000, 64000, *[32000] * 5]


def test_batches_hold_every_clip_once_and_one_length_each(clips):
    whole = FullLengthClips(clips)
    assert whole.batches(2) == [[2], [1, 4], [6], [3], [0, 5], [7]]  # the longest first
    assert whole.batches(64) == [[2], [1, 4, 6], [3], [0, 5], [7]]


def test_scores_do_not_depend_on_the_batch(clips):
    model = WaveformModel(checkpoints.load_model("mn04_distilled")).eval()
    whole = FullLengthClips(clips)
    alone, batched = torch.empty(len(clips), 527), torch.empty(len(clips), 527)
    with torch.inference_mode():
        for clip in whole:
            alone[clip.index] = model(clip.waveform[None])[0][0]
        for batch in DataLoader(whole, batch_sampler=whole.batches(3), num_workers=1):
            batched[batch.index] = model(batch.waveform)[0]
        unpadded = torch.stack([model(clip.waveform[None])[0][0] for clip in clips])
    torch.testing.assert_close(batched, alone, atol=1e-4, rtol=0)
    longer = [index for index, seconds in enumerate(SECONDS) if seconds > 0.1]
    assert (batched.sigmoid() - unpadded.sigmoid())[longer].abs().max() < 0.05  # what the rounding may do


def test_a_wrong_header_does_not_change_the_length(files, tmp_path):
    sound = audio.load(BUNDLED[0], 32000)[:40000]
    marked = audio.encode_mp3(sound, 32000)
    (tmp_path / "a.mp3").write_bytes(b"ID3\x04\0\0\0\0\0\0" + marked.replace(b"Xing", b"none").replace(b"Info", b"none"))
    clips = Recordings([tmp_path / "a.mp3"], [[1]], ["a"], clip_seconds=None)
    whole = FullLengthClips(clips)
    assert 0 <= whole.lengths[0] - len(clips[0].waveform) < 320


def test_clips_of_a_fixed_length_are_refused(files):
    with pytest.raises(ValueError, match="clip_seconds=None"):
        FullLengthClips(Mp3Dataset(files[0], num_classes=3))
    with pytest.raises(ValueError, match="round_seconds"):
        FullLengthClips(Mp3Dataset(files[0], num_classes=3, clip_seconds=None), 0)
