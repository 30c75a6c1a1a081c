import pytest
import torch
from torch.utils.data import DataLoader, Dataset, RandomSampler, WeightedRandomSampler

from datasets.audio import AudioError
from helpers.seeding import derive_seed
from helpers.training.sampling import ClipDraw, SeededClips, TrainingBatches


class Noise(Dataset):
    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.cat([torch.tensor([float(index)]), torch.rand(2)])


def batches(**options) -> TrainingBatches:
    return TrainingBatches(RandomSampler(range(40)), 8, **({"seed": 3} | options))


def drawn(epoch: int = 0, step: int = 0, **options) -> list[list[ClipDraw]]:
    sampler = batches(**options)
    sampler.start(epoch, step)
    return list(sampler)


def test_an_epoch_is_a_function_of_its_seed_and_number() -> None:
    assert drawn(epoch=2) == drawn(epoch=2)
    assert drawn(epoch=2) != drawn(epoch=1) and drawn(epoch=2) != drawn(epoch=2, seed=4)
    draws = sum(drawn(), [])
    assert sorted(draw.index for draw in draws) == list(range(40))
    assert len({draw.seed for draw in draws}) == 40


def test_an_epoch_resumes_where_it_stopped() -> None:
    assert drawn(step=2) == drawn()[2:]
    sampler = batches(accumulate=2)
    sampler.start(0, step=2)
    assert len(sampler) == len(list(sampler)) == 6


@pytest.mark.parametrize(("world_size", "accumulate"), [(1, 1), (1, 4), (2, 1), (2, 2), (4, 1), (4, 2)])
def test_ranks_and_micro_batches_share_an_epoch_without_repeats(world_size: int, accumulate: int) -> None:
    shares = [drawn(epoch=1, rank=rank, world_size=world_size, accumulate=accumulate) for rank in range(world_size)]
    steps = []
    for step in range(5):
        micro_batches = [batch for share in shares for batch in share[step * accumulate : (step + 1) * accumulate]]
        assert {len(batch) for batch in micro_batches} == {8 // (world_size * accumulate)}
        steps.append(sum(micro_batches, []))
    assert steps == drawn(epoch=1)


def test_the_forward_pass_has_the_randomness_of_its_micro_batch_on_any_rank() -> None:
    def forward(step: int, number: int, **options) -> float:
        sampler = batches(**options)
        sampler.start(1)
        sampler.seed_micro_batch(step, number)
        return torch.rand(()).item()

    assert forward(3, 1, accumulate=2) == forward(3, 0, world_size=2, rank=1)
    assert len({forward(step, number, accumulate=2) for step in (0, 1) for number in (0, 1)}) == 4


@pytest.mark.parametrize("workers", [1, 2])
def test_augmentation_does_not_depend_on_the_workers_and_leaves_torchs_state_alone(workers: int) -> None:
    def loaded(num_workers: int) -> torch.Tensor:
        return torch.cat(list(DataLoader(SeededClips(Noise()), batch_sampler=batches(), num_workers=num_workers)))

    state = torch.random.get_rng_state()
    SeededClips(Noise())[ClipDraw(0, 1)]
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(loaded(0), loaded(workers))
    assert not torch.equal(SeededClips(Noise())[ClipDraw(0, 1)], SeededClips(Noise())[ClipDraw(0, 2)])


def test_weighted_sampling_without_replacement_follows_its_weights() -> None:
    weights = torch.tensor([4.0] * 10 + [1.0] * 30)
    sampler = TrainingBatches(WeightedRandomSampler(weights, 8, replacement=False), 8, seed=0)
    counts = torch.zeros(40)
    for epoch in range(2000):
        sampler.start(epoch)
        indices = [draw.index for part in sampler for draw in part]
        assert len(set(indices)) == 8
        counts[indices] += 1
    # Drawn one by one, each in proportion to the weights that are left: 4.215 of 8 are of the heavy ten.
    assert counts[:10].sum().item() / 2000 == pytest.approx(4.215, rel=0.02)


@pytest.mark.parametrize(("options", "size"), [({"accumulate": 3}, 8), ({"world_size": 16}, 8), ({}, 41)])
def test_batches_that_cannot_be_cut_or_filled_are_refused(options: dict, size: int) -> None:
    with pytest.raises(ValueError):
        TrainingBatches(RandomSampler(range(40)), size, seed=0, **options)


class Partly(Noise):
    """Every other recording cannot be decoded."""

    def __getitem__(self, index: int) -> torch.Tensor:
        if index % 2:
            raise AudioError(f"clip {index} is damaged")
        return super().__getitem__(index)


def test_another_clip_replaces_one_that_cannot_be_decoded(caplog: pytest.LogCaptureFixture) -> None:
    clips = SeededClips(Partly())
    first, again, other = (clips[ClipDraw(7, seed)] for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first[0] % 2 == 0 and "clip 7" in caplog.text


def test_when_nothing_can_be_decoded_that_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Noise, "__getitem__", lambda self, index: Partly()[1])
    with pytest.raises(AudioError):
        SeededClips(Noise())[ClipDraw(0, 0)]


def test_seeds_differ() -> None:
    assert len({derive_seed(a, b) for a in range(30) for b in range(30)}) == 900
