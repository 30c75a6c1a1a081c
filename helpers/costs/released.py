"""Costs of released models: parameters, MACs, size of the embedding, receptive field, peak memory; what was published."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from helpers.costs.activation_memory import peak_memory
from helpers.costs.macs import COUNTED_LAYERS, meta_network, parameter_count, spectrogram_shape, trace
from helpers.costs.receptive_field import receptive_field
from models.config import Architecture, MelConfig
from models.network import MobileNetV3
from models.registry import ENSEMBLE, ENSEMBLE_MAP, PRETRAINED

_PUBLISHED = Path(__file__).resolve().parents[2] / "resources" / "published_models.tsv"


@dataclass(frozen=True)
class ModelCosts:
    """Costs for a clip of 10 seconds, exact; peak memory in kB (1000 bytes) at 16 bits per activation.

    An ensemble's members run one after the other: parameters, MACs and embeddings add up, memory is the largest member's.
    """

    name: str
    params: int
    macs: int
    embedding_size: int
    receptive_field: int  # frames
    peak_kb: float
    efficient_peak_kb: float | None  # of memory-efficient inference, where the family has it
    published_map: float | None
    published_psds1: float | None = None  # of a frame-wise network

    def exact(self) -> dict[str, object]:
        """Return a row of a table, nothing rounded."""
        return asdict(self)

    def rounded(self) -> dict[str, object]:
        """Return a row of a table with the digits of the published one."""
        return {
            "name": self.name,
            "params (M)": f"{self.params / 1e6:.2f}",
            "MACs (G)": f"{self.macs / 1e9:.2f}",
            "embedding": self.embedding_size,
            "receptive field (frames)": self.receptive_field,
            "peak memory (kB)": f"{self.peak_kb:.0f}",
            "memory-efficient (kB)": None if self.efficient_peak_kb is None else f"{self.efficient_peak_kb:.0f}",
            "published mAP": None if self.published_map is None else f"{self.published_map:.3f}",
            "published PSDS1": None if self.published_psds1 is None else f"{self.published_psds1:.2f}",
        }


@dataclass(frozen=True)
class PublishedModel:
    """A model from the literature and its paper; None where the paper has no figure, see the notes of the table."""

    name: str
    family: str
    mAP: float
    params: float | None
    macs: float | None
    peak_kb: float | None
    source: str


def model_costs(name: str, arch: Architecture, mel: MelConfig, published_map: float | None = None) -> ModelCosts:
    """Compute the costs of a model; no weights are needed."""
    network = meta_network(arch, mel)
    calls = trace(network, spectrogram_shape(network), COUNTED_LAYERS)
    return ModelCosts(
        name,
        parameter_count(network),
        sum(call.macs for call in calls),
        network.embedding_size,
        receptive_field(network).frames,
        peak_memory(network, calls=calls).peak_kb,
        peak_memory(network, memory_efficient=True, calls=calls).peak_kb if isinstance(network, MobileNetV3) else None,
        published_map,
    )


def ensemble_costs(name: str, members: Sequence[ModelCosts], published_map: float | None = None) -> ModelCosts:
    """Add up the costs of an ensemble's members."""
    sums = (sum(getattr(member, field) for member in members) for field in ("params", "macs", "embedding_size"))
    largest = (max(getattr(member, field) for member in members) for field in ("receptive_field", "peak_kb", "efficient_peak_kb"))
    return ModelCosts(name, *sums, *largest, published_map)


def released_costs() -> tuple[list[ModelCosts], ModelCosts]:
    """Return the costs of every released model, and those of the published ensemble."""
    counted: dict[tuple[Architecture, MelConfig], ModelCosts] = {}
    rows = []
    for name, entry in PRETRAINED.items():
        configuration = (entry.arch, entry.mel)
        if configuration not in counted:
            counted[configuration] = model_costs(name, *configuration)
        rows.append(
            replace(counted[configuration], name=name, published_map=entry.reported_map, published_psds1=entry.reported_psds1)
        )
    members = [row for row in rows if row.name in ENSEMBLE]
    return rows, ensemble_costs(f"ensemble of {len(members)}", members, ENSEMBLE_MAP)


def sum_of_rounded(members: Sequence[ModelCosts]) -> dict[str, str]:
    """Add up the members' rounded parameters and MACs, which is how the published table has its ensemble."""
    rows = [member.rounded() for member in members]
    return {column: f"{sum(float(row[column]) for row in rows):.2f}" for column in ("params (M)", "MACs (G)")}


def published_models() -> list[PublishedModel]:
    """Read the models of other groups from resources/published_models.tsv."""
    models = []
    with open(_PUBLISHED, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            params, macs, peak_kb = (float(row[column]) if row[column] else None for column in ("params", "MACs", "peak_kB"))
            models.append(PublishedModel(row["model"], row["family"], float(row["mAP"]), params, macs, peak_kb, row["source"]))
    return models
