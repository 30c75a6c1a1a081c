"""The entry points that take files, and what they are given next to the file under attack."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import complexity
import ex_audioset
import ex_dcase20
import ex_embeddings
import ex_folder
import ex_fsd50k
import export
import hear_mn
import inference
import peak_memory
from datasets.prepare import audioset as prepare_audioset
from datasets.prepare import dcase20 as prepare_dcase20
from datasets.prepare import esc50 as prepare_esc50
from datasets.prepare.opensounds import debian
from datasets.strong_labels import encode, read_strong_labels
from helpers.distillation import __main__ as distillation
from helpers.tagger.audio_tagger import AudioTagger
from models import convert
from models.command import printable
from models.embeddings import PUBLISHED_BEST
from models.MobileNetV3 import get_model
from tests.fuzz import undamaged

Main = Callable[[Sequence[str] | None], int]


@dataclass(frozen=True)
class Entry:
    """A command or function with its arguments: `{file}` is under attack, `{input}` is its folder, `{good}` that of others."""

    name: str
    main: Main
    arguments: str
    is_quick: bool = True  # much below a second
    may_report: bool = False  # ends with 1 after a list of what it could not use
    resumes: bool = False  # keeps a .part, from which the next run resumes
    reads_weights: bool = True  # else what is wrong with them alone may be accepted
    leaves_out: bool = False  # warns of a recording that it cannot use, and works with the others
    is_streamed: bool = False  # reads the file from standard input


@dataclass(frozen=True)
class Kind:
    """A kind of file: its name in the folder of inputs, the undamaged one, and who takes it."""

    name: str
    file: str
    undamaged: str  # below the folder of undamaged files
    entries: tuple[Entry, ...]
    companions: Callable[[Path, Path], object] = lambda good, folder: None  # puts undamaged files next to it


def tag(argv: Sequence[str] | None) -> int:
    """AudioTagger: model, backend, recording."""
    model, backend, recording = argv
    tagger = AudioTagger(model, "cpu" if backend == "torch" else None, backend)
    scores = tagger.scores(recording)
    _print_finite(scores, bounds=(0, 1))
    _print_finite(tagger.embed(recording))
    print(tagger.tag(recording, top_k=3))
    return 0


def tag_content(argv: Sequence[str] | None) -> int:
    """AudioTagger on the bytes of a recording, and on what `tag_files` makes of it."""
    model, backend, recording = argv
    tagger = AudioTagger(model, "cpu" if backend == "torch" else None, backend)
    for result in tagger.tag_files([Path(recording).read_bytes()], workers=1):
        print(result)
    _print_finite(tagger.scores(Path(recording).read_bytes()), bounds=(0, 1))
    return 0


def read_events(argv: Sequence[str] | None) -> int:
    """A table of events, and its targets of frames."""
    for clip, events in read_strong_labels(argv[0], ("a", "b"), seconds=10.0, leave_out_unknown=True).items():
        print(printable(clip), encode(events, 2).sum())
    return 0


def hub(argv: Sequence[str] | None) -> int:
    """What torch.hub's entry points call."""
    model = get_model(None, argv[0]).eval()
    with torch.no_grad():
        logits, embedding = model(torch.zeros(1, 1, model.mel.n_mels, 100))
    _print_finite(logits.numpy())
    _print_finite(embedding.numpy())
    return 0


def hear(argv: Sequence[str] | None) -> int:
    model = hear_mn.load_model(argv[0], layers=PUBLISHED_BEST)
    with torch.no_grad():
        scenes = hear_mn.get_scene_embeddings(torch.zeros(1, 4000), model)
    _print_finite(scenes.numpy())
    return 0


def read_package(argv: Sequence[str] | None) -> int:
    """What the open corpus reads of a Debian package."""
    files = debian.read_files(Path(argv[0]), lambda path: path.endswith((".wav", "copyright")))
    print(len(files), "files", sum(map(len, files.values())), "bytes", len(debian.checksums(Path(argv[0]))), "checksums")
    return 0


def _print_finite(values: np.ndarray, bounds: tuple[float, float] = (-np.inf, np.inf)) -> None:
    """Print a mean, which is NaN if any value is none or out of bounds."""
    fits = np.isfinite(values).all() and bounds[0] <= values.min() and values.max() <= bounds[1]
    print(float(values.mean()) if fits else float("nan"))


def _copies(*names: str, names_here: Sequence[str] = ()) -> Callable[[Path, Path], None]:
    """A function that copies undamaged files and folders, of which those in `names_here` go by another name."""

    def copy(good: Path, folder: Path) -> None:
        for name, here in zip(names, names_here or names, strict=True):
            source, target = good / name, folder / here
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, dirs_exist_ok=True)
            else:
                shutil.copy2(source, target)

    return copy


def _same_for_all_segments(good: Path, folder: Path) -> None:
    """Link the file under attack to the names of AudioSet's three files; it is written after this."""
    for part in undamaged.SEGMENTS[:2]:
        (folder / f"{part}_segments_mp3.hdf").symlink_to("eval_segments_mp3.hdf")


def _one_table(good: Path, folder: Path) -> None:
    """DCASE20's recordings, whose three tables are one file, which is written after this."""
    _copies("dcase20")(good, folder)
    for name in ("evaluation_setup/fold1_train.csv", "evaluation_setup/fold1_evaluate.csv", "evaluation_setup/fold1_test.csv"):
        link = folder / "dcase20" / name
        link.parent.mkdir(exist_ok=True)
        link.symlink_to("../meta.csv")


SHORT = "--num_workers 0 --batch_size 4"
TRAINING = f"{SHORT} --wandb disabled --n_epochs 1 --warm_up_len 0 --ramp_down_start 0 --ramp_down_len 1 --max_lr 0.0001"
AUDIOSET = f"--train --kd_lambda 1 --clip_seconds 0.3 --epoch_len 4 {TRAINING}"
FOLDER = f"--clip_seconds 0.3 {TRAINING}"
PROBE = "--layers embedding --grid_points 1 --output_dir probes --model_name"
INFERENCE = "--time_limit 0 --top_k 3"
MODEL = "--model_name {good}/model.pt"
ONNX = "--backend onnx --model_name {good}/model.onnx"

CHECKPOINT = Kind(
    "checkpoint",
    "model.pt",
    "model.pt",
    (
        Entry("inference.py", inference.main, f"--model_name {{file}} --audio_path {{good}}/recording.wav {INFERENCE}"),
        Entry(
            "inference.py, onnx",
            inference.main,
            f"--backend onnx --model_name {{file}} --audio_path {{good}}/recording.wav {INFERENCE}",
            is_quick=False,
        ),
        Entry("export.py", export.main, "--model_name {file} --output model.onnx"),
        Entry("complexity.py", complexity.main, "--model_name {file}", reads_weights=False),
        Entry("peak_memory.py", peak_memory.main, "--model_name {file}", reads_weights=False),
        Entry(
            "ex_audioset.py, evaluation",
            ex_audioset.main,
            f"--model_name {{file}} --dataset_dir {{good}}/audioset --clip_seconds 0.3 {SHORT}",
        ),
        Entry(
            "ex_audioset.py, training",
            ex_audioset.main,
            f"--pretrained_name {{file}} --dataset_dir {{good}}/audioset {AUDIOSET}",
            is_quick=False,
        ),
        Entry("ex_folder.py", ex_folder.main, f"{{good}}/recordings --train --pretrained_name {{file}} {FOLDER}", is_quick=False),
        Entry("ex_embeddings.py", ex_embeddings.main, f"--data {{good}}/hear {PROBE} {{file}}", is_quick=False),
        Entry(
            "helpers.distillation",
            distillation.main,
            f"--models {{file}} --dataset_dir {{good}}/audioset --output teacher.npy {SHORT}",
            resumes=True,
        ),
        Entry("models.convert", convert.main, "{file} --output converted.pt"),
        Entry("hub", hub, "{file}"),
        Entry("HEAR", hear, "{file}"),
        Entry("AudioTagger", tag, "{file} torch {good}/recording.wav"),
    ),
)
EXPORTED = Kind(
    "ONNX file",
    "model.onnx",
    "model.onnx",
    (
        Entry(
            "inference.py, onnx",
            inference.main,
            f"--backend onnx --model_name {{file}} --audio_path {{good}}/recording.wav {INFERENCE}",
        ),
        Entry("AudioTagger", tag, "{file} onnx {good}/recording.wav"),
    ),
)
RECORDING = Kind(
    "recording",
    "recording.wav",
    "recording.wav",
    (
        Entry("inference.py", inference.main, f"{MODEL} --audio_path {{file}} {INFERENCE}"),
        Entry("inference.py, onnx", inference.main, f"{ONNX} --audio_path {{file}} {INFERENCE}"),
        Entry("inference.py, events", inference.main, f"{ONNX} --audio_path {{file}} --time_limit 0 --events events.csv"),
        Entry("inference.py, stream", inference.main, f"{ONNX} --stream --window 1 --hop 0.5 --show_top 2", is_streamed=True),
        Entry("export.py --compare", export.main, f"{MODEL} --output int8.onnx --weights int8 --compare {{file}}", is_quick=False),
        Entry(
            "ex_folder.py",
            ex_folder.main,
            f"{{input}} --csv {{input}}/table.csv --train --pretrained_name {{good}}/model.pt {FOLDER}",
            is_quick=False,
            leaves_out=True,
        ),
        Entry("AudioTagger", tag_content, "{good}/model.onnx onnx {file}"),
    ),
    lambda good, folder: (
        _copies("recordings")(good, folder),
        (folder / "table.csv").write_text(
            "path,labels\nrecording.wav,a\n" + "".join(f"recordings/{c}/{c}{n}.wav,{c}\n" for c in "ab" for n in range(6))
        ),
    ),
)
HDF5 = Kind(
    "HDF5 file",
    "eval_segments_mp3.hdf",
    "audioset/eval_segments_mp3.hdf",
    (
        Entry("ex_audioset.py, evaluation", ex_audioset.main, f"{MODEL} --dataset_dir {{input}} --clip_seconds 0.3 {SHORT}"),
        Entry(
            "ex_audioset.py, training",
            ex_audioset.main,
            f"--pretrained_name {{good}}/model.pt --dataset_dir {{input}} {AUDIOSET}",
            is_quick=False,
        ),
        Entry("ex_embeddings.py", ex_embeddings.main, f"--data {{input}} {PROBE} {{good}}/model.pt", is_quick=False),
        Entry(
            "helpers.distillation",
            distillation.main,
            f"--models {{good}}/model.pt --hdf {{file}} --output teacher.npy {SHORT}",
            resumes=True,
        ),
    ),
    _same_for_all_segments,
)
PARQUET, TAR = (
    Kind(
        name,
        file,
        undamaged_file,
        (
            Entry(
                "datasets.prepare.audioset",
                prepare_audioset.main,
                f"--{option} {{file}} --output out.hdf --num_workers 1",
                is_quick=False,
                may_report=True,
                resumes=True,
            ),
            Entry("ex_audioset.py, evaluation", ex_audioset.main, f"{MODEL} --dataset_dir {{input}} --clip_seconds 0.3 {SHORT}"),
        ),
    )
    for name, file, undamaged_file, option in (
        ("parquet file", "eval/eval.parquet", "parquet/eval/000.parquet", "parquet"),
        ("tar", "eval/eval.tar", "tar/eval/000.tar", "webdataset"),
    )
)
ZIP = Kind(
    "zip",
    "esc50.zip",
    "esc50.zip",
    (Entry("datasets.prepare.esc50", prepare_esc50.main, "--source {file} --output_dir esc50 --num_workers 1", may_report=True),),
)
SEGMENT_LIST = Kind(
    "AudioSet CSV",
    "segments.csv",
    "segments.csv",
    (
        Entry(
            "datasets.prepare.audioset",
            prepare_audioset.main,
            "--csv {file} --audio_dir {input}/downloaded --output out.hdf --num_workers 1",
            is_quick=False,
            may_report=True,
            resumes=True,
        ),
    ),
    _copies("downloaded"),
)
TABLE = Kind(
    "table",
    "recordings/table.csv",
    "table.csv",
    (
        Entry(
            "ex_folder.py",
            ex_folder.main,
            f"{{input}}/recordings --csv {{file}} --train --pretrained_name {{good}}/model.pt {FOLDER}",
            is_quick=False,
        ),
        Entry(
            "ex_embeddings.py",
            ex_embeddings.main,
            f"--data {{input}}/recordings/table.csv {PROBE} {{good}}/model.pt",
            is_quick=False,
        ),
    ),
    _copies("recordings"),
)
LABELS = Kind(
    "label file",
    "labels/labels.txt",
    "raven.txt",
    (
        Entry(
            "ex_folder.py",
            ex_folder.main,
            f"{{input}}/recordings --csv {{input}}/labels --train --pretrained_name {{good}}/model.pt {FOLDER}",
            is_quick=False,
        ),
    ),
    _copies("recordings"),
)
EVENTS = Kind("table of events", "events.tsv", "events.tsv", (Entry("datasets.strong_labels", read_events, "{file}"),))
METADATA = Kind(
    "HEAR task, JSON",
    "hear/task_metadata.json",
    "hear/task_metadata.json",
    (Entry("ex_embeddings.py", ex_embeddings.main, f"--data {{input}}/hear {PROBE} {{good}}/model.pt", is_quick=False),),
    _copies("hear"),
)
SPLIT = Kind(
    "HEAR split, JSON",
    "hear/fold01.json",
    "hear/fold01.json",
    (Entry("ex_embeddings.py", ex_embeddings.main, f"--data {{input}}/hear {PROBE} {{good}}/model.pt", is_quick=False),),
    _copies("hear"),
)
LOGITS, NAMES, INDEX = (
    Kind(
        name,
        file,
        file,
        (
            Entry(
                "ex_audioset.py, distillation",
                ex_audioset.main,
                f"--pretrained_name {{good}}/model.pt --dataset_dir {{good}}/audioset --teacher_preds {{input}}/teacher.npy "
                f"--fname_to_index {{input}}/{index} {AUDIOSET.replace('--kd_lambda 1', '--kd_lambda 0.5')}",
                is_quick=False,
            ),
        ),
        _copies("teacher.npy", "teacher.txt"),
    )
    for name, file, index in (
        ("teacher's logits", "teacher.npy", "teacher.txt"),
        ("teacher's names", "teacher.txt", "teacher.txt"),
        ("teacher's pickle", "teacher.pkl", "teacher.pkl"),
    )
)
DCASE20 = Kind(
    "DCASE20 table",
    "dcase20/meta.csv",
    "dcase20/meta.csv",
    (
        Entry(
            "ex_dcase20.py",
            ex_dcase20.main,
            f"--dataset_dir {{input}}/dcase20 --train --pretrained_name {{good}}/model.pt {TRAINING}",
            is_quick=False,
        ),
        Entry(
            "datasets.prepare.dcase20",
            prepare_dcase20.main,
            "--source {input}/dcase20 --output_dir out --num_workers 1",
            is_quick=False,
            may_report=True,
        ),
    ),
    _one_table,
)
VOCABULARY = Kind(
    "FSD50K vocabulary",
    "fsd50k/FSD50K.ground_truth/vocabulary.csv",
    "fsd50k/FSD50K.ground_truth/vocabulary.csv",
    (
        Entry(
            "ex_fsd50k.py",
            ex_fsd50k.main,
            f"--dataset_dir {{input}}/fsd50k --train --pretrained_name {{good}}/model.pt {FOLDER}",
            is_quick=False,
        ),
    ),
    _copies("fsd50k"),
)
PACKAGE = Kind("Debian package", "package.deb", "package.deb", (Entry("opensounds", read_package, "{file}", is_quick=False),))
RESUMES = (Entry("ex_folder.py, resuming", ex_folder.main, "--resume runs/folder --n_epochs 2", is_quick=False),)
RUN_STATE, RUN_CONFIG, RUN_METRICS = (
    Kind(name, f"../work/runs/folder/{file}", f"runs/folder/{file}", RESUMES, _copies("runs", names_here=("../work/runs",)))
    for name, file in (("run, last.pt", "last.pt"), ("run, config.json", "config.json"), ("run, metrics.csv", "metrics.csv"))
)
KINDS = (
    CHECKPOINT,
    EXPORTED,
    RECORDING,
    HDF5,
    PARQUET,
    TAR,
    ZIP,
    SEGMENT_LIST,
    TABLE,
    LABELS,
    EVENTS,
    METADATA,
    SPLIT,
    LOGITS,
    NAMES,
    INDEX,
    DCASE20,
    VOCABULARY,
    PACKAGE,
    RUN_STATE,
    RUN_CONFIG,
    RUN_METRICS,
)


def arguments(entry: Entry, kind: Kind, input_folder: Path, good: Path) -> list[str]:
    words = shlex.split(entry.arguments)
    return [word.format(file=input_folder / kind.file, input=input_folder, good=good) for word in words]
