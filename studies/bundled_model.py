"""Train the bundled model mn04_distilled from random weights: it learns from mn04_as on recordings without labels.

python -m datasets.prepare.opensounds --output_dir data/opensounds
python -m datasets.prepare.opensounds --output_dir data/opensounds --unlabelled
python -m studies.bundled_model --dataset_dir data/opensounds --output_dir runs/bundled_model --ranks 2

1. Each block learns the output of the teacher's block from the teacher's features, on short views.
2. The whole network learns features and logits of the teacher, on longer views.

The last epoch becomes mn04_distilled.pt and mn04_distilled.onnx in the output folder. The same command resumes after an
interruption.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from helpers import cli
from helpers.export.graph import to_onnx
from helpers.export.onnx_writer import write
from models import checkpoints
from studies import common

NAME = "mn04_distilled"
TEACHER = "mn04_as"
CLIP_SECONDS = 5.0  # that shorter recordings are padded to: of 0, 1, 2, 3, 5 and 10 the best on the validation clips
SHARED = (
    "--model_width", 0.4, "--teacher", TEACHER, "--kd_lambda", 0, "--feature_kd", 1, "--epoch_len", 9600, "--batch_size", 32,
    "--mixup_alpha", 0, "--fmin_aug_range", 1, "--fmax_aug_range", 1, "--warm_up_len", 0, "--save_minutes", 4,
    "--wandb", "disabled",
)  # fmt: skip
BLOCKS = (
    "--views", 1, 3, "--n_epochs", 5, "--blockwise_epochs", 5, "--max_lr", 1e-2, "--ramp_down_start", 1, "--ramp_down_len", 4,
)  # fmt: skip
STUDENT = ("--views", 2, 6, "--n_epochs", 12, "--max_lr", 3e-3, "--ramp_down_start", 3, "--ramp_down_len", 9)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("--dataset_dir", type=cli.absolute_path, required=True, help="folder of the open corpus")
    parser.add_argument("--output_dir", type=cli.absolute_path, required=True, help="folder of the runs")
    parser.add_argument(
        "--ranks", type=cli.positive_int, default=1, help="processes that train together, on one thread each if more than 1"
    )
    parser.add_argument("--cuda", action="store_true", help="compute on a CUDA device if there is one")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    common.require_unlabelled(args.dataset_dir)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    blocks = train(args, "blocks", BLOCKS)
    student = train(args, "student", ("--pretrained_name", blocks / "last.pt", *STUDENT))
    write_model(student / "last.pt", args.output_dir)
    return 0


def train(args: argparse.Namespace, name: str, options: Sequence[object]) -> Path:
    """Train or resume the run of this name; return its folder."""
    folder = args.output_dir / "runs" / name
    command = [common.ROOT / "ex_audioset.py", "--train", "--experiment_name", name, "--dataset_dir", args.dataset_dir]
    command += [*SHARED, *options, *(["--cuda"] if args.cuda else ["--num_workers", 0])]
    if (folder / "config.json").exists():
        command += ["--resume", folder]
    if args.ranks > 1:
        command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", args.ranks, *command]
    common.run_python(command, name, args.output_dir, args.ranks)
    return folder


def write_model(path: Path, output_dir: Path) -> None:
    """Write the checkpoint of a run as the files of the bundled model: weights and configuration, and the export."""
    checkpoint = checkpoints.load(path)
    network = checkpoints.build(checkpoint).eval()
    network.clip_seconds = CLIP_SECONDS
    args = {name: _without_folders(value) for name, value in checkpoint.args.items()}
    weights, export = (output_dir / f"{NAME}.{suffix}" for suffix in ("pt", "onnx"))
    checkpoints.save(weights, network, epoch=checkpoint.epoch, metrics=checkpoint.metrics, args=args)
    write(export, to_onnx(network, NAME, weights="float16"))
    for file in (weights, export):
        print(f"{file}: {file.stat().st_size / 1e6:.2f} MB")


def _without_folders(value: object) -> object:
    """An option without the folders of this machine: the name of an absolute path, anything else as it is."""
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


if __name__ == "__main__":
    cli.run(main)
