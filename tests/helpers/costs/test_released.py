from __future__ import annotations

from itertools import pairwise

import pytest

from helpers.costs.released import ensemble_costs, model_costs, published_models, sum_of_rounded
from models.config import Arch, MelConfig
from models.registry import ENSEMBLE, PRETRAINED


def test_costs_of_a_model() -> None:
    row = model_costs("small", Arch(width_mult=0.1), MelConfig(), 0.298)
    assert (row.params, row.macs, row.embedding_size, row.receptive_field) == (123783, 18147487, 96, 595)
    assert (row.peak_kb, row.efficient_peak_kb) == (1536, 896)
    assert list(row.rounded().values()) == ["small", "0.12", "0.02", 96, 595, "1536", "896", "0.298", None]


def test_an_ensemble_adds_up_but_its_memory_does_not() -> None:
    small, large = (model_costs(str(width), Arch(width_mult=width), MelConfig()) for width in (0.1, 1.0))
    both = ensemble_costs("both", [small, large])
    assert (both.params, both.macs) == (123783 + 4876831, 18147487 + 541085095)
    assert (both.embedding_size, both.peak_kb, both.efficient_peak_kb) == (96 + 960, 5120, 2048)
    assert sum_of_rounded([small, large]) == {"params (M)": "5.00", "MACs (G)": "0.56"}


def test_the_published_ensemble_is_of_nine_of_width_4() -> None:
    assert len(set(ENSEMBLE)) == 9 and all(PRETRAINED[name].arch == Arch(width_mult=4.0) for name in ENSEMBLE)


def convolutions(channels: list[int], frames: int, bands: int) -> tuple[float, int]:
    """MACs and parameters of PANNs' pairs of 3 x 3 convolutions with norms, pooling in between, and two layers behind."""
    macs = params = 0
    for before, after in pairwise(channels):
        weights = 9 * (before * after + after * after)
        macs += weights * frames * bands
        params += weights + 4 * after
        frames, bands = frames // 2, bands // 2
    last = channels[-1]
    head = (last + 1) * last + (last + 1) * 527
    return macs + head, params + head + 2 * 64  # and the norm of 64 bands


def transformer(tokens: int, positions: int) -> tuple[float, int]:
    """MACs and parameters of a ViT-B with patches of 16 x 16: 12 blocks of width 768; two class tokens."""
    weights, biases, norms, patch = 12 * 12 * 768**2, 12 * 9 * 768, 12 * 4 * 768, 256 * 768 + 768
    head, learned = 2 * 768 + 769 * 527, (2 + positions) * 768
    macs = tokens * (weights + biases) + (tokens - 2) * patch
    return macs, weights + biases + norms + patch + learned + 1536 + head


def test_figures_of_other_models_agree_with_their_architectures() -> None:
    """An independent count; PANNs' published operations hold the front end, a Fourier transform by convolution."""
    models = {model.name: model for model in published_models()}
    front_end = 1001 * (2 * 513 * 1024 + 513 * 64)
    for name, channels in (("CNN10", [1, 64, 128, 256, 512]), ("CNN14", [1, 64, 128, 256, 512, 1024, 2048])):
        macs, params = convolutions(channels, 1001, 64)
        assert models[name].params == params
        assert models[name].macs == pytest.approx(macs + front_end, rel=0.01)
    assert models["CNN14"].peak_kb == 2 * 64 * 1001 * 64 * 2 / 1000
    for name, tokens, positions in (("AST", 1214, 1214), ("PaSST-S", 1190, 12 + 99 + 2)):
        macs, params = transformer(tokens, positions)
        assert models[name].macs == pytest.approx(macs, rel=1e-3)
        assert models[name].params == pytest.approx(params, rel=0.006)


def test_every_row_of_other_models_names_its_source() -> None:
    models = published_models()
    assert {model.family for model in models} == {"PANNs", "PSLA", "AST", "PaSST", "HTS-AT", "ERANN"}
    assert all(model.source and 0.3 < model.mAP < 0.5 for model in models)
