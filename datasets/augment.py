"""Augmentation of waveforms: circular shift, gain, and mixing of two clips.

All random numbers come from torch generators (the default one where none is given), so torch.manual_seed determines them.
"""

import torch
from torch.utils.data import Dataset

from datasets.clip import Clip, DistillationClip, FrameClip
from models.errors import UserError

AnyClip = Clip | DistillationClip | FrameClip
WAVMIX_RATE = 0.5  # share of the clips that are mixed with another one


def roll(waveform: torch.Tensor, max_shift: int, generator: torch.Generator | None = None) -> torch.Tensor:
    """Shift (..., samples) in a circle by a whole number of samples drawn from [-max_shift, max_shift]."""
    shift = torch.randint(-max_shift, max_shift + 1, (), generator=generator)
    return waveform.roll(int(shift), dims=-1)


def gain(waveform: torch.Tensor, max_db: float, generator: torch.Generator | None = None) -> torch.Tensor:
    """Amplify (..., samples) by a number of dB drawn uniformly from [-max_db, max_db]. The result is not clipped."""
    decibel = (2 * torch.rand((), generator=generator) - 1) * max_db
    return waveform * 10 ** (decibel / 20)


class Augmented(Dataset):
    """A data set whose clips are augmented, differently each time; length, names and targets are the data set's own.

    In this order:
    1. `gain_db`: every clip, also one that is mixed in, by up to +-`gain_db` dB.
    2. `wavmix`: half of the clips become lam * clip + (1 - lam) * another, drawn uniformly. Both are made zero-mean.
       lam is l or 1 - l, whichever is larger, with l from Beta(2, 2): the clip that was asked for, whose name and index
       are kept, stays the louder one. Targets and soft targets are mixed with the same lam. All clips must have one
       length.
    3. `roll`: a circular shift by up to +-`roll` samples; not of a `FrameClip`, whose target does not move.
    """

    def __init__(self, clips: Dataset[AnyClip], *, roll: int = 0, gain_db: float = 0, wavmix: bool = False) -> None:
        """Wrap any data set of `Clip`; zero and False switch an augmentation off. ValueError for negative options."""
        if roll < 0 or gain_db < 0:
            raise UserError(f"roll is {roll} samples and gain_db {gain_db} dB; both must be 0 (off) or more")
        self.clips = clips
        self.roll = roll
        self.gain_db = gain_db
        self.wavmix = wavmix

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> AnyClip:
        clip = self._get(index)
        if self.wavmix and torch.rand(()) < WAVMIX_RATE:
            clip = _mix(clip, self._get(int(torch.randint(len(self.clips), ()))))
        if self.roll:
            clip = clip._replace(waveform=roll(clip.waveform, self.roll))
        return clip

    def _get(self, index: int) -> AnyClip:
        clip = self.clips[index]
        return clip._replace(waveform=gain(clip.waveform, self.gain_db)) if self.gain_db else clip


def _mix(clip: AnyClip, other: AnyClip) -> AnyClip:
    if clip.waveform.shape != other.waveform.shape:
        raise UserError(
            f"wavmix needs clips of one length; {clip.name} has {len(clip.waveform)} samples, {other.name} "
            f"{len(other.waveform)}: give the data set a clip length"
        )
    beta = torch.rand(3).median()  # the middle one of three uniform numbers is distributed as Beta(2, 2)
    lam = torch.maximum(beta, 1 - beta)
    waveform = torch.lerp(other.waveform, clip.waveform, lam)
    waveform -= waveform.mean()  # as if both had been made zero-mean before
    mixed = clip._replace(waveform=waveform)
    if isinstance(clip, FrameClip):
        weights = clip.target_weight, other.target_weight
        target, weight = _mix_weighted(lam, (clip.target, other.target), weights)
        clip_target, _ = _mix_weighted(lam, (clip.clip_target, other.clip_target), tuple(1 - w for w in weights))
        mixed = mixed._replace(target=target, target_weight=weight, clip_target=clip_target)
    else:
        mixed = mixed._replace(target=torch.lerp(other.target, clip.target, lam))
    if isinstance(clip, Clip):
        return mixed
    weights = clip.soft_target_weight, other.soft_target_weight
    soft_target, weight = _mix_weighted(lam, (clip.soft_target, other.soft_target), weights)
    return mixed._replace(soft_target=soft_target, soft_target_weight=weight)


def _mix_weighted(
    lam: torch.Tensor, targets: tuple[torch.Tensor, torch.Tensor], weights: tuple[torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix the targets of two clips of which one or both may weigh 0; return the mixed target and its weight.

    Binary cross entropy is affine in its target. So the mean of both clips' losses, 0 for a clip without a target, is the loss on
    the weighted mean of the targets, times the sum of the weights.
    """
    shares = torch.stack([lam * weights[0], (1 - lam) * weights[1]])
    weight = shares.sum()
    return (shares[0] * targets[0] + shares[1] * targets[1]) / weight.clamp(min=1e-12), weight
