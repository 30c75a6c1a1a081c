from __future__ import annotations

import pytest
import torch

from helpers.tagger.padded import forward_padded, groups_of_similar_length, takes_padding
from models.config import Arch
from models.MobileNetV3 import get_model
from models.network import MobileNetV3


@pytest.mark.parametrize("options", [{}, {"head_type": "fully_convolutional", "se_dims": "none"}, {"dilated": True}])
def test_padded_clips_are_computed_as_if_they_were_alone(options: dict) -> None:
    torch.manual_seed(0)
    network = MobileNetV3(Arch(width_mult=0.1, input_dim_f=32, num_classes=5, **options)).eval()
    assert takes_padding(network)
    for module in network.modules():  # norms that make something of zeros
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.bias)
            torch.nn.init.normal_(module.running_mean)
    lengths = [21, 64, 37, 100]
    clips = [torch.randn(1, 1, 32, length) for length in lengths]
    batch = torch.full((4, 1, 32, 100), 7.0)
    for row, clip in zip(batch, clips, strict=True):
        row[..., : clip.shape[3]] = clip[0]
    with torch.no_grad():
        logits, embeddings = forward_padded(network, batch, lengths)
        for number, clip in enumerate(clips):
            expected_logits, expected_embedding = network(clip)
            torch.testing.assert_close(logits[number], expected_logits[0], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(embeddings[number], expected_embedding[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("options", [{"se_dims": "f"}, {"head_type": "multihead_attention_pooling"}, {"num_classes": 0}])
def test_other_networks_take_no_padding(options: dict) -> None:
    assert not takes_padding(get_model(width_mult=0.1, **options))


def test_no_clip_of_a_group_is_more_than_twice_as_long_as_another() -> None:
    assert groups_of_similar_length([10, 3, 21, 5, 6, 20]) == [[1, 3, 4], [0, 5], [2]]
    assert groups_of_similar_length([]) == []
