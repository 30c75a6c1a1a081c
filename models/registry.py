"""The released checkpoints and the bundled ones: pure data.

Figures are those of the releases (Schmid et al., ICASSP 2023 and TASLP 2024, Morocutti et al., EUSIPCO 2025, and their notes), not
measured here.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

from models.config import Arch, Architecture, DyMNArch, FrameWiseArch, MelConfig

RELEASE_URL = "https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1/"
EFFICIENT_SED_URL = "https://github.com/theMoro/EfficientSED/releases/download/v0.0.1/"
PRETRAINED_SED_URL = "https://github.com/fschmid56/PretrainedSED/releases/download/v0.0.1/"


@dataclass(frozen=True)
class Pretrained:
    """One released weight file and all that is needed to use it."""

    asset: str  # file name below the release address
    arch: Architecture
    mel: MelConfig
    reported_map: float | None = None  # None: not published, or ImageNet weights only, whose classifier is a random initialisation
    size: int | None = None  # bytes of the file, where they are known
    sha256: str | None = None  # of the file, where it is known
    release: str = RELEASE_URL  # address that the file lies below
    reported_psds1: float | None = None  # of a frame-wise network on AudioSet Strong: mean over classes, times 100


def _entry(
    asset: str,
    reported_map: float | None,
    width_mult: float,
    hop_size: int = 320,
    size: int | None = None,
    sha256: str | None = None,
    **arch,
) -> Pretrained:
    network = Arch(width_mult=width_mult, **arch)
    return Pretrained(asset, network, MelConfig(n_mels=network.input_dim_f, hop_size=hop_size), reported_map, size, sha256)


def _dymn(
    asset: str, reported_map: float | None, width_mult: float, temperature: float = 1.0, use_dy_blocks: str = "all"
) -> Pretrained:
    """A dynamic MobileNet, with the temperature at which its weights were trained; the files do not hold it."""
    network = DyMNArch(width_mult=width_mult, T_max=temperature, use_dy_blocks=use_dy_blocks)
    return Pretrained(asset, network, MelConfig(), reported_map)


def _frame_wise(name: str, psds1: float | None, width_mult: float, release: str = EFFICIENT_SED_URL, **arch) -> Pretrained:
    """A frame-wise network, whose file is called as the model is."""
    network = FrameWiseArch(width_mult=width_mult, **arch)
    return Pretrained(f"{name}.pt", network, network.default_mel, release=release, reported_psds1=psds1)


def _weak(name: str, width_mult: float) -> Pretrained:
    """A frame-wise network trained on the clips of AudioSet: only its weak head is of use."""
    return _frame_wise(name, None, width_mult, num_classes=527, trained_heads="weak")


def _strong(name: str, psds1: float, width_mult: float, sequence_model: str = "none", size: int | None = None) -> Pretrained:
    return _frame_wise(name, psds1, width_mult, sequence_model=sequence_model, sequence_size=size)


# fmt: off
PRETRAINED: dict[str, Pretrained] = {
    # trained on ImageNet
    "mn10_im_pytorch": _entry("mn10_im_pytorch.pt", None, 1.0),
    "mn01_im": _entry("mn01_im.pt", None, 0.1),
    "mn02_im": _entry("mn02_im.pt", None, 0.2),
    "mn04_im": _entry("mn04_im.pt", None, 0.4),
    "mn05_im": _entry("mn05_im.pt", None, 0.5),
    "mn10_im": _entry("mn10_im.pt", None, 1.0),
    "mn20_im": _entry("mn20_im.pt", None, 2.0),
    "mn30_im": _entry("mn30_im.pt", None, 3.0),
    "mn40_im": _entry("mn40_im.pt", None, 4.0),
    # trained on AudioSet
    "mn01_as": _entry("mn01_as_mAP_298.pt", 0.298, 0.1),
    "mn02_as": _entry("mn02_as_mAP_378.pt", 0.378, 0.2),
    "mn04_as": _entry(
        "mn04_as_mAP_432.pt", 0.432, 0.4,
        size=4_066_513, sha256="899a8c6217063f6941793102a2780b3dd788ab11fce468d9cf5f0577c453321c",
    ),
    "mn05_as": _entry("mn05_as_mAP_443.pt", 0.443, 0.5),
    "mn10_as": _entry("mn10_as_mAP_471.pt", 0.471, 1.0),
    "mn20_as": _entry("mn20_as_mAP_478.pt", 0.478, 2.0),
    "mn30_as": _entry("mn30_as_mAP_482.pt", 0.482, 3.0),
    "mn40_as": _entry("mn40_as_mAP_484.pt", 0.484, 4.0),
    "mn40_as(2)": _entry("mn40_as_mAP_483.pt", 0.483, 4.0),
    "mn40_as(3)": _entry("mn40_as_mAP_483(2).pt", 0.483, 4.0),
    "mn40_as_no_im_pre": _entry("mn40_as_no_im_pre_mAP_483.pt", 0.483, 4.0),
    "mn40_as_no_im_pre(2)": _entry("mn40_as_no_im_pre_mAP_483(2).pt", 0.483, 4.0),
    "mn40_as_no_im_pre(3)": _entry("mn40_as_no_im_pre_mAP_482.pt", 0.482, 4.0),
    "mn40_as_ext": _entry("mn40_as_ext_mAP_487.pt", 0.487, 4.0),
    "mn40_as_ext(2)": _entry("mn40_as_ext_mAP_486.pt", 0.486, 4.0),
    "mn40_as_ext(3)": _entry("mn40_as_ext_mAP_485.pt", 0.485, 4.0),
    # time and frequency resolution
    "mn10_as_hop_5": _entry("mn10_as_hop_5_mAP_475.pt", 0.475, 1.0, hop_size=160),
    "mn10_as_hop_15": _entry("mn10_as_hop_15_mAP_463.pt", 0.463, 1.0, hop_size=480),
    "mn10_as_hop_20": _entry("mn10_as_hop_20_mAP_456.pt", 0.456, 1.0, hop_size=640),
    "mn10_as_hop_25": _entry("mn10_as_hop_25_mAP_447.pt", 0.447, 1.0, hop_size=800),
    "mn10_as_mels_40": _entry("mn10_as_mels_40_mAP_453.pt", 0.453, 1.0, input_dim_f=40),
    "mn10_as_mels_64": _entry("mn10_as_mels_64_mAP_461.pt", 0.461, 1.0, input_dim_f=64),
    "mn10_as_mels_256": _entry("mn10_as_mels_256_mAP_474.pt", 0.474, 1.0, input_dim_f=256),
    # fully convolutional head, smaller receptive field
    "mn10_as_fc": _entry("mn10_as_fc_mAP_465.pt", 0.465, 1.0, head_type="fully_convolutional"),
    "mn10_as_fc_s2221": _entry("mn10_as_fc_s2221_mAP_466.pt", 0.466, 1.0, head_type="fully_convolutional", strides=(2, 2, 2, 1)),
    "mn10_as_fc_s2211": _entry("mn10_as_fc_s2211_mAP_466.pt", 0.466, 1.0, head_type="fully_convolutional", strides=(2, 2, 1, 1)),
    # dynamic MobileNets, trained on ImageNet
    "dymn04_im": _dymn("dymn04_im.pt", None, 0.4, temperature=30.0),
    "dymn10_im": _dymn("dymn10_im.pt", None, 1.0, temperature=30.0),
    "dymn20_im": _dymn("dymn20_im.pt", None, 2.0, temperature=30.0),
    # dynamic MobileNets, trained on AudioSet
    "dymn04_as": _dymn("dymn04_as.pt", 0.450, 0.4),
    "dymn10_as": _dymn("dymn10_as.pt", 0.477, 1.0),
    "dymn20_as": _dymn("dymn20_as_mAP_493.pt", 0.493, 2.0),
    "dymn20_as(1)": _dymn("dymn20_as.pt", 0.491, 2.0),
    "dymn20_as(2)": _dymn("dymn20_as_mAP_489.pt", 0.489, 2.0),
    "dymn20_as(3)": _dymn("dymn20_as_mAP_490.pt", 0.490, 2.0),
    "dymn04_replace_se_as": _dymn("dymn04_replace_se_as.pt", None, 0.4, use_dy_blocks="replace_se"),
    "dymn10_replace_se_as": _dymn("dymn10_replace_se_as.pt", None, 1.0, use_dy_blocks="replace_se"),
    # frame-wise MobileNets, trained on AudioSet, with labels of clips
    "fmn04_weak": _weak("fmn04_weak", 0.4),
    "fmn06_weak": _weak("fmn06_weak", 0.6),
    "fmn10_weak": _weak("fmn10_weak", 1.0),
    "fmn20_weak": _weak("fmn20_weak", 2.0),
    "fmn30_weak": _weak("fmn30_weak", 3.0),
    # and on AudioSet Strong, with labels in time
    "fmn04_strong": _strong("fmn04_strong", 39.52, 0.4),
    "fmn06_strong": _strong("fmn06_strong", 40.75, 0.6),
    "fmn10_strong": _strong("fmn10_strong", 42.28, 1.0),
    "fmn20_strong": _strong("fmn20_strong", 43.86, 2.0),
    "fmn30_strong": _strong("fmn30_strong", 44.24, 3.0),
    "fmn10+tf-128_strong": _strong("fmn10+tf-128_strong", 42.75, 1.0, "tf", 128),
    "fmn10+tf-256_strong": _strong("fmn10+tf-256_strong", 43.86, 1.0, "tf", 256),
    "fmn10+tf-512_strong": _strong("fmn10+tf-512_strong", 44.11, 1.0, "tf", 512),
    "fmn10+tf-1024_strong": _strong("fmn10+tf-1024_strong", 44.55, 1.0, "tf", 1024),
    "fmn10+hybrid-128_strong": _strong("fmn10+hybrid-128_strong", 43.45, 1.0, "hybrid", 128),
    "fmn10+hybrid-256_strong": _strong("fmn10+hybrid-256_strong", 44.05, 1.0, "hybrid", 256),
    "fmn10+hybrid-512_strong": _strong("fmn10+hybrid-512_strong", 44.32, 1.0, "hybrid", 512),
    "fmn10+hybrid-1024_strong": _strong("fmn10+hybrid-1024_strong", 44.48, 1.0, "hybrid", 1024),
    "fmn10+gru-128_strong": _strong("fmn10+gru-128_strong", 43.13, 1.0, "gru", 128),
    "fmn10+gru-256_strong": _strong("fmn10+gru-256_strong", 43.53, 1.0, "gru", 256),
    "fmn10+gru-512_strong": _strong("fmn10+gru-512_strong", 43.96, 1.0, "gru", 512),
    "fmn10+gru-1024_strong": _strong("fmn10+gru-1024_strong", 44.50, 1.0, "gru", 1024),
    "fmn04+tf-104_strong": _strong("fmn04+tf-104_strong", 40.10, 0.4, "tf", 104),
    "fmn04+hybrid-104_strong": _strong("fmn04+hybrid-104_strong", 41.37, 0.4, "hybrid", 104),
    "fmn04+gru-104_strong": _strong("fmn04+gru-104_strong", 40.81, 0.4, "gru", 104),
    "fmn06+tf-160_strong": _strong("fmn06+tf-160_strong", 41.78, 0.6, "tf", 160),
    "fmn06+hybrid-160_strong": _strong("fmn06+hybrid-160_strong", 42.54, 0.6, "hybrid", 160),
    "fmn06+gru-160_strong": _strong("fmn06+gru-160_strong", 40.37, 0.6, "gru", 160),
    "fmn20+tf-512_strong": _strong("fmn20+tf-512_strong", 45.13, 2.0, "tf", 512),
    "fmn20+hybrid-512_strong": _strong("fmn20+hybrid-512_strong", 45.44, 2.0, "hybrid", 512),
    "fmn20+gru-512_strong": _strong("fmn20+gru-512_strong", 44.94, 2.0, "gru", 512),
    "fmn30+tf-768_strong": _strong("fmn30+tf-768_strong", 45.64, 3.0, "tf", 768),
    "fmn30+hybrid-768_strong": _strong("fmn30+hybrid-768_strong", 45.67, 3.0, "hybrid", 768),
    "fmn30+gru-768_strong": _strong("fmn30+gru-768_strong", 45.77, 3.0, "gru", 768),
    "fmn10+tf-256_advanced-kd-weak-strong": _strong("fmn10+tf-256_advanced-kd-weak-strong", 45.25, 1.0, "tf", 256),
    "frame_mn06_strong_1": _frame_wise("frame_mn06_strong_1", 40.81, 0.6, PRETRAINED_SED_URL),
    "frame_mn10_strong_1": _frame_wise("frame_mn10_strong_1", 43.26, 1.0, PRETRAINED_SED_URL),
}
# fmt: on

# the published ensemble: the mean of the logits of these
ENSEMBLE: tuple[str, ...] = (
    "mn40_as", "mn40_as(2)", "mn40_as(3)", "mn40_as_no_im_pre", "mn40_as_no_im_pre(2)", "mn40_as_no_im_pre(3)",
    "mn40_as_ext", "mn40_as_ext(2)", "mn40_as_ext(3)",
)  # fmt: skip
ENSEMBLE_MAP = 0.498

# trained here on open recordings, kept in resources/ next to the code; the file holds the whole configuration
BUNDLED: dict[str, str] = {"mn04_distilled": "mn04_distilled.pt", "fmn04_soundscapes": "fmn04_soundscapes.pt"}


def full_name(name: str) -> str:
    """Return the name of a model that may leave out how it was trained, "fmn10" for "fmn10_strong"; any other as it is."""
    return next((name + end for end in ("_strong", "_strong_1") if name + end in PRETRAINED), name)


def list_models(pattern: str = "*") -> list[str]:
    """Return the names of released and bundled models that match a pattern, such as "mn10_as*"."""
    return fnmatch.filter([*PRETRAINED, *BUNDLED], pattern)
