"""Which layers of a network make good embeddings? Shallow probes, as in the HEAR benchmark, on any data set.

python ex_embeddings.py --data recordings --layers embedding block5+block11+block13+block15+mel
python ex_embeddings.py --model_name mn04_distilled --data data/opensounds_hear/tasks/* --random_network --jobs 2

Embeds the clips of each task once, trains probes on every choice of layers, prints the test scores, and writes them to scores.csv
and layers.png. A task is a folder in the layout of a HEAR task (of recordings, or of events in time, which have embeddings at
timestamps), of ESC-50, FSD50K or AudioSet, a folder with one folder per class, or a CSV next to recordings. By default each layer
is probed alone, and the published best combination.

After an interruption the same command resumes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.optim.swa_utils import update_bn

from datasets.csv_table import write_results
from helpers import cli
from helpers.devices import pick_device
from helpers.probing.embedding_cache import embed_clips
from helpers.probing.layer_figure import draw_layers
from helpers.probing.probe import HEAR
from helpers.probing.runs import ProbeRequest, run_probes
from helpers.probing.tasks import ProbeTask, open_task
from models import checkpoints
from models.base import TaggingNetwork
from models.command import printable
from models.config import POOLINGS
from models.embeddings import PUBLISHED_BEST, SCENE_WINDOW, EmbeddingConfig, EmbeddingModel, layer_sizes
from models.errors import UserError
from models.preprocess import AugmentMelSTFT

Kind = tuple[str, str, str]  # network, choice of layers, task

RANDOM = "random"
NORM_CLIPS = 16  # of each data set, from which the batch norms of the random network take their statistics


class Job(NamedTuple):
    network: str  # the model's name, or RANDOM
    layers: str
    task: str
    seed: int


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, metavar="PATH", help="data sets, each of which is a task")
    parser.add_argument("--model_name", default="mn10_as", help="a released or bundled name, or the path of a checkpoint")
    parser.add_argument(
        "--layers", nargs="+", metavar="LAYERS", help="choices to compare, such as mel, block11+mel or 'se*' (models/embeddings.py)"
    )
    parser.add_argument("--pooling", choices=POOLINGS, default=POOLINGS[0], help="how maps of a layer become values")
    parser.add_argument("--random_network", action="store_true", help="also probe the same network with random weights")
    parser.add_argument("--grid_points", type=cli.positive_int, default=HEAR.grid_points, help="configurations of the probe to try")
    parser.add_argument("--seeds", type=cli.positive_int, default=1, help="probes of each kind, seeds 0, 1, ...")
    parser.add_argument("--jobs", type=cli.positive_int, default=1, help="probes that are trained at a time, on one thread each")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/embeddings"), help="folder of results and of the cache")
    parser.add_argument("--num_workers", type=cli.non_negative_int, default=0, help="processes that decode; 0: the main process")
    parser.add_argument("--cuda", action="store_true", help="embed on a CUDA device if there is one")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    network = checkpoints.load_model(args.model_name)
    sizes = layer_sizes(network)
    tasks = {task.name: task for task in (open_task(path, network.mel.sample_rate) for path in args.data)}
    has_frames = network.step_seconds is not None and any(task.events for task in tasks.values())
    choices = dict.fromkeys(args.layers or (["embedding"] if has_frames else [*sizes, "+".join(PUBLISHED_BEST)]))
    layers = {choice: list(EmbeddingConfig(choice, args.pooling).columns(network)) for choice in choices}
    if len(tasks) < len(args.data):
        raise UserError(f"{len(args.data)} tasks are called {', '.join(tasks)}; give folders of different names")
    networks = {args.model_name: network}
    if args.random_network:
        networks[RANDOM] = random_network(network, tasks.values())
    jobs = [Job(*names) for names in product(networks, choices, tasks, range(args.seeds))]
    jobs = [job for job in jobs if job[:2] != (RANDOM, "mel")]  # which does not depend on the weights

    needed = {layer for choice in layers.values() for layer in choice}
    config = EmbeddingConfig([layer for layer in sizes if layer in needed], args.pooling)
    models = {name: EmbeddingModel(one, config).eval().to(pick_device(args.cuda)) for name, one in networks.items()}
    stored = {
        (name, key): [
            embed_clips(model, clips, args.output_dir / "cache", args.num_workers, timestamps=task.events is not None)
            for clips in task.clips
        ]
        for name, model in models.items()
        for key, task in tasks.items()
    }
    protocol = replace(HEAR, grid_points=args.grid_points)
    requests = {
        job: ProbeRequest(stored[job.network, job.task], layers[job.layers], tasks[job.task], job.seed, protocol) for job in jobs
    }
    results = run_probes(requests, args.output_dir / "probes.jsonl", args.jobs)

    scores = {}  # of each seed, by (network, choice, task)
    for job in jobs:
        scores.setdefault(job[:3], []).append(results[job]["score"])
    chances = {name: task.chance() for name, task in tasks.items()}
    write_csv(args.output_dir / "scores.csv", results)
    means = {kind: mean(values) for kind, values in scores.items()}
    draw_layers(args.output_dir / "layers.png", means, chances, list(sizes), RANDOM)
    print_table(scores, tasks, chances)
    print(f"\nresults of each probe: {args.output_dir / 'scores.csv'}; figure: {args.output_dir / 'layers.png'}")
    return 0


def random_network(network: TaggingNetwork, tasks: Iterable[ProbeTask]) -> TaggingNetwork:
    """The same architecture and front end with random weights; batch norms have the statistics of clips of all tasks.

    With the statistics of a fresh network, 0 and 1, signals die out from layer to layer. So other tasks make another network.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        fresh = network.arch.build(network.mel)
    front_end = AugmentMelSTFT.from_config(network.mel).eval()
    parts = [clips for task in tasks for clips in task.clips]
    seconds = round(SCENE_WINDOW * network.mel.sample_rate)
    clips = [clips[int(row)] for clips in parts for row in np.linspace(0, len(clips) - 1, min(NORM_CLIPS, len(clips)))]
    update_bn((front_end(clip.waveform[None, :seconds])[:, None] for clip in clips), fresh)
    return fresh.eval()


def write_csv(path: Path, results: Mapping[Job, Mapping[str, Any]]) -> None:
    rows: list[Sequence[object]] = [[*Job._fields, "score", "folds", "hidden_layers", "lr", "initialisation"]]
    for job, result in results.items():
        folds = " ".join(f"{score:.4f}" for score in result["folds"])
        rows.append([*job, f"{result['score']:.4f}", folds, *result["configuration"].values()])
    write_results(path, rows)


def print_table(scores: Mapping[Kind, Sequence[float]], tasks: Mapping[str, ProbeTask], chances: Mapping[str, float]) -> None:
    """Print a Markdown table: mean over the seeds, and standard deviation if there are several."""
    print(f"| network | layers | {' | '.join(f'{printable(name)} ({task.metric})' for name, task in tasks.items())} | mean |")
    print(f"|---|---|{'---|' * (len(tasks) + 1)}")
    for network, choice in dict.fromkeys(kind[:2] for kind in scores):
        values = [scores[network, choice, task] for task in tasks]
        cells = [f"{mean(v):.3f}" + (f" ± {stdev(v):.3f}" if len(v) > 1 else "") for v in values]
        print(f"| {network} | {choice} | {' | '.join(cells)} | {mean(map(mean, values)):.3f} |")
    print(f"| chance | | {' | '.join(f'{value:.3f}' for value in chances.values())} | {mean(chances.values()):.3f} |")


if __name__ == "__main__":
    cli.run(main)
