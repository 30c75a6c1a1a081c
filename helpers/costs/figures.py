"""Figures of what networks cost, drawn without a display. Importing this imports matplotlib: scripts do so only to draw one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.costs.activation_memory import MemoryReport
from helpers.costs.receptive_field import SHARE, EffectiveField, FieldReport
from helpers.costs.released import ModelCosts, PublishedModel
from models.config import MelConfig
from models.files import write_atomically
from models.registry import PRETRAINED

KINDS = {
    "widths 0.1 to 4": ("o", "-"),
    "dynamic, widths 0.4 to 2": ("d", "-"),
    "hops and mel bands at width 1": ("s", ""),
    "convolutional head, strides": ("^", ""),
}
GREYS = ("0.8", "0.35")
MARKERS = ("D", "o")


def memory_figure(analytic: Mapping[str, MemoryReport], measured: Mapping[str, MemoryReport], title: str, path: Path) -> None:
    """Draw a bar for each block and variant of inference, and a marker for its measured memory."""
    blocks = list(dict.fromkeys(part for report in analytic.values() for row in report.rows for part in row.block.split(" and ")))
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(analytic)
    for number, (variant, report) in enumerate(analytic.items()):
        shift = (number - (len(analytic) - 1) / 2) * width
        places = [blocks.index(name.split(" and ")[-1]) + shift for name in report.blocks]
        sizes = [report.kilobytes(row.elements) for row in report.blocks.values()]
        label = f"{variant}: {report.peak_kb:.0f} kB"
        axes.bar(places, sizes, width, color=GREYS[number % 2], edgecolor="black", linewidth=0.6, label=label)
        if variant in measured:
            sizes = [measured[variant].kilobytes(measured[variant].blocks[name].elements) for name in report.blocks]
            label = f"{variant}, measured: {measured[variant].peak_kb:.0f} kB"
            axes.plot(places, sizes, MARKERS[number % 2], color="black", markersize=4, markerfacecolor="white", label=label)
    names = {"features.0": "stem", "in_c": "stem", "out_c": "last", "classifier": "head"}
    names |= {f"layers.{number}": f"{number + 1}" for number in range(len(blocks))}  # of a DyMN, counted without the stem
    axes.set_xticks(range(len(blocks)), [names.get(block, block.removeprefix("features.")) for block in blocks])
    axes.set_xlabel("block of the network (memory-efficient: stem and block 1 are one)")
    axes.set_ylabel("activations in memory, kB")
    axes.set_title(title, fontsize=10)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def receptive_field_figure(fields: Mapping[str, tuple[FieldReport, EffectiveField]], path: Path) -> None:
    """Draw a panel for each network: the share of the gradient in each frame, and both receptive fields as spans."""
    figure = Figure(figsize=(9, 1.2 + 1.75 * len(fields)), layout="constrained")
    panels = figure.subplots(len(fields), 2, sharex="col", squeeze=False, width_ratios=[2, 1])
    for (profile, image), (name, (report, effective)) in zip(panels, fields.items(), strict=True):
        time = [frame - effective.middle for frame in range(len(effective.profile))]
        peak = effective.profile.max().item()
        profile.fill_between(time, (effective.profile / peak).tolist(), color="0.6", linewidth=0)
        first, last = (frame - effective.middle for frame in effective.span)
        reach = report.frames // 2
        for height, start, end, label in (
            (0.8, -reach, reach, "receptive field"), (0.5, first, last, f"{SHARE:.0%} of the gradient"),
        ):  # fmt: skip
            profile.plot([start, end], [height, height], "|-", color="black", markersize=9, linewidth=1)
            text = f"{label}: {end - start + 1} frames"
            profile.annotate(text, (end, height), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8)
        profile.set_title(name, loc="left", fontsize=9)
        profile.set_yticks([])
        profile.set_xlim(time[0], time[-1] + 150)  # room for the annotations
        profile.spines[["top", "right", "left"]].set_visible(False)
        magnitude = effective.gradient / effective.gradient.max()
        image.imshow(
            magnitude.clamp_min(1e-4).log10().numpy(), origin="lower", aspect="auto", cmap="gray_r", vmin=-4, vmax=0,
            extent=(time[0] - 0.5, time[-1] + 0.5, -0.5, len(magnitude) - 0.5),
        )  # fmt: skip
        image.set_ylabel("mel band", fontsize=8)
    panels[0][1].set_title("magnitude, black: largest, white: 1/10000", loc="left", fontsize=9)
    for axes in panels[-1]:
        axes.set_xlabel("frames from the position itself")
    figure.suptitle("Gradient of a position in the middle of the last feature map, over time and mel bands", fontsize=10)
    _save(figure, path)


def cost_figure(
    ours: Sequence[ModelCosts], seconds: Mapping[tuple[str, str], float], others: Sequence[PublishedModel], path: Path
) -> None:
    """Draw the published mAP against parameters, MACs, peak memory and measured time, each on a logarithmic axis.

    `seconds` maps (name of a model, variant of inference) to its time.
    """
    figure = Figure(figsize=(10, 8.5), layout="constrained")
    (params, macs), (memory, time) = figure.subplots(2, 2, sharey=True)
    _draw_costs(params, "parameters, millions", ours, {"ours": [row.params / 1e6 for row in ours]})
    _draw_costs(macs, "multiply-accumulates for 10 s, billions", ours, {"ours": [row.macs / 1e9 for row in ours]})
    peaks = {"plain": [row.peak_kb for row in ours], "memory-efficient": [row.efficient_peak_kb for row in ours]}
    _draw_costs(memory, "peak memory of activations at 16 bits, kB", ours, peaks)
    variants = list(dict.fromkeys(variant for _, variant in seconds))
    times = {variant: [1000 * seconds[row.name, variant] for row in ours] for variant in variants}
    _draw_costs(time, "measured time for 10 s on a CPU, ms (ours only)", ours, times)
    for axes, values in (
        (params, [other.params and other.params / 1e6 for other in others]),
        (macs, [other.macs and other.macs / 1e9 for other in others]),
        (memory, [other.peak_kb for other in others]),
    ):
        known = [(x, other.mAP, other.name) for x, other in zip(values, others, strict=True) if x is not None]
        axes.plot([x for x, _, _ in known], [y for _, y, _ in known], "x", color="black", label="others, from their papers")
        _annotate(axes, known)
    for axes in (params, memory):
        axes.set_ylabel("mAP on AudioSet (published)")
    for axes in (params, macs, memory, time):
        axes.legend(loc="lower right", frameon=False, fontsize=8)
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        low, high = axes.get_xlim()
        axes.set_xlim(low, 5 * high)  # room for the annotations
    _save(figure, path)


def _draw_costs(axes: Axes, quantity: str, ours: Sequence[ModelCosts], variants: Mapping[str, Sequence[float]]) -> None:
    """Draw our models, those of full resolution as a line over widths, in one grey for each variant."""
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(quantity)
    for (variant, values), face in zip(variants.items(), ("0.55", "white"), strict=False):
        for kind, (marker, line) in KINDS.items():
            points = [(x, row.published_map) for x, row in zip(values, ours, strict=True) if _kind(row.name) == kind]
            label = kind if len(variants) == 1 else variant if line else None
            axes.plot(
                [x for x, _ in points], [y for _, y in points], marker=marker, linestyle=line, color="black", linewidth=0.8,
                markerfacecolor=face, markersize=6, label=label,
            )  # fmt: skip


def _annotate(axes: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Annotate the points: to the right, or where another point is there, to the left."""
    for x, y, name in points:
        in_the_way = any(1 <= other_x / x < 6 and abs(other_y - y) < 0.004 for other_x, other_y, other in points if other != name)
        shift, anchor = (-6, "right") if in_the_way else (6, "left")
        axes.annotate(name, (x, y), xytext=(shift, 0), textcoords="offset points", va="center", ha=anchor, fontsize=8)


def _kind(name: str) -> str:
    arch, mel = PRETRAINED[name].arch, PRETRAINED[name].mel
    if arch.family == "dymn":
        return "dynamic, widths 0.4 to 2"
    if arch.head_type != "mlp":
        return "convolutional head, strides"
    return "widths 0.1 to 4" if mel == MelConfig() else "hops and mel bands at width 1"


def _save(figure: Figure, path: Path) -> None:
    write_atomically(path, lambda file: figure.savefig(file, format=path.suffix[1:].lower(), dpi=120))
