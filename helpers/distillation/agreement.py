"""How well does a network agree with a teacher, and with the labels? Both hear the evaluation clips of AudioSet or the open corpus.

python -m helpers.distillation.agreement --model_name mn04_distilled --teacher mn04_as --dataset_dir data/opensounds
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datasets import audioset
from helpers import cli
from helpers.devices import pick_device
from helpers.metrics import tagging_metrics
from helpers.training import options
from helpers.training.builders import make_loader
from helpers.training.evaluation import Predictions, default_precision, predict
from models.ensemble import get_ensemble_model
from models.errors import UserError


@dataclass(frozen=True)
class Agreement:
    """Of a network with a teacher, over N clips of K classes that do not exclude each other."""

    mean_difference: float  # mean over clips and classes of |score - teacher's score|
    equal_first_tags: float  # share of the clips on which both have the same highest score
    divergence: float  # mean over clips and classes of KL(teacher || network) between Bernoulli distributions, in nats


def agreement(logits: np.ndarray, teacher_logits: np.ndarray) -> Agreement:
    """Compare logits (N, K) with those of a teacher (N, K)."""
    log_p, log_not_p = -np.logaddexp(0, -logits), -np.logaddexp(0, logits)
    log_q, log_not_q = -np.logaddexp(0, -teacher_logits), -np.logaddexp(0, teacher_logits)
    q = np.exp(log_q)
    divergence = q * (log_q - log_p) + (1 - q) * (log_not_q - log_not_p)
    first, teacher_first = logits.argmax(1), teacher_logits.argmax(1)
    return Agreement(float(np.abs(np.exp(log_p) - q).mean()), float((first == teacher_first).mean()), float(divergence.mean()))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m helpers.distillation.agreement", description=__doc__, formatter_class=cli.HelpFormatter
    )
    parser.add_argument("--model_name", required=True, help="a released or bundled name, or the path of a checkpoint")
    parser.add_argument("--teacher", nargs="+", required=True, metavar="NAME", help="models whose mean logits are the teacher's")
    parser.add_argument("--dataset_dir", help="folder of the HDF5 files or shards (else AUDIOSET_DIR, else data/audioset)")
    parser.add_argument("--clip_seconds", type=cli.clip_seconds, default=10.0, help="length that clips are cropped or padded to")
    options.add_run_options(parser, batch_size=32)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    args.dataset_dir = audioset.LOCATION.resolve(args.dataset_dir)  # before anything is downloaded
    own, teacher = (predictions(names, args) for names in ([args.model_name], args.teacher))
    result = agreement(own.logits, teacher.logits)
    print(f"{args.model_name} and {', '.join(args.teacher)} on {len(own.names)} clips")
    print(f"  mean |difference| of scores: {result.mean_difference:.5f}")
    print(f"  equal first tags: {result.equal_first_tags:.3f}")
    print(f"  divergence of scores: {result.divergence:.5f}")
    for name, one in ((args.model_name, own), (", ".join(args.teacher), teacher)):
        scores = tagging_metrics(one.targets, one.logits)
        print(f"  {name}: mAP {scores.mAP:.3f}, ROC-AUC {scores.mean_roc_auc:.3f}")
    return 0


def predictions(names: Sequence[str], args: argparse.Namespace) -> Predictions:
    """Mean logits of the named models for the evaluation clips."""
    model = get_ensemble_model(names).to(pick_device(args.cuda))
    if model.num_classes != audioset.NUM_CLASSES:
        raise UserError(f"{', '.join(names)} has {model.num_classes} classes, AudioSet {audioset.NUM_CLASSES}")
    clips = audioset.evaluation_set(args.dataset_dir, sample_rate=model.sample_rate, clip_seconds=args.clip_seconds)
    return predict(model, make_loader(clips, args), args.precision or default_precision(model.device))


if __name__ == "__main__":
    cli.run(main)
