"""Networks in eager PyTorch on the CPU: this checkout against another one of this project.

    python -m benchmarks.eager_speed --baseline ../before

Evaluation, and a training step: forward and backward pass. One process of each checkout stays open, and they take turns in random
order, so that other work on the machine slows down both. "ms" is processor time, of all threads, the median over the rounds, after
one that warms up. Ratios are this checkout's to the baseline's: the median over the rounds and their quartiles, of processor time
and of elapsed time. "peak MB" is the most that PyTorch's allocator held at once, "allocated MB" the sum of what it handed out.
"same" says whether outputs, gradients and the statistics of norms have the same bits.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from itertools import product
from statistics import median

from benchmarks.common import BASELINE, MB, ROOT, THIS, CheckoutProcess, interleaved, machine, print_table, ratios, spread
from helpers import cli
from helpers.devices import available_cores
from models.errors import UserError

MODES = ("evaluation", "training")
HEADER = (
    "network", "mode", "threads", "batch", "ms", "baseline ms", "ratio, processor", "quartiles", "ratio, elapsed", "quartiles ",
    "peak MB", "baseline", "allocated MB", "baseline ", "same",
)  # fmt: skip

WORKER = """
import hashlib, json, sys, time
from itertools import accumulate
import torch
from torch.profiler import ProfilerActivity, profile
from models.MobileNetV3 import get_model
networks = {}
def run(network, x, training):
    torch.manual_seed(0)  # of dropout
    if not training:
        with torch.inference_mode():
            return network(x)
    network.zero_grad()
    outputs = network(x)
    sum(output.square().mean() for output in outputs).backward()
    return outputs
for line in sys.stdin:
    task = json.loads(line)
    torch.set_num_threads(task["threads"])
    torch.manual_seed(0)
    if task["width"] not in networks:
        networks[task["width"]] = get_model(width_mult=task["width"])
    network, training = networks[task["width"]].train(task["mode"] == "training"), task["mode"] == "training"
    x = torch.randn(task["batch"], 1, 128, task["frames"])
    if task["memory"]:
        run(network, x, training)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            outputs = run(network, x, training)
        events = profiler.profiler.kineto_results.events()
        sizes = [size for _, size in sorted((one.start_ns(), one.nbytes()) for one in events if one.name() == "[memory]")]
        gradients = [parameter.grad for parameter in network.parameters()] if training else []
        digest = hashlib.sha256()
        for tensor in [*outputs, *gradients, *network.buffers()]:
            digest.update(tensor.detach().numpy().tobytes())
        answer = [max(accumulate(sizes)), sum(size for size in sizes if size > 0), digest.hexdigest()]
    else:
        wall, cpu = time.perf_counter(), time.process_time()
        run(network, x, training)
        answer = [time.perf_counter() - wall, time.process_time() - cpu]
    network.zero_grad()
    print(json.dumps(answer), flush=True)
"""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("--baseline", type=cli.absolute_path, required=True, help="folder of the checkout to compare with")
    parser.add_argument(
        "--widths", type=cli.positive_float, nargs="+", default=[1.0, 0.4], help="width multipliers of the networks"
    )
    parser.add_argument("--modes", choices=MODES, nargs="+", default=MODES, help="what is timed")
    parser.add_argument("--batch_sizes", type=cli.positive_int, nargs="+", default=[1, 8], help="clips in a batch")
    parser.add_argument("--threads", type=cli.positive_int, nargs="+", default=sorted({1, available_cores()}), help="threads")
    parser.add_argument("--frames", type=cli.positive_int, default=1000, help="length of the spectrograms; 100 are a second")
    parser.add_argument("--rounds", type=cli.positive_int, default=20, help="timed runs of each")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if not (args.baseline / "models" / "MobileNetV3.py").is_file():
        raise UserError(f"{args.baseline} is no checkout of this project: it has no models/MobileNetV3.py")
    print(machine("torch"))
    processes = {key: CheckoutProcess(path, WORKER) for key, path in ((THIS, ROOT), (BASELINE, args.baseline))}
    try:
        rows = []
        for width, mode, threads, batch in product(args.widths, args.modes, args.threads, args.batch_sizes):
            task = {"width": width, "mode": mode, "threads": threads, "batch": batch, "frames": args.frames}
            rows.append(compare(processes, task, args.rounds))
    finally:
        for process in processes.values():
            process.close()
    print_table(f"{args.frames} frames, {args.rounds} rounds", HEADER, rows)
    return 0


def compare(processes: Mapping[str, CheckoutProcess], task: Mapping[str, object], rounds: int) -> tuple[str, ...]:
    """Return a row of the table."""
    memory = {key: process({**task, "memory": True}) for key, process in processes.items()}
    walls, cpus = {key: [] for key in processes}, {key: [] for key in processes}
    for number, key in interleaved(list(processes), rounds):
        wall, cpu = processes[key]({**task, "memory": False})
        if number:
            walls[key].append(wall)
            cpus[key].append(cpu)
    return (
        f"mn{round(10 * task['width']):02d}",
        *(str(task[key]) for key in ("mode", "threads", "batch")),
        *(f"{1000 * median(cpus[key]):.1f}" for key in (THIS, BASELINE)),
        *(part for values in (cpus, walls) for part in spread(ratios(values[THIS], values[BASELINE]))),
        *(f"{memory[key][kind] / MB:.1f}" for kind in range(2) for key in (THIS, BASELINE)),
        "yes" if memory[THIS][2] == memory[BASELINE][2] else "no",
    )


if __name__ == "__main__":
    cli.run(main)
