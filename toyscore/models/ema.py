r"""An exponential moving average of weights, as a wrapper that is itself a score function.

After step t every weight of the average moves by :math:`1 - d_t` towards the live one, with :math:`d_t = \min(d, (1 + t) /
(10 + t))`: early on the average forgets fast, so that it is not held back by the initial weights. song2020, Sec. 3.4, found that it
takes the sudden changes of colour out of samples of NCSN; they use d = 0.999.
"""

from __future__ import annotations

import copy
from typing import Any, Self

import torch
from torch import Tensor, nn

from toyscore.operators import Sigma


class EMA(nn.Module):
    """``model`` is trained, ``average`` follows it, and calling the wrapper calls the average.

    ``train.fit`` knows the wrapper: it takes gradients of ``model`` and calls :meth:`update` after each step. The average is never
    trained, and so stays in evaluation mode: without dropout, and with batch norm's running means.

    Args:
        model: a score network.
        decay: d, the share that stays at each step, in [0, 1).

    Raises:
        TypeError: model is no network. ValueError: decay outside [0, 1).
    """

    n_updates: Tensor

    def __init__(self, model: nn.Module, decay: float = 0.999) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise TypeError(
                f"model is {type(model).__name__}: it must be a torch.nn.Module; pass e.g. toyscore.models.MLP()"
            )
        if not 0 <= decay < 1:
            raise ValueError(f"decay = {decay}: it must be in [0, 1); pass e.g. decay=0.999")
        self.model = model
        self.average = copy.deepcopy(model).requires_grad_(False).eval()
        self.decay = decay
        device = next((p.device for p in model.parameters()), None)
        self.register_buffer("n_updates", torch.zeros((), dtype=torch.int64, device=device))

    def forward(self, x: Tensor, sigma: Sigma = 0.0, *args: Any, **kwargs: Any) -> Tensor:
        """The average network's score, for x [B, *event] and ``sigma`` float | 0-d | [B] -> like x; labels and more are passed on."""
        return self.average(x, sigma, *args, **kwargs)

    def train(self, mode: bool = True) -> Self:
        """Put ``model`` in training or evaluation mode; the average stays in the latter."""
        super().train(mode)
        self.average.eval()
        return self

    @torch.no_grad()
    def update(self) -> None:
        """Move the average a step towards the live weights; buffers are copied. Source: song2020, Technique 5."""
        self.n_updates += 1
        t = int(self.n_updates)
        share = 1 - min(self.decay, (1 + t) / (10 + t))
        live, average = ([p.data for p in m.parameters()] for m in (self.model, self.average))
        torch._foreach_lerp_(average, live, share)
        kept = dict(self.average.named_buffers())
        for name, value in self.model.named_buffers():
            if name in kept and kept[name].shape == value.shape:  # others are caches, made where they are used
                kept[name].copy_(value)
