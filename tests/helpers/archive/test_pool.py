"""How many workers share the cores and GPUs that Ray finds."""

from __future__ import annotations

import pytest

from helpers.archive.pool import Resources, _pool
from models.errors import UserError


@pytest.mark.parametrize(
    ("given", "found", "expected"),
    [
        ({}, {"CPU": 4.0}, (4, 4, 1)),
        ({"networks": 1}, {"CPU": 4.0}, (4, 1, 4)),
        ({"decoders": 2, "networks": 2}, {"CPU": 1.0}, (2, 2, 1)),
        ({"gpus_per_network": 0.5}, {"CPU": 4.0, "GPU": 2.0}, (4, 4, 1)),
        ({"gpus_per_network": 0.4}, {"CPU": 4.0, "GPU": 2.0}, (4, 4, 1)),  # a network is on one GPU
        ({"gpus_per_network": 2.0}, {"CPU": 4.0, "GPU": 5.0}, (4, 2, 1)),
    ],
)
def test_workers_fit(given: dict[str, float], found: dict[str, float], expected: tuple[int, int, int]) -> None:
    pool = _pool(Resources(**given), found)
    assert (pool.decoders, pool.networks, pool.threads) == expected


@pytest.mark.parametrize(
    "given", [{"decoders": 99}, {"networks": 99}, {"gpus_per_network": 0.01}, {"gpus_per_network": 1.5}, {"gpus_per_network": 4.0}]
)
def test_workers_that_find_no_room_are_refused(given: dict[str, float]) -> None:
    with pytest.raises(UserError):
        _pool(Resources(**given), {"CPU": 4.0, "GPU": 2.0})
