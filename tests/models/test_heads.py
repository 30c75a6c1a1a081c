"""Heads against second implementations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from models.heads import MultiHeadAttentionPooling, fully_convolutional_head, mlp_head


@pytest.mark.parametrize(("batch", "classes", "heads", "frames"), [(2, 5, 4, 7), (1, 1, 1, 1), (3, 2, 3, 1), (1, 6, 2, 9)])
def test_attention_pooling(batch, classes, heads, frames):
    head = MultiHeadAttentionPooling(6, classes, heads)
    for parameter in head.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(batch, 6, 4, frames)
    with torch.no_grad():
        result = head(x).numpy()

    weight, bias = (p.detach().double().numpy() for p in (head.subspace_proj.weight, head.subspace_proj.bias))
    head_weight = head.head_weight.detach().double().numpy().ravel()
    expected = np.zeros((batch, classes))
    for b in range(batch):
        projected = np.einsum("oc,ct->ot", weight, x[b].double().numpy().mean(1)) + bias[:, None]  # (2 * H * K, T)
        attention, value = projected[: heads * classes], projected[heads * classes :]
        attention = np.clip(1 / (1 + np.exp(-attention)), 1e-7, 1 - 1e-7)
        for h in range(heads):
            for k in range(classes):
                row = h * classes + k
                share = attention[row] / attention[row].sum()
                expected[b, k] += head_weight[h] * (share * value[row]).sum()
    assert result.shape == (batch, classes)
    np.testing.assert_allclose(result, expected, atol=1e-4)


def test_attention_pooling_survives_saturated_attention():
    head = MultiHeadAttentionPooling(2, 3, 2)
    nn.init.constant_(head.subspace_proj.weight, -1e4)
    x = torch.ones(1, 2, 2, 5, requires_grad=True)
    result = head(x)
    result.sum().backward()
    assert torch.isfinite(result).all() and torch.isfinite(x.grad).all()


def test_attention_heads_start_with_equal_weight():
    assert MultiHeadAttentionPooling(4, 2, 5).head_weight.detach().ravel().tolist() == pytest.approx([0.2] * 5)


def test_mlp_head():
    head = mlp_head(6, 8, 3).eval()
    x = torch.randn(2, 6, 4, 5)
    with torch.no_grad():
        result = head(x.clone()).double().numpy()
        w1, b1, w2, b2 = (p.double().numpy() for p in head.parameters())
    hidden = x.double().numpy().mean((2, 3)) @ w1.T + b1
    hidden = hidden * np.clip(hidden + 3, 0, 6) / 6
    np.testing.assert_allclose(result, hidden @ w2.T + b2, atol=1e-5)
    assert [module.p for module in head if isinstance(module, nn.Dropout)] == [0.2]


def test_fully_convolutional_head():
    head = fully_convolutional_head(6, 3)
    with torch.no_grad():
        for tensor in head.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
    norm = next(module for module in head if isinstance(module, nn.BatchNorm2d))
    assert (norm.eps, norm.momentum) == (1e-5, 0.1)
    x = torch.randn(2, 6, 4, 5)
    with torch.no_grad():
        result = head.eval()(x).numpy()
    maps = np.einsum("kc,bcft->bkft", head[0].weight.detach().double().numpy()[:, :, 0, 0], x.double().numpy())
    mean, variance, scale, shift = (
        tensor.detach().double().numpy()[None, :, None, None]
        for tensor in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    maps = (maps - mean) / np.sqrt(variance + 1e-5) * scale + shift
    np.testing.assert_allclose(result, maps.mean((2, 3)), atol=1e-4)
    assert head[0].bias is None
