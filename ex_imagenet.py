"""Pre-train on images: a folder in ImageNet's layout, with train/<class>/ and val/<class>/. The result starts an audio training.

python ex_imagenet.py imagenet --model_width 0.4 --cuda
torchrun --nproc_per_node 8 ex_imagenet.py imagenet --cuda
python ex_imagenet.py imagenet --evaluate runs/imagenet/best.pt --cuda
python ex_audioset.py --train --pretrained_name runs/imagenet/best.pt
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.data import RandomSampler

from datasets.images import Images, Picture, evaluation_transform, training_transform
from helpers import cli, network_options
from helpers.metrics import top_k_accuracy
from helpers.seeding import seed_everything
from helpers.training import distributed, options
from helpers.training.builders import make_loader, make_training_loader
from helpers.training.evaluation import Predictions, default_precision, predict
from helpers.training.finetuning import print_scores
from helpers.training.loop import fit
from helpers.training.mixing import mixed_loss, mixup
from helpers.training.objectives import CLASSIFICATION, cross_entropy_per_clip
from helpers.training.optimization import MovingAverage, linear_warmup_cosine_down, set_batch_norm_momentum
from helpers.training.run import Run, parse_arguments, parse_as_trained
from models import checkpoints
from models.base import TaggingNetwork
from models.building import new_architecture
from models.errors import UserError
from models.image import ImageModel, standardise


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("dataset_dir", metavar="DATA", nargs="?", type=cli.absolute_path, help="folder that holds train/ and val/")
    parser.add_argument("--evaluate", metavar="CHECKPOINT", help="evaluate a trained checkpoint instead of training")
    parser.add_argument("--image_size", type=cli.positive_int, default=224, help="side of the square that is seen, in pixels")
    parser.add_argument("--eval_crop", type=cli.unit_interval, default=0.875, help="share of the shorter side seen in evaluation")
    options.add_run_options(parser, batch_size=1024)
    options.add_training_options(parser, experiment_name="imagenet")
    network_options.add_network_options(parser)
    group = parser.add_argument_group("augmentation and regularisation")
    group.add_argument("--min_crop_area", type=cli.unit_interval, default=0.08, help="smallest share of an image in a random crop")
    group.add_argument("--flip", action=argparse.BooleanOptionalAction, default=True, help="mirror half of the images")
    group.add_argument(
        "--randaugment", type=int, choices=range(31), default=9, metavar="0-30", help="magnitude of RandAugment; 0: off"
    )
    group.add_argument("--mixup_alpha", type=cli.non_negative_float, default=0.2, help="alpha of mixup; 0: off")
    group.add_argument("--label_smoothing", type=cli.unit_interval, default=0.1, help="share of a target spread over all classes")
    group.add_argument("--ema_decay", type=cli.unit_interval, default=0.9999, help="of the average of weights that is kept; 0: off")
    options.add_batch_norm_option(parser)
    group = parser.add_argument_group("optimizer and schedule")
    group.add_argument("--n_epochs", type=cli.positive_int, default=300, help="number of epochs; the schedule spans them")
    group.add_argument("--max_lr", "--lr", type=cli.positive_float, default=2e-3, help="peak learning rate of AdamW")
    group.add_argument("--weight_decay", type=cli.non_negative_float, default=0.05, help="of AdamW; none on norms and biases")
    group.add_argument("--warm_up_len", type=cli.non_negative_int, default=5, help="epochs of the linear ramp up; a cosine follows")
    return parser


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = build_parser()
    args = parse_arguments(parser, argv)
    if args.evaluate and args.resume:
        parser.error("--evaluate measures a trained checkpoint; leave --resume out")
    if args.evaluate:
        args = parse_as_trained(parser, argv, args.evaluate, ("image_size", "eval_crop"))
    if args.dataset_dir is None:
        parser.error("DATA is missing: the folder that holds train/ and val/")
    if not (args.eval_crop and args.min_crop_area):
        parser.error("--eval_crop and --min_crop_area must be above 0")
    if args.se_dims not in (None, "none", "c"):
        parser.error("--se_dims must be c or none: sized for the rows or columns of images, a network takes no spectrograms")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_options(argv)
    with distributed.group(args.cuda) as device:
        args.precision = args.precision or default_precision(device)
        if args.evaluate:
            evaluate(args, device)
        else:
            train(args, device)
    return 0


def train(args: argparse.Namespace, device: torch.device) -> None:
    """Train on the images in train/, with evaluation on those in val/ after each epoch."""
    seed_everything(args.seed)
    augment = training_transform(args.image_size, min_area=args.min_crop_area, flip=args.flip, randaugment=args.randaugment)
    images, validation_images = Images(args.dataset_dir, "train", augment), validation_set(args)
    if images.class_names != validation_images.class_names:
        one_sided = sorted(set(images.class_names) ^ set(validation_images.class_names))
        raise UserError(f"train/ and val/ of {args.dataset_dir} need the same classes; in one alone: {', '.join(one_sided[:5])}")
    with Run(args) as run:
        model = ImageModel(build_network(args, run, images.class_names)).to(device)
        set_batch_norm_momentum(model.network, args.batch_norm_momentum)
        average = MovingAverage(model.network, args.ema_decay) if args.ema_decay else None
        kept = ImageModel(average.module) if average else model
        loader = make_training_loader(images, RandomSampler(images), args, images.names)
        validation_loader = make_loader(validation_images, args)
        loss_per_image = partial(cross_entropy_per_clip, label_smoothing=args.label_smoothing)

        def training_loss(network: nn.Module, pictures: Picture) -> dict[str, Tensor]:
            mixed, mix = mixup(standardise(pictures.pixels), args.mixup_alpha)
            logits, _ = network(mixed)  # (B, K)
            return {"loss": mixed_loss(loss_per_image, logits, mix, pictures.target).mean()}

        fit(
            model, loader, training_loss, lambda: scores(predict(kept, validation_loader, args.precision)),
            optimizer=torch.optim.AdamW(
                parameter_groups(model.network, args.weight_decay), lr=args.max_lr, fused=device.type == "cuda"
            ),
            schedule=lambda epoch: linear_warmup_cosine_down(epoch, args.n_epochs, args.warm_up_len),
            n_epochs=args.n_epochs, run=run, selection="accuracy", average=average,
            precision=args.precision, compile_network=args.compile, save_minutes=args.save_minutes,
            deterministic=args.deterministic,
        )  # fmt: skip


def build_network(args: argparse.Namespace, run: Run, class_names: Sequence[str]) -> TaggingNetwork:
    """The network, fresh or that of the resumed run."""
    if run.resumed:
        return checkpoints.build(run.resumed[0])
    given = {"num_classes": len(class_names), **network_options.given_fields(args)}
    network = new_architecture(network_options.chosen_family(args), given).build()
    network.labels, network.single_label = tuple(class_names), True
    return network


def parameter_groups(network: TaggingNetwork, weight_decay: float) -> list[dict[str, object]]:
    """Weights of convolutions and linear layers decay; norms and biases, vectors all, do not."""
    parameters = list(network.parameters())
    matrices, vectors = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def validation_set(args: argparse.Namespace) -> Images:
    return Images(args.dataset_dir, "val", evaluation_transform(args.image_size, crop=args.eval_crop))


def scores(predictions: Predictions) -> dict[str, float]:
    """Top-1 and top-5 accuracy, the mean over the classes of the former, and the loss without smoothing."""
    top5 = top_k_accuracy(predictions.targets, predictions.logits, 5)
    return {**CLASSIFICATION.scores(predictions), "accuracy_top5": top5}


def evaluate(args: argparse.Namespace, device: torch.device) -> None:
    """Print top-1 and top-5 accuracy on the images in val/."""
    network, images = checkpoints.load_model(args.evaluate), validation_set(args)
    if network.labels != images.class_names:
        raise UserError(f"the classes of {args.evaluate} are not those of {args.dataset_dir}; give a checkpoint trained on them")
    predictions = predict(ImageModel(network).to(device), make_loader(images, args), args.precision)
    print_scores(f"Results on the validation images: {args.evaluate}", scores(predictions))


if __name__ == "__main__":
    cli.run(main)
