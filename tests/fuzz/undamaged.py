"""Undamaged files of every kind that the entry points take, as small as they can be."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import soundfile
import torch

import ex_folder
import export
from datasets import audio
from datasets.hdf5_mp3 import Mp3Writer
from datasets.labels import audioset_labels, audioset_mids
from datasets.prepare import audioset_shards
from models import checkpoints
from models.config import Arch, MelConfig
from models.network import MobileNetV3

RATE = 8000
IDS = [f"fuzz{number:07d}" for number in range(6)]  # of clips, as YouTube's
SEGMENTS = ("balanced_train", "unbalanced_train", "eval")
SEED_OF_WEIGHTS = 0


def sound(number: int, rate: int = RATE, seconds: float = 0.3) -> np.ndarray:
    """Noise and a tone, (samples,) float32."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(number).standard_normal(len(time))
    return (0.3 * np.sin(2 * np.pi * 200 * (number + 1) * time) + 0.01 * noise).astype(np.float32)


def write(folder: Path, quick: bool = False) -> None:
    """Write everything into a folder, or what the quick entry points take."""
    torch.manual_seed(SEED_OF_WEIGHTS)
    mel = MelConfig(n_mels=32, sample_rate=RATE, win_length=400, hop_size=160, n_fft=512)
    arch = Arch(width_mult=0.1, input_dim_f=32)
    checkpoints.save(folder / "model.pt", MobileNetV3(arch, mel, labels=audioset_labels(), clip_seconds=1.0).eval())
    export.main(["--model_name", str(folder / "model.pt"), "--output", str(folder / "model.onnx")])
    soundfile.write(folder / "recording.wav", sound(0, seconds=1.0), RATE)
    _audioset(folder / "audioset")
    _recordings(folder / "recordings")
    _esc50(folder / "esc50.zip")
    if quick:
        return
    _hear_task(folder / "hear")
    _teacher(folder)
    _dcase20(folder / "dcase20")
    _fsd50k(folder / "fsd50k")
    (folder / "package.deb").write_bytes(deb({"usr/share/doc/klettres-data/copyright": b"GPL", "usr/share/a.wav": wav(0)}))
    _run(folder)


def _audioset(folder: Path) -> None:
    for part in SEGMENTS:
        with Mp3Writer(folder / f"{part}_segments_mp3.hdf", 527) as writer:
            for number, name in enumerate(IDS):
                target = np.zeros(527)
                target[number % 2] = 1
                writer.add(f"Y{name}.mp3", audio.encode_mp3(sound(number, 32000), 32000), target)
    for kind in ("parquet", "tar"):
        audioset_shards.main(["--from", str(folder), "--format", kind, "--output_dir", str(folder.parent / kind)])
    mids = audioset_mids()
    rows = [f'{name}, 0.000, 10.000, "{mids[number % 2]}"\n' for number, name in enumerate(IDS)]
    (folder.parent / "segments.csv").write_text("# YTID, start_seconds, end_seconds, positive_labels\n" + "".join(rows))
    for number, name in enumerate(IDS):
        path = folder.parent / "downloaded" / f"{name}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, sound(number), RATE)


def _recordings(folder: Path) -> None:
    """Two classes of six recordings, which a table, a selection table and a label track describe as well."""
    rows = ["path,labels,start,end,split,group"]
    raven = ["Selection\tBegin Time (s)\tEnd Time (s)\tAnnotation\tBegin File"]
    for label in "ab":
        for number in range(6):
            path = folder / label / f"{label}{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, sound(number + 6 * (label == "b")), RATE)
            rows.append(f"{label}/{path.name},{label},0,0.3,{('train', 'val')[number % 3 == 0]},{label}{number}")
            raven.append(f"{len(raven)}\t0\t0.2\t{label}\t{path.name}")
    (folder.parent / "table.csv").write_text("\n".join(rows) + "\n")
    (folder.parent / "raven.txt").write_text("\n".join(raven) + "\n")
    events = ["segment_id\tstart_time_seconds\tend_time_seconds\tlabel", "a_0\t0.1\t2\ta", "b_0\t\t\t", "c_0\t9\t11\tb"]
    (folder.parent / "events.tsv").write_text("\n".join(events) + "\n")
    (folder.parent / "track.txt").write_text("0.0\t0.1\ta\n0.1\t0.2\tb\n0.15\t0.3\ta\n0.2\t0.3\tb\n")
    soundfile.write(folder.parent / "track.wav", sound(0), RATE)


def wav(number: int) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, sound(number, seconds=0.1), RATE, format="WAV")
    return buffer.getvalue()


def esc50_table(names: list[str]) -> str:
    rows = [f"{name},{number % 5 + 1},{number},class{number},False,{number},A" for number, name in enumerate(names)]
    return "\n".join(["filename,fold,target,category,esc10,src_file,take", *rows]) + "\n"


def _esc50(path: Path) -> None:
    names = [f"{number}.wav" for number in range(3)]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ESC-50-master/meta/esc50.csv", esc50_table(names))
        for number, name in enumerate(names):
            archive.writestr(f"ESC-50-master/audio/{name}", wav(number))


def _hear_task(folder: Path) -> None:
    splits = ["fold00", "fold01", "fold02"]
    metadata = {
        "task_name": "fuzz",
        "version": "1",
        "embedding_type": "scene",
        "prediction_type": "multiclass",
        "split_mode": "new_split_kfold",
        "splits": splits,
        "evaluation": ["top1_acc"],
        "sample_duration": 0.3,
    }
    for place, split in enumerate(splits):
        files = {f"{split}{number}.wav": ["ab"[number % 2]] for number in range(4)}
        for number, name in enumerate(files):
            path = folder / str(RATE) / split / name
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, sound(4 * place + number), RATE)
        (folder / f"{split}.json").write_text(json.dumps(files))
    (folder / "task_metadata.json").write_text(json.dumps(metadata))
    (folder / "labelvocabulary.csv").write_text("idx,label\n0,a\n1,b\n")


def _teacher(folder: Path) -> None:
    names = [f"Y{name}.mp3" for name in IDS]
    np.save(folder / "teacher.npy", np.random.default_rng(0).normal(-6, 2, (len(names), 527)).astype(np.float16))
    (folder / "teacher.txt").write_text("".join(f"{name}\n" for name in names))
    (folder / "teacher.pkl").write_bytes(pickle.dumps({name: row for row, name in enumerate(names)}, 2))


def _dcase20(folder: Path) -> None:
    """Two scenes; one table, of which the others are links."""
    rows = ["filename\tscene_label\tidentifier\tsource_label"]
    for number in range(8):
        scene = ("airport", "bus")[number % 2]
        name = f"audio/{scene}-lyon-{number}-{number}-a.wav"
        rows.append(f"{name}\t{scene}\tlyon-{number}\ta")
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, sound(number), RATE)
    (folder / "meta.csv").write_text("\n".join(rows) + "\n")


def _fsd50k(folder: Path) -> None:
    truth = folder / "FSD50K.ground_truth"
    truth.mkdir(parents=True)
    (truth / "vocabulary.csv").write_text("".join(f"{number},label{number},/m/{number}\n" for number in range(200)))
    for part in ("train", "val", "eval"):
        with Mp3Writer(folder / f"FSD50K.{part}_mp3.hdf", 200) as writer:
            for number in range(4):
                writer.add(f"{number}.mp3", audio.encode_mp3(sound(number, 32000), 32000), np.arange(200) == number % 2)


def deb(files: dict[str | tarfile.TarInfo, bytes]) -> bytes:
    """A Debian package: an ar archive of two tars. A `TarInfo` may announce another size than that of its content."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as members:
        for name, content in files.items():
            if not isinstance(info := name, tarfile.TarInfo):
                info = tarfile.TarInfo(f"./{name}")
                info.size = len(content)
            members.addfile(info)
            members.fileobj.write(content + bytes(-len(content) % tarfile.BLOCKSIZE))
    control = io.BytesIO()
    with tarfile.open(fileobj=control, mode="w") as members:
        text = b"Package: klettres-data\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b>\nDescription: x\n"
        info = tarfile.TarInfo("./control")
        info.size = len(text)
        members.addfile(info, io.BytesIO(text))
    parts = {"debian-binary": b"2.0\n", "control.tar": control.getvalue(), "data.tar": data.getvalue()}
    ends = [f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(part):<10}`\n".encode() + part for name, part in parts.items()]
    return b"!<arch>\n" + b"".join(part + b"\n" * (len(part) % 2) for part in ends)


def _run(folder: Path) -> None:
    """The folder of a training that a larger number of epochs resumes."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        options = "--train --clip_seconds 0.3 --num_workers 0 --batch_size 4 --wandb disabled --n_epochs 1 --warm_up_len 0 "
        options += "--ramp_down_start 0 --ramp_down_len 1 --max_lr 0.0001"
        ex_folder.main([str(folder / "recordings"), "--pretrained_name", str(folder / "model.pt"), *options.split()])
    finally:
        os.chdir(before)
