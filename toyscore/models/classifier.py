r"""A classifier that is told the noise level, to steer a score by.

Its logits are :math:`f(x / \sqrt{\sigma^2 + v}, \phi(\log \sigma))`, with the data's mean taken off and v its variance, as in :class:`MLP`:
so it works at every level between the ends. Where noise drowns the data it learns to answer with the shares of the classes.
Fully connected: for toys and small images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from toyscore import operators as ops
from toyscore.models import conditioning
from toyscore.operators import Sigma

_FREQUENCIES = 4


class NoiseClassifier(nn.Module):
    """``forward(x, sigma)`` -> logits [B, K] of noisy x; trained by ``losses.noisy_cross_entropy``. Source: dhariwal2021, Sec. 4.

    Args:
        event: shape of an example, e.g. (2,) or (1, 8, 8).
        n_classes: K.
        sigmas: any numbers whose range it is to cover, in units of x.
        width, depth: units per hidden layer, and how many of those.
        data_mean: of all numbers. data_variance: v, of all numbers.

    Raises:
        ValueError: a size below one, K below two; levels or data_variance not positive; data_mean not finite.
    """

    log_range: Tensor
    data_mean: Tensor
    data_variance: Tensor

    def __init__(
        self,
        event: Sequence[int],
        n_classes: int,
        sigmas: Tensor | Sequence[float],
        *,
        width: int = 256,
        depth: int = 2,
        data_mean: float = 0.0,
        data_variance: float = 1.0,
    ) -> None:
        super().__init__()
        for value, name, least in ((n_classes, "n_classes", 2), (width, "width", 1), (depth, "depth", 1)):
            ops.check_count(value, name, least)
        ops.check_positive(data_variance, "data_variance")
        if not math.isfinite(data_mean):
            raise ValueError(f"data_mean = {data_mean}: it must be finite; pass the mean of all numbers")
        self.event = tuple(event)
        self.register_buffer("log_range", conditioning.log_range(sigmas))
        self.register_buffer("data_mean", torch.tensor(float(data_mean)))
        self.register_buffer("data_variance", torch.tensor(float(data_variance)))
        sizes = [math.prod(self.event) + 1 + 2 * _FREQUENCIES, *[width] * depth, n_classes]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, x: Tensor, sigma: Sigma) -> Tensor:
        """Logits [B, K] for ``x`` [B, *event], also flattened, and ``sigma`` float | 0-d | [B], positive.

        Raises:
            TypeError, ValueError: x of another event or dtype; a bad sigma.
        """
        flat = ops.check_event(x, math.prod(self.event), next(self.parameters()), "the classifier")
        std, features = conditioning.sigma_features(sigma, flat, self.log_range, _FREQUENCIES)
        h = torch.cat([(flat - self.data_mean) * (std * std + self.data_variance).rsqrt(), features], 1)
        *hidden, last = self.layers
        for layer in hidden:
            h = functional.silu(layer(h))
        return last(h)
