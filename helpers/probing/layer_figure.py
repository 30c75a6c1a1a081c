"""The figure of a layer study: scores of probes over the layer that they are trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from statistics import mean

from models.command import printable
from models.files import write_atomically

KINDS = {"block": ("output of a block", "o-"), "se": ("bottleneck of squeeze-and-excitation", "s--"), "": ("head", "D:")}


def draw_layers(
    path: Path, scores: Mapping[tuple[str, str, str], float], chances: Mapping[str, float], layers: Sequence[str], random: str
) -> None:
    """Draw a panel for the mean over the tasks and one for each task.

    `scores` are by network, choice of layers and task, `chances` by task, `layers` all single layers in the order of computation.
    The network called `random` is drawn hollow; choices of several layers, and mel, are horizontal lines.
    """
    from matplotlib.figure import Figure

    tasks = list(chances)
    choices = {choice: None for _, choice, _ in scores}
    singles = [layer for layer in layers if layer in choices and layer != "mel"]
    kinds = {layer: next(kind for kind in KINDS if layer.startswith(kind)) for layer in singles}
    panels = {task: [task] for task in tasks}
    if len(tasks) > 1:
        panels = {f"mean over {len(tasks)} tasks": tasks} | panels
    rows = -(-len(panels) // 2)
    figure = Figure(figsize=(13 if len(panels) > 1 else 8, 0.6 + 3.6 * rows), layout="constrained")
    grid = figure.subplots(rows, min(2, len(panels)), squeeze=False)
    for axes, (title, names) in zip(grid.flat, panels.items(), strict=False):

        def value(network: str, choice: str, names: list[str] = names) -> float:
            return mean(scores[network, choice, task] for task in names)

        for network in dict.fromkeys(network for network, _, _ in scores):
            is_random = network == random
            for kind, (meaning, style) in KINDS.items():
                own = [layer for layer in singles if kinds[layer] == kind]
                axes.plot(
                    [singles.index(layer) for layer in own],
                    [value(network, layer) for layer in own],
                    style,
                    color="0.55" if is_random else {"block": "C0", "se": "C1", "": "C2"}[kind],
                    markerfacecolor="white" if is_random else None,
                    label=f"{meaning}, {'random weights' if is_random else network}",
                )
            for choice, line in zip(
                (choice for choice in choices if choice not in singles), cycle(("--", "-.", ":", "-")), strict=False
            ):
                if (network, choice, names[0]) in scores:
                    text = "log-mel average" if choice == "mel" else f"{choice}, random weights" if is_random else choice
                    axes.axhline(
                        value(network, choice), linestyle=line, color="0.6" if is_random else "black", linewidth=1, label=text
                    )
        axes.axhline(mean(chances[task] for task in names), color="0.8", linewidth=3, zorder=0, label="chance")
        axes.set_title(printable(title), loc="left", parse_math=False)
        axes.set_xticks(range(len(singles)), singles, rotation=90, fontsize=8)
        axes.set_ylabel("score")
        axes.grid(alpha=0.3)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    if len(panels) % 2 == 0 or len(panels) == 1:
        grid.flat[0].legend(fontsize=7)
    else:
        grid.flat[-1].legend(*grid.flat[0].get_legend_handles_labels(), loc="center", frameon=False)
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=110))
