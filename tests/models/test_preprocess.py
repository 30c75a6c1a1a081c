"""The log-mel front end against an independent float64 formula and the plain one, and SpecAugment's promises."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from models import preprocess
from models.config import MelConfig
from models.preprocess import AugmentMelSTFT, mel_filterbank
from tests.log_mel import kaldi_bank, reference

SILENCE = (math.log(1e-5) + 4.5) / 5  # -1.40259


@pytest.mark.parametrize(
    "config",
    [
        MelConfig(),
        MelConfig(hop_size=480, n_mels=64),
        MelConfig(n_mels=256),
        MelConfig(fmin=120.0, fmax=14000.0),
        MelConfig(64, 16000, 400, 160, 512),
    ],
    ids=repr,
)
def test_against_an_independent_formula(config):
    noise = np.random.default_rng(3).standard_normal((2, 24000)).astype(np.float32) * 0.1
    noise[1] *= np.linspace(0, 1, 24000, dtype=np.float32)
    result = AugmentMelSTFT.from_config(config).eval()(torch.from_numpy(noise))
    assert result.dtype == torch.float32
    for row, waveform in zip(result.numpy(), noise, strict=True):
        expected = reference(waveform, config)
        assert row.shape == expected.shape
        assert np.abs(row - expected).max() <= 2e-4


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("samples", [514, 1601, 81920, 81921, 82241])  # 2, 6, 256, 257 and 258 frames: a block has 256
def test_lengths_and_batches(samples, batch, training):
    noise = np.random.default_rng(samples).standard_normal((batch, samples)).astype(np.float32) * 0.2
    mel = AugmentMelSTFT(n_mels=64, freqm=0, timem=0, fmin_aug_range=1, fmax_aug_range=1, fmax=15000.0).train(training)
    result = mel(torch.from_numpy(noise)).numpy()
    expected = np.stack([reference(waveform, mel.config) for waveform in noise])
    assert result.shape == expected.shape and np.abs(result - expected).max() <= 2e-4


def plain_log_mel(x: torch.Tensor, config: MelConfig) -> torch.Tensor:
    """The textbook's way, (B, samples) -> (B, n_mels, frames), in PyTorch: what training computes."""
    window = torch.hann_window(config.win_length, periodic=False)
    x = x[:, 1:] - 0.97 * x[:, :-1]
    spectrum = torch.stft(x, config.n_fft, config.hop_size, config.win_length, window, pad_mode="reflect", return_complex=True)
    bank = mel_filterbank(config.n_mels, config.n_fft, config.sample_rate, config.fmin, config.fmax)
    return (torch.log(bank @ (spectrum.real.square() + spectrum.imag.square()) + 1e-5) + 4.5) / 5


@pytest.mark.parametrize("training", [True, False])
def test_where_a_gradient_is_asked_for_nothing_differs_from_the_plain_formula(training):
    mel = AugmentMelSTFT(freqm=0, timem=0, fmin_aug_range=1, fmax_aug_range=1, fmax=15000.0).train(training)
    x = (torch.randn(2, 9000) * 0.1).requires_grad_()
    expected = plain_log_mel(x, mel.config)
    assert torch.equal(mel(x), expected)
    assert torch.equal(*(torch.autograd.grad(y.square().sum(), x)[0] for y in (mel(x), expected)))


def test_waveforms_of_any_layout_are_left_as_they_were():
    mel = AugmentMelSTFT().eval()
    x = torch.randn(2, 16000)
    expected = mel(x)
    spread = torch.zeros(16000, 4)
    spread[:, :2] = x.T  # neither axis is contiguous
    untouched = spread.clone()
    assert torch.equal(mel(spread.T[:2]), expected)
    assert torch.equal(spread, untouched)
    assert torch.equal(mel(x[1:].expand(3, -1)), expected[1:].expand(3, -1, -1))


def test_a_clips_result_does_not_depend_on_its_batch():
    mel = AugmentMelSTFT().eval()
    x = torch.randn(3, 50000)
    assert torch.equal(mel(x), torch.cat([mel(clip[None]) for clip in x]))


def test_nothing_but_the_frames_that_meet_a_bad_sample_is_bad():
    x = torch.randn(2, 32000)
    x[1, 16000] = math.nan
    mel = AugmentMelSTFT().eval()
    torch.testing.assert_close(mel(x), plain_log_mel(x, mel.config), rtol=0, atol=2e-4, equal_nan=True)


def test_a_band_that_no_bin_meets_is_silent():
    mel = AugmentMelSTFT(n_mels=3500).eval()  # all of the first group lie between two bins
    x = torch.randn(1, 4000)
    empty = ~mel_filterbank(3500, 1024, 32000, 0.0, 15000.0).any(1)
    assert empty[:32].all() and mel(x)[:, empty].numpy() == pytest.approx(SILENCE, abs=1e-5)
    torch.testing.assert_close(mel(x), plain_log_mel(x, mel.config), rtol=0, atol=2e-4)


def test_an_exported_front_end_takes_other_lengths_and_batches():
    mel = AugmentMelSTFT().eval()
    x = torch.randn(3, 51200)
    expected = mel(x)
    dynamic = {"x": {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}}
    exported = torch.export.export(mel, (torch.randn(2, 32000),), dynamic_shapes=dynamic).module()
    torch.testing.assert_close(exported(x), expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize(
    ("n_mels", "n_fft", "sample_rate", "fmin", "fmax"),
    [
        (128, 1024, 32000, 0, 15000),
        (40, 1024, 32000, 9, 16000),
        (256, 1024, 32000, 3, 14001),
        (64, 512, 16000, 50, 7800),
    ],
)
def test_filterbank_is_kaldis(n_mels, n_fft, sample_rate, fmin, fmax):
    bank = mel_filterbank(n_mels, n_fft, sample_rate, fmin, fmax)
    assert bank.shape == (n_mels, n_fft // 2 + 1) and bank.dtype == torch.float32
    assert not bank[:, -1].any()
    np.testing.assert_allclose(bank.numpy(), kaldi_bank(n_mels, n_fft, sample_rate, fmin, fmax), atol=2e-4)


@pytest.mark.parametrize("training", [True, False])
def test_silence(training):
    mel = AugmentMelSTFT(freqm=0, timem=0).train(training)
    result = mel(torch.zeros(2, 32000))
    assert result.numpy() == pytest.approx(SILENCE, abs=1e-5)
    assert pytest.approx(-1.40259, abs=1e-5) == SILENCE


@pytest.mark.parametrize("hop_size", [160, 320, 480, 800])
def test_frame_count_is_the_configurations(hop_size):
    config = MelConfig(hop_size=hop_size)
    mel = AugmentMelSTFT.from_config(config).eval()
    lengths = [1, 512, 513, 514, 800, 960, 961, 1600, 1601, 31999, 32000, 32001]
    for samples in lengths:
        result = mel(torch.rand(1, samples) - 0.5)
        assert result.shape == (1, 128, config.frames(samples)), samples
        assert torch.isfinite(result).all()


def test_short_clips_are_padded_with_zeros_at_their_end():
    mel = AugmentMelSTFT().eval()
    x = torch.randn(1, 100)
    padded = torch.nn.functional.pad(x, (0, mel.config.min_samples - 100))
    torch.testing.assert_close(mel(x), mel(padded))


@pytest.mark.parametrize(
    "wrong",
    [
        torch.zeros(32000),
        torch.zeros(1, 1, 32000),
        torch.zeros(2, 0),
        torch.zeros(1, 32000, dtype=torch.int16),
        torch.zeros(1, 32000, dtype=torch.complex64),
    ],
    ids=lambda x: f"{x.dtype} {tuple(x.shape)}",
)
def test_bad_input_is_a_value_error(wrong):
    with pytest.raises(ValueError):
        AugmentMelSTFT().eval()(wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"freqm": -1},
        {"timem": -1},
        {"fmin_aug_range": 0},
        {"fmax_aug_range": 0},
    ],
    ids=str,
)
def test_bad_arguments_are_value_errors(wrong):
    with pytest.raises(ValueError):
        AugmentMelSTFT(**wrong)


def test_fmax_when_not_given():
    assert AugmentMelSTFT().config.fmax == 15000
    assert AugmentMelSTFT(fmax_aug_range=1000).config.fmax == 15500
    assert AugmentMelSTFT(sr=16000, fmax_aug_range=1).config.fmax == 8000
    assert AugmentMelSTFT(fmax=14000.0, fmax_aug_range=1000).config.fmax == 14000


def test_from_config_keeps_the_configuration():
    config = MelConfig(64, 16000, 400, 160, 512, 50.0, 7800.0)
    mel = AugmentMelSTFT.from_config(config, freqm=3, timem=4, fmin_aug_range=5, fmax_aug_range=6)
    assert mel.config == config
    assert (mel.freqm, mel.timem, mel.fmin_aug_range, mel.fmax_aug_range) == (3, 4, 5, 6)


@pytest.mark.parametrize("training", [True, False])
def test_float32_under_autocast_and_after_half(training):
    x = torch.randn(2, 16000)
    mel = AugmentMelSTFT(freqm=8, timem=8).train(training)
    torch.manual_seed(5)
    plain = mel(x)
    torch.manual_seed(5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = mel(x)
    torch.manual_seed(5)
    after_half = mel.half()(x)
    for result in (under_autocast, after_half):
        assert result.dtype == torch.float32
        assert torch.equal(result, plain)


def test_full_scale_sine_is_finite_also_for_half_precision_waveforms():
    t = torch.arange(32000, dtype=torch.float64) / 32000
    x = torch.sin(2 * math.pi * 8000 * t)[None]
    mel = AugmentMelSTFT().half().eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = mel(x.float())
    assert np.abs(result[0].numpy() - reference(x[0].float().numpy(), MelConfig())).max() <= 2e-4
    assert result.max() * 5 - 4.5 > math.log(65504)  # the power is beyond float16
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert mel(x.to(dtype)).dtype == torch.float32
        assert torch.isfinite(mel(x.to(dtype))).all()


def test_evaluation_is_deterministic_and_builds_the_filterbank_once(monkeypatch):
    built = []
    monkeypatch.setattr(preprocess, "mel_filterbank", lambda *args: built.append(args) or mel_filterbank(*args))
    mel = AugmentMelSTFT().eval()
    x = torch.randn(2, 8000)
    state = torch.get_rng_state()
    first = mel(x)
    assert all(torch.equal(first, mel(x)) for _ in range(3))
    assert torch.equal(state, torch.get_rng_state())
    assert len(built) == 1


def test_evaluation_after_training_is_evaluation():
    mel = AugmentMelSTFT()
    x = torch.randn(1, 8000)
    expected = AugmentMelSTFT().eval()(x)
    mel.train()(x)
    assert torch.equal(mel.eval()(x), expected)
    mel.train()
    assert not torch.equal(mel(x), mel(x))
    assert torch.equal(mel.eval()(x), expected)


def test_waveform_can_be_differentiated_after_use_in_inference_mode():
    mel = AugmentMelSTFT().eval()
    with torch.inference_mode():
        mel(torch.randn(1, 2000))
    x = torch.randn(1, 2000, requires_grad=True)
    mel(x).sum().backward()
    assert x.grad.abs().sum() > 0


# training mode


def masked_runs(freqm: int, timem: int, calls: int, n_mels: int = 40) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each example of many training calls, the masked bands and frames; band edges stand still.

    The mask is known apart because a masked log-mel is 0, which becomes 0.9.
    """
    mel = AugmentMelSTFT(n_mels=n_mels, freqm=freqm, timem=timem, fmin_aug_range=1, fmax_aug_range=1, fmax=15000.0).train()
    x = torch.randn(4, 8000) * 0.1  # 25 frames
    plain = plain_log_mel(x, mel.config)
    runs = []
    for _ in range(calls):
        result = mel(x)
        masked = (result - 0.9).abs() < 1e-6
        assert torch.equal(result[~masked], plain[~masked])
        for example in masked.numpy():
            bands, frames = example.all(1), example.all(0)
            assert (example == (bands[:, None] | frames[None, :])).all()  # nothing but whole bands and whole frames
            runs.append((np.flatnonzero(bands), np.flatnonzero(frames)))
    return runs


@pytest.mark.parametrize(("freqm", "timem"), [(8, 10), (3, 0), (0, 5), (1, 1)])
def test_masks_are_single_runs_of_limited_width(freqm, timem):
    runs = masked_runs(freqm, timem, calls=100)
    for axis, limit in ((0, freqm), (1, timem)):
        widths = {len(run[axis]) for run in runs}
        assert max(widths) <= limit
        assert all(len(run[axis]) == 0 or np.ptp(run[axis]) + 1 == len(run[axis]) for run in runs)
        if limit > 2:  # widths vary from none to nearly the limit, positions over the whole axis
            assert min(widths) == 0 and max(widths) >= limit - 1
            covered = set(np.concatenate([run[axis] for run in runs]).tolist())
            assert len(covered) >= (40, 25)[axis] - 2  # the very last place is out of reach, as in torchaudio's masking


def test_masks_are_independent_for_each_example():
    runs = masked_runs(12, 12, calls=20)
    examples = [[(tuple(bands), tuple(frames)) for bands, frames in runs[i : i + 4]] for i in range(0, len(runs), 4)]
    assert sum(len(set(masks)) == 4 for masks in examples) >= 15  # the 4 examples of nearly every call differ
    assert len({masks[0] for masks in examples}) >= 15  # and so do calls


def test_masks_wider_than_the_spectrogram_are_cut_to_it():
    runs = masked_runs(1000, 1000, calls=20)
    assert max(len(bands) for bands, _ in runs) <= 40 and max(len(frames) for _, frames in runs) <= 25


def drawn_edges(monkeypatch: pytest.MonkeyPatch, calls: int, **arguments) -> tuple[np.ndarray, np.ndarray]:
    """fmin and fmax of the filterbank in each of many training calls."""
    edges = []

    def record(n_mels, n_fft, sample_rate, fmin, fmax, device):
        edges.append((fmin, fmax))
        return torch.ones(n_mels, n_fft // 2 + 1)

    monkeypatch.setattr(preprocess, "mel_filterbank", record)
    mel = AugmentMelSTFT(n_mels=2, freqm=0, timem=0, **arguments).train()
    for _ in range(calls):
        mel(torch.zeros(1, 1))
    assert len(edges) == calls
    return tuple(np.array(edges, dtype=float).T)


def test_band_edges_are_drawn_from_the_documented_ranges(monkeypatch):
    fmin, fmax = drawn_edges(monkeypatch, 800)
    assert set(fmin) == set(range(10))  # missing one of ten in 800 draws: 1e-36
    assert fmax.min() >= 14001 and fmax.max() <= 16000
    assert fmax.min() < 14050 and fmax.max() > 15950
    assert (fmax == fmax.round()).all()
    assert abs(fmin.mean() - 4.5) < 0.5 and abs(fmax.mean() - 15000.5) < 100  # 5 standard errors
    assert abs(np.corrcoef(fmin, fmax)[0, 1]) < 0.2


def test_band_edge_ranges_follow_the_arguments(monkeypatch):
    fmin, fmax = drawn_edges(monkeypatch, 200, fmin=50.0, fmax=14000.0, fmin_aug_range=3, fmax_aug_range=5)
    assert set(fmin) == {50, 51, 52}
    assert set(fmax) == {14002, 14001, 14000, 13999, 13998}


@pytest.mark.parametrize("arguments", [{"fmax": 500.0}, {"fmin": 14500.0, "fmin_aug_range": 1000}], ids=str)
def test_edges_that_cross_are_refused(arguments, monkeypatch):
    with pytest.raises(ValueError, match="crossed"):
        drawn_edges(monkeypatch, 200, **arguments)
