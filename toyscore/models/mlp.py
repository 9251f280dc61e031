r"""A small fully connected score network, with its tangents carried by hand.

Unconditional (``sigmas=None``) it is the network of the paper's toy: linear layers with softplus between, a map from
x to s that ignores sigma. Given noise levels it is conditional, with the three scalings that keep every layer's numbers
near one at every level:

.. math:: s(x, \sigma) = \frac{1}{\sigma}\, f\!\left(\frac{x}{\sqrt{\sigma^2 + v}},\ \phi(\log \sigma)\right),

where v is the data's variance and :math:`\phi` holds the position u of :math:`\log \sigma` in the range of the levels,
scaled to [-1, 1] (less where they span under a factor e), and :math:`\sin, \cos` of its first multiples. It is
continuous in sigma; the levels fix the range only, which is kept with the weights.

``jvp`` pushes tangents through the layers beside the values, a matrix product per layer. Values and parameter gradients
are those of autograd; the exact trace of a 2-D score costs one forward and one backward pass over a threefold batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from toyscore import operators as ops
from toyscore.models import conditioning
from toyscore.models.conditioning import sigma_features
from toyscore.operators import Sigma

_FREQUENCIES = 4


class MLP(nn.Module):
    """``depth`` hidden layers of ``width`` softplus units; ``forward(x, sigma)`` is a score function.

    >>> import torch
    >>> from toyscore.models import MLP
    >>> network = MLP(dim=2)
    >>> network(torch.zeros(3, 2), 0.5).shape  # a score for each point
    torch.Size([3, 2])
    >>> sum(w.numel() for w in network.parameters())  # 3*128 + 129*128 + 129*2
    17154

    Args:
        dim: D, numbers in an event.
        width: units per hidden layer.
        depth: hidden layers; the default is the paper's 2-128-128-2.
        sigmas: levels [L] whose range the network is to cover, in units of x; None ignores sigma.
        data_variance: the data's variance per coordinate, in units of x squared; scales the input where sigmas are given.

    Raises:
        ValueError: a size below one; levels not positive; data_variance not positive.
    """

    log_range: Tensor | None
    data_variance: Tensor | None

    def __init__(
        self,
        dim: int = 2,
        width: int = 128,
        depth: int = 2,
        sigmas: Tensor | Sequence[float] | None = None,
        *,
        data_variance: float = 1.0,
    ) -> None:
        super().__init__()
        for value, name in ((dim, "dim"), (width, "width"), (depth, "depth")):
            ops.check_count(value, name)
        ops.check_positive(data_variance, "data_variance")
        self.dim = dim
        log_range, variance = None, None  # kept with the weights, so that a checkpoint cannot forget them
        if sigmas is not None:
            log_range = conditioning.log_range(sigmas)
            variance = torch.tensor(float(data_variance))
        self.register_buffer("log_range", log_range)
        self.register_buffer("data_variance", variance)
        inputs = dim if sigmas is None else dim + 1 + 2 * _FREQUENCIES
        sizes = [inputs, *[width] * depth, dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, x: Tensor, sigma: Sigma = 0.0) -> Tensor:
        """The score at ``x`` [B, *event] with D numbers in an event, for ``sigma`` float | 0-d | [B] -> like x."""
        h, _, out_factor = self._inputs(x, sigma)
        *hidden, last = self._linears
        for layer in hidden:
            h = functional.softplus(layer(h))
        return (last(h) * out_factor).view(x.shape)

    def jvp(self, x: Tensor, sigma: Sigma, tangents: Tensor) -> tuple[Tensor, Tensor]:
        """The score [B, *event] and its Jacobian times each of ``tangents`` [n, B, *event] -> [n, B, *event]."""
        h, in_factor, out_factor = self._inputs(x, sigma)
        if not isinstance(tangents, Tensor) or tangents.dtype != x.dtype:
            kind = tangents.dtype if isinstance(tangents, Tensor) else type(tangents).__name__
            raise TypeError(f"tangents is {kind}: it must be a tensor of {x.dtype}, as x is; convert it")
        if tangents.shape[1:] != x.shape or not len(tangents):
            raise ValueError(
                f"tangents has shape {list(tangents.shape)}: it must be [n, {', '.join(map(str, x.shape))}]; stack them"
            )
        t = tangents.reshape(len(tangents), len(x), -1) * in_factor
        *hidden, last = self._linears
        for layer in hidden:
            a = layer(h)
            weight = layer.weight[:, : t.shape[2]]  # the first layer also sees features of sigma
            t = torch.sigmoid(a) * (t @ weight.t())
            h = functional.softplus(a)
        return (last(h) * out_factor).view(x.shape), (t @ last.weight.t() * out_factor).view(tangents.shape)

    @property
    def _linears(self) -> list[nn.Linear]:
        return cast("list[nn.Linear]", list(self.layers))

    def _inputs(self, x: Tensor, sigma: Sigma) -> tuple[Tensor, Sigma, Sigma]:
        """What enters the first layer [B, inputs], and the factors of x there and of the last layer's output."""
        mixed = isinstance(x, Tensor) and torch.is_autocast_enabled(x.device.type)
        flat = ops.check_event(x, self.dim, x if mixed else self._linears[0].weight, "the network")
        if self.log_range is None or self.data_variance is None:
            return flat, 1.0, 1.0
        std, features = sigma_features(sigma, flat, self.log_range, _FREQUENCIES)
        in_factor = (std * std + self.data_variance).rsqrt()
        return torch.cat([flat * in_factor, features], 1), in_factor, 1 / std
