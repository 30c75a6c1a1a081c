"""Convert ImageNet weights of MobileNetV3-Large from torchvision or timm into a checkpoint from which audio training starts.

python -m models.convert mobilenet_v3_large.pth --output resources/mn10_im_torchvision.pt
python -m models.convert mobilenetv3_large_100.safetensors --output resources/mn10_s2221.pt --strides 2 2 2 1
python ex_audioset.py --train --pretrained_name resources/mn10_im_torchvision.pt

The stem's weights are summed over the colours, so that a grey image gives the features of the same image in three equal channels.
The last layer is initialised for AudioSet's 527 classes. Squeeze-and-excitation ends in a sigmoid here, as in the published audio
networks, and in a hard sigmoid there: from block 4 on, features differ, and training has to compensate. timm's tf_* models
(--batch_norm_eps 0.001) also pad strided convolutions on other sides: filters are copied, but features differ from the stem on.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from models import checkpoints
from models.checkpoints import CheckpointError
from models.command import HelpFormatter, run
from models.config import HEAD_TYPES, Arch, MelConfig
from models.errors import UserError
from models.network import MobileNetV3

EPSILON = {"torchvision": 1e-3, "timm": 1e-5}  # of the batch norms there; that of timm's models tf_* is 1e-3
STEM = "features.0.0.weight"
TIMM_STAGES = (1, 2, 3, 4, 2, 3)  # blocks in each


def convert(
    state: dict[str, Tensor], arch: Arch, mel: MelConfig | None = None, epsilon: float | None = None
) -> tuple[MobileNetV3, str]:
    """Build a network of `arch` with the weights of a state dict in torchvision's or timm's layout; report on each tensor.

    All tensors but the head's must be there, and fit, or it is a `CheckpointError`; of the head, the hidden layer is copied where
    it fits. `epsilon` is that of the source's batch norms (default: `EPSILON`): where it is not ours, their weights are scaled so
    that a norm with its running statistics computes the same.
    """
    layout = "timm" if "conv_stem.weight" in state else "torchvision"
    stem = state.get(source_name(STEM, layout))
    if stem is None or stem.ndim != 4 or stem.shape[1] != 3:
        raise CheckpointError("these are not weights of a MobileNetV3 for colour images in torchvision's or timm's layout")
    network = MobileNetV3(arch, mel)
    targets = network.state_dict()
    sources = {name: source_name(name, layout) for name in targets if not name.startswith("classifier.")}
    if arch.head_type == "mlp":
        hidden = {name: source_name(name, layout) for name in ("classifier.2.weight", "classifier.2.bias")}
        if all(source in state and state[source].numel() == targets[name].numel() for name, source in hidden.items()):
            sources |= hidden
    _check(state, targets, sources)
    epsilon = EPSILON[layout] if epsilon is None else epsilon
    copied, summed, initialised = [], [], []
    for name, tensor in targets.items():
        source = sources.get(name)
        if source is None:
            initialised.append(_described(name, tensor))
        elif source in state:  # older files lack the norms' num_batches_tracked
            given = state[source]
            tensor.copy_(given.sum(1, keepdim=True) if name == STEM else given.reshape(tensor.shape))
            (summed if name == STEM else copied).append(_described(source, given))
    rescaled = 0
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d) and f"{name}.weight" in sources and epsilon != module.eps:
            with torch.no_grad():
                module.weight *= ((module.running_var + module.eps) / (module.running_var + epsilon)).sqrt()
            rescaled += 1
    used = set(sources.values())
    ignored = [_described(name, tensor) for name, tensor in state.items() if name not in used]
    lines = [
        f"layout: {layout}",
        f"copied: {len(copied)} tensors of {len(copied) + len(summed) + len(ignored)}",
        f"summed over the colours: {', '.join(summed)}",
        f"rescaled for another epsilon of the batch norms: {rescaled or 'none'}",
        f"initialised: {', '.join(initialised)}",
        f"ignored: {', '.join(ignored)}",
        "differs: squeeze-and-excitation ends in a sigmoid here and in a hard sigmoid there (from block 4 on)",
    ]
    return network, "\n".join(lines)


def source_name(name: str, layout: str) -> str:
    """What torchvision or timm call a tensor of the network but for its last layer."""
    if layout == "torchvision":
        return name.replace("conc_se_layers.0.", "").replace("classifier.2.", "classifier.0.")
    words = name.split(".")
    kind = words[-1]
    if words[0] == "classifier":
        return f"conv_head.{kind}"
    block = int(words[1])
    if block == 0:
        return f"{('conv_stem', 'bn1')[int(words[2])]}.{kind}"
    if block == 1 + sum(TIMM_STAGES):
        return f"blocks.{len(TIMM_STAGES)}.0.{('conv', 'bn1')[int(words[2])]}.{kind}"
    stage = next(stage for stage in range(len(TIMM_STAGES)) if block <= sum(TIMM_STAGES[: stage + 1]))
    prefix = f"blocks.{stage}.{block - 1 - sum(TIMM_STAGES[:stage])}"
    if "conc_se_layers" in words:
        return f"{prefix}.se.{'conv_reduce' if words[-2] == 'fc1' else 'conv_expand'}.{kind}"
    part, is_norm = int(words[3]), words[4] == "1"
    if block == 1:  # without expansion
        convolution, norm = (("conv_dw", "bn1"), ("conv_pw", "bn2"))[part]
    else:
        convolution, norm = (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3"))[min(part, 2)]
    return f"{prefix}.{norm if is_norm else convolution}.{kind}"


def _check(state: dict[str, Tensor], targets: dict[str, Tensor], sources: dict[str, str]) -> None:
    """Raise `CheckpointError` unless every tensor of the network is there and fits, and every other one is of the head."""
    problems = [
        f"{source} is missing" for source in sources.values() if source not in state and not source.endswith("num_batches_tracked")
    ]
    for name, source in sources.items():
        if source in state:
            shape = list(targets[name].shape)
            shape += [1, 1] if state[source].ndim == 4 and len(shape) == 2 else []  # linear layers, there 1x1 convolutions
            shape[1:2] = [3] if name == STEM else shape[1:2]
            if list(state[source].shape) != shape:
                problems.append(f"{_described(source, state[source])} should be {tuple(shape)}")
    head = ("classifier.", "conv_head.")
    problems += [f"{name} is not of this network" for name in state if name not in sources.values() and not name.startswith(head)]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(f"the weights do not fit a MobileNetV3-Large of this width: {'; '.join(problems[:3])}{more}")


def _described(name: str, tensor: Tensor) -> str:
    return f"{name} {tuple(tensor.shape)}"


def read(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a .safetensors file or one of torch, of which nothing but tensors and plain data is unpickled."""
    if path.suffix == ".safetensors":
        try:
            from safetensors import SafetensorError
            from safetensors.torch import load_file
        except ModuleNotFoundError as error:
            raise UserError(f"{path} needs safetensors, which is not installed: pip install safetensors") from error
        try:
            state = load_file(path)
        except SafetensorError as error:
            raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from error
    else:
        state = checkpoints.read_checkpoint_file(path)
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise CheckpointError(f"{path} holds no bare state dict, which is what this command takes")
    return state


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m models.convert", description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument(
        "source", type=Path, metavar="SOURCE", help="state dict: .pth, .pt, .bin, or .safetensors (needs safetensors)"
    )
    parser.add_argument("--output", type=Path, required=True, help="checkpoint to write (.pt)")
    parser.add_argument("--width", type=float, default=1.0, help="width multiplier of the source")
    parser.add_argument("--strides", type=int, nargs=4, default=(2, 2, 2, 2), help="of blocks 2, 4, 7 and 13")
    parser.add_argument("--head_type", choices=HEAD_TYPES, default="mlp", help="head, of which mlp keeps a layer")
    parser.add_argument("--n_mels", type=int, default=128, help="mel bands of the front end")
    parser.add_argument("--hop_size", type=int, default=320, help="hop of the front end in samples at 32 kHz")
    parser.add_argument(
        "--batch_norm_eps",
        type=float,
        help="epsilon of the source's batch norms (0.001 for torchvision, 1e-5 for timm; timm's tf_*: 0.001)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.batch_norm_eps is not None and not 0 < args.batch_norm_eps < 1:
        parser.error(f"--batch_norm_eps must be between 0 and 1, not {args.batch_norm_eps}")
    if args.output.suffix != ".pt" or (args.output.exists() and args.source.exists() and args.output.samefile(args.source)):
        parser.error(f"--output must end in .pt and be another file than SOURCE, not {args.output}")
    arch = Arch(width_mult=args.width, strides=tuple(args.strides), head_type=args.head_type, input_dim_f=args.n_mels)
    mel = MelConfig(n_mels=args.n_mels, hop_size=args.hop_size)
    torch.manual_seed(0)  # of what is initialised
    network, report = convert(read(args.source), arch, mel, args.batch_norm_eps)
    checkpoints.save(args.output, network, args={"source": os.path.basename(args.source)})
    print(f"{report}\nwritten: {args.output}")
    return 0


if __name__ == "__main__":
    run(main)
