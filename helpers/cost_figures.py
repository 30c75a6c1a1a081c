"""Figures of what networks cost, drawn without a display. Importing this imports matplotlib: scripts do it when asked for one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from helpers.activation_memory import MemoryReport
from helpers.receptive_field import SHARE, EffectiveField, FieldReport
from models.assets import write_atomically

GREYS = ("0.8", "0.35")
MARKERS = ("D", "o")


def memory_figure(analytic: Mapping[str, MemoryReport], measured: Mapping[str, MemoryReport], title: str, path: Path) -> None:
    """Draw a bar for each block and way of inference, and a marker for what was measured of it."""
    blocks = list(dict.fromkeys(part for report in analytic.values() for row in report.rows for part in row.block.split(" and ")))
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(analytic)
    for number, (way, report) in enumerate(analytic.items()):
        shift = (number - (len(analytic) - 1) / 2) * width
        places = [blocks.index(name.split(" and ")[-1]) + shift for name in report.blocks]
        sizes = [report.kilobytes(row.elements) for row in report.blocks.values()]
        label = f"{way}: {report.peak_kb:.0f} kB"
        axes.bar(places, sizes, width, color=GREYS[number % 2], edgecolor="black", linewidth=0.6, label=label)
        if way in measured:
            took = [measured[way].kilobytes(measured[way].blocks[name].elements) for name in report.blocks]
            label = f"{way}, measured: {measured[way].peak_kb:.0f} kB"
            axes.plot(places, took, MARKERS[number % 2], color="black", markersize=4, markerfacecolor="white", label=label)
    axes.set_xticks(range(len(blocks)), [_short(block) for block in blocks])
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
        profile.set_xlim(time[0], time[-1] + 150)  # room for what is lettered
        profile.spines[["top", "right", "left"]].set_visible(False)
        magnitude = effective.gradient / effective.gradient.max()
        image.imshow(
            magnitude.clamp_min(1e-4).log10(), origin="lower", aspect="auto", cmap="gray_r", vmin=-4, vmax=0,
            extent=(time[0] - 0.5, time[-1] + 0.5, -0.5, len(magnitude) - 0.5),
        )  # fmt: skip
        image.set_ylabel("mel band", fontsize=8)
    panels[0][1].set_title("magnitude, black: largest, white: 1/10000", loc="left", fontsize=9)
    for axes in panels[-1]:
        axes.set_xlabel("frames from the position itself")
    figure.suptitle("Gradient of a position in the middle of the last feature map, over time and mel bands", fontsize=10)
    _save(figure, path)


def _short(block: str) -> str:
    return {"features.0": "stem", "classifier": "head"}.get(block, block.removeprefix("features."))


def _save(figure: Figure, path: Path) -> None:
    write_atomically(path, lambda file: figure.savefig(file, format=path.suffix[1:].lower(), dpi=120))
