"""Time of dynamic networks on the CPU: plain and ours, in PyTorch and in ONNX Runtime, next to the MobileNetV3 of the same width.

    python -m benchmarks.dynamic --threads 1 --batch_sizes 1 8

Plain: every kernel is mixed for each example, the batch goes into the groups of an ordinary convolution, channels are first in
memory, and each norm, linear function and gate is an operation of its own. torch's exporter writes it for one batch size. All
variants of a width are interleaved; times are medians. Weights are random, norms fit the input. Differences between the variants'
scores are printed: dynamic networks of random weights multiply rounding errors.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import tempfile
import warnings
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import NamedTuple

import onnxruntime
import torch
from torch import Tensor
from torch.nn import functional
from torch.optim.swa_utils import update_bn

from benchmarks import common, speed
from helpers import cli
from helpers.export.graph import to_onnx
from helpers.export.runtime import new_session
from models.base import TaggingNetwork
from models.config import Arch, Architecture, DyMNArch
from models.dynamic_blocks import DynamicBlock, DynamicConv, DynamicReLU


class PlainDynamicConv(DynamicConv):
    """Every kernel in the groups of one convolution."""

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        share = (self.residuals(context) / self.temperature).softmax(-1)
        batch, channels, *size = x.shape
        groups = batch * (1 if self.kernel_size == (1, 1) else channels)
        kernels = (share @ self.weight[0, 0]).view(batch * self.out_channels, -1, *self.kernel_size)
        x = x.reshape(1, batch * channels, *size)
        y = functional.conv2d(x, kernels, None, self.stride, (self.kernel_size[0] - 1) // 2, groups=groups)
        return y.view(batch, self.out_channels, *y.shape[2:])


class PlainDynamicReLU(DynamicReLU):
    """All linear functions side by side, then their maximum."""

    def forward(self, x: Tensor, context: Tensor, gate: Tensor | None = None) -> Tensor:
        theta = 2 * torch.sigmoid(self.coef_net(context)) - 1
        coefficients = theta.unflatten(1, (x.shape[1], -1)) * self.lambdas + self.init_v
        slopes, intercepts = coefficients[..., None, None].chunk(2, dim=2)
        return (x.unsqueeze(2) * slopes + intercepts).amax(2)


class PlainDynamicBlock(DynamicBlock):
    """One operation after the other, channels first in memory."""

    def forward(self, x: Tensor) -> Tensor:
        context, frequency_gate, time_gate = self.context_gen(x, attention=True)
        y = x
        if self.expands:
            y = self.exp_act(self.exp_norm(self.exp_conv(y, context)))
        y = self.depth_act(self.depth_norm(self.depth_conv(y, context)), context)
        y = self.proj_norm(self.proj_conv(y * frequency_gate * time_gate, context))
        return y + x if self.use_shortcut else y


def plain(network: TaggingNetwork) -> TaggingNetwork:
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, DynamicConv):
            module.__class__ = PlainDynamicConv
        elif isinstance(module, DynamicReLU):
            module.__class__ = PlainDynamicReLU
        elif isinstance(module, DynamicBlock):
            module.__class__ = PlainDynamicBlock
    return network


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("--widths", type=cli.positive_float, nargs="+", default=[0.4, 1.0, 2.0], help="width multipliers")
    parser.add_argument("--batch_sizes", type=cli.positive_int, nargs="+", default=[1, 8], help="clips in a batch")
    parser.add_argument("--threads", type=cli.positive_int, nargs="+", default=[1, 2], help="threads")
    parser.add_argument("--frames", type=cli.positive_int, default=1000, help="frames of a spectrogram; 1000 are 10 s")
    parser.add_argument("--rounds", type=cli.positive_int, default=6, help="timed runs of each variant")
    parser.add_argument("--seed", type=cli.seed, default=0, help="seed of weights and input")
    parser.add_argument("--profile", action="store_true", help="instead: what ONNX Runtime spends on the operations of a clip")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    print(common.machine("torch", "onnxruntime"))
    torch.manual_seed(args.seed)
    if args.profile:
        x = noises(1, args.frames)
        for width, arch in product(args.widths, (DyMNArch, Arch)):
            network = random_network(arch(width_mult=width), x)
            title = f"{arch.family}{round(10 * width):02d}, one thread"
            common.print_table(title, ("operation", "ms"), profile(network, x, args.rounds))
        return 0
    for batch in args.batch_sizes:
        x = noises(batch, args.frames)
        families = [families_of(width, x) for width in args.widths]
        for threads in args.threads:
            torch.set_num_threads(threads)
            rows = [row for family in families for row in measure(family, threads, x, args.rounds)]
            columns = ("network", "variant", "ms", "times as fast as plain", "times the mn's time", "difference")
            common.print_table(f"{threads} threads, batch {batch}", columns, rows)
    return 0


def noises(batch: int, frames: int) -> Tensor:
    """Spectrograms (B, 1, 128, frames) of stationary noises, each with a spectrum of its own."""
    return torch.randn(batch, 1, 128, 1) + torch.randn(batch, 1, 128, frames)


def random_network(arch: Architecture, x: Tensor) -> TaggingNetwork:
    """Random weights, and norms that fit `x`."""
    return fit_norms(arch.build(), x)


def fit_norms(network: TaggingNetwork, x: Tensor) -> TaggingNetwork:
    """Let norms fit x (B, 1, 128, frames): with those of a new dynamic network its maps vanish, block by block."""
    update_bn([torch.cat([x, noises(3, x.shape[3])])], network)
    return network.eval()


class Families(NamedTuple):
    """Networks of one width."""

    dymn: TaggingNetwork
    plain_graph: bytes  # the plain form of `dymn` in ONNX
    mn: TaggingNetwork


def families_of(width: float, x: Tensor) -> Families:
    dymn = random_network(DyMNArch(width_mult=width, T_max=1.0), x)
    return Families(dymn, exported(plain(dymn), x), random_network(Arch(width_mult=width), x))


def exported(network: TaggingNetwork, x: Tensor) -> bytes:
    """Spectrograms (B, 1, n_mels, frames) -> logits (B, K), embedding (B, C), by torch's exporter, for the size of x."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that needs no further packages is deprecated
        torch.onnx.export(network, (x,), file, input_names=["spectrogram"], output_names=["logits", "embedding"], dynamo=False)
    return file.getvalue()


def run_graph(graph: bytes, threads: int) -> speed.Scores:
    session = new_session(graph, threads)

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        logits, embedding = map(torch.from_numpy, session.run(["logits", "embedding"], {"spectrogram": x.numpy()}))
        return logits.sigmoid(), embedding

    return run


def measure(families: Families, threads: int, x: Tensor, rounds: int) -> list[tuple[object, ...]]:
    """Return a row of the table for each network and variant of a width."""
    dymn, plain_graph, mn = families
    runs = {
        ("dymn", "plain, PyTorch"): speed.eager(plain(dymn), threads),
        ("dymn", "PyTorch"): speed.eager(dymn, threads),
        ("dymn", "plain, ONNX Runtime"): run_graph(plain_graph, threads),
        ("dymn", "ONNX Runtime"): speed.onnx(dymn, threads),
        ("mn", "PyTorch"): speed.folded(mn, threads),
        ("mn", "ONNX Runtime"): speed.onnx(mn, threads),
    }
    with torch.inference_mode():
        expected = runs["dymn", "plain, PyTorch"](x)[0]
        times = common.measure_interleaved({key: partial(run, x) for key, run in runs.items()}, rounds)
        rows = []
        for (family, variant), seconds in times.items():
            cells = ("", "", "")
            if family == "dymn":
                runtime = variant.removeprefix("plain, ")
                faster = median(common.ratios(times["dymn", f"plain, {runtime}"], seconds))
                more = median(common.ratios(seconds, times["mn", runtime]))
                difference = (runs[family, variant](x)[0] - expected).abs().max()
                cells = (f"{faster:.2f}", f"{more:.2f}", f"{difference:.0e}")
            rows.append((f"{family}{round(10 * dymn.arch.width_mult):02d}", variant, f"{1e3 * median(seconds):.1f}", *cells))
    return rows


def profile(network: TaggingNetwork, x: Tensor, rounds: int) -> list[tuple[str, str]]:
    """What ONNX Runtime spends on each kind of operation: the sum over nodes of their shortest times, the largest first."""
    graph = to_onnx(network, "network", network_only=True).SerializeToString()
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.enable_profiling = 1, True
        options.profile_file_prefix = f"{folder}/profile"
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        for _ in range(rounds):
            session.run(None, {"spectrogram": x.numpy()})
        events = json.loads(Path(session.end_profiling()).read_text())
    runs: dict[tuple[str, ...], list[float]] = {}
    for event in events:
        operation = event.get("args", {}).get("op_name")
        if operation and event["name"].endswith("_kernel_time") and operation != "Scan":  # whose operations are in the list
            shapes = [list(one.values())[0] for one in event["args"]["input_type_shape"]]
            kind = _kind(shapes[0], shapes[1]) if "Conv" in operation else operation
            runs.setdefault((kind, event["name"], str(shapes)), []).append(event["dur"] / 1e3)
    totals: dict[str, float] = {}
    for (kind, *_), times in runs.items():  # bodies of blocks share names and, here and there, shapes
        totals[kind] = totals.get(kind, 0.0) + min(times) * round(len(times) / rounds)
    return [(kind, f"{total:.2f}") for kind, total in sorted(totals.items(), key=lambda pair: -pair[1])]


def _kind(x: Sequence[int], weight: Sequence[int]) -> str:
    if weight[1] == 1 and x[1] > 1:
        return "depthwise convolutions"
    return "convolutions of positions, gates" if 1 in x[2:] else "other convolutions"


if __name__ == "__main__":
    cli.run(main)
