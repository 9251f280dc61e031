r"""Score networks for images: NCSN of 2019, a compact one, and one continuous in sigma.

All take x [B, C, H, W] with data in [0, 1] and are score functions; inside they see the data in [-1, 1].

- :class:`NCSN` is the network of song2019: a RefineNet whose normalisers are told the index of the level. Its output is the
  score itself, not divided by sigma. The second stage halves the size; the third and fourth look wider by dilations 2
  and 4 instead. Where the halved image is smaller than twice a dilation the dilation is cut to half its side, since a tap
  outside an image sees only padding: on 8x8 digits the dilations are 2 and 2.
- :class:`CompactNCSN` stays at full resolution at one width, has plain instance norm, and divides its output by sigma.
- :class:`ContinuousNCSN` is NCSN's body told features of log sigma, around a Gaussian:

.. math:: s(x, \sigma) = -\frac{x - m}{\sigma^2 + v} + \frac{\sqrt v}{\sigma \sqrt{\sigma^2 + v}}\,
          F\!\left(\frac{x - m}{\sqrt{\sigma^2 + v}},\ \phi(\log \sigma)\right)

with m, v the mean and variance of the data. With F = 0 this is the score of N(m, v I) at every level, which is right where
sigma is large; where it is small the second term is :math:`F / \sigma`. So F has unit size at all levels (karras2022, Sec. 5, is
the same in terms of the denoiser), and one network serves levels from 0.01 to 160.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from toyscore import operators as ops
from toyscore.models.conditioning import level_index, log_range, sigma_features, unknown
from toyscore.models.refinenet import ConditionalNorm, Norm, RefineBlock, ResidualBlock, ResidualUnits, conv
from toyscore.noise import check_sigmas
from toyscore.operators import Sigma

_FREQUENCIES = 8
_FEATURES = 32


class _Body(nn.Module):
    """NCSN's layers, ``condition`` being whatever the normalisers take."""

    def __init__(self, channels: int, image_size: int, width: int, norm: Norm) -> None:
        super().__init__()
        wide, half = 2 * width, image_size // 2
        near, far = (min(dilation, half // 2) for dilation in (2, 4))
        self.begin_conv = conv(channels, width)
        self.res1 = nn.ModuleList([ResidualBlock(width, width, norm), ResidualBlock(width, width, norm)])
        self.res2 = nn.ModuleList([ResidualBlock(width, wide, norm, halve=True), ResidualBlock(wide, wide, norm)])
        self.res3, self.res4 = (
            nn.ModuleList(
                [
                    ResidualBlock(wide, wide, norm, dilation=dilation, project=True),
                    ResidualBlock(wide, wide, norm, dilation=dilation),
                ]
            )
            for dilation in (near, far)
        )
        self.refine1 = RefineBlock([wide], wide, norm)
        self.refine2 = RefineBlock([wide, wide], wide, norm)
        self.refine3 = RefineBlock([wide, wide], width, norm)
        self.refine4 = RefineBlock([width, width], width, norm, output_units=3)
        self.normalizer = norm(width)
        self.end_conv = conv(width, channels)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h, seen = self.begin_conv(x), []
        for stage in (self.res1, self.res2, self.res3, self.res4):
            for block in stage:
                h = block(h, condition)
            seen.append(h)
        h = self.refine1([seen[3]], condition)
        h = self.refine2([seen[2], h], condition)
        h = self.refine3([seen[1], h], condition)
        h = self.refine4([seen[0], h], condition)
        return self.end_conv(functional.elu(self.normalizer(h, condition)))


class NCSN(nn.Module):
    """The noise-conditional score network, indexed by level. Source: song2019, Appendix A.

    Args:
        channels: of the images.
        image_size: side of the square images, even and at least 8.
        width: channels of the first stage, doubled in the others; 64 for MNIST and 128 for CIFAR-10 in the paper. At least 2.
        sigmas: the levels [L], strictly decreasing, for data in [0, 1]; kept with the weights.

    Raises:
        TypeError, ValueError: a size out of range; sigmas not decreasing.
    """

    sigmas: Tensor

    def __init__(self, channels: int, image_size: int, width: int, sigmas: Tensor | Sequence[float]) -> None:
        super().__init__()
        _check_sizes(channels, image_size, width)
        self.event = (channels, image_size, image_size)
        self.register_buffer("sigmas", check_sigmas(sigmas, dtype=torch.float32))
        norm = partial(ConditionalNorm, n_levels=len(self.sigmas))
        self.body = _Body(channels, image_size, width, norm)

    def forward(self, x: Tensor, sigma: Sigma) -> Tensor:
        """The score at ``x`` [B, C, H, W], each ``sigma`` float | 0-d | [B] one of the levels -> like x.

        Raises:
            TypeError, ValueError: another shape or dtype; a sigma that is none of the levels (on an accelerator its rows are
                NaN instead, which samplers and training stop at).
        """
        _check_images(x, self.event, self.body.end_conv.weight)
        index, gap = level_index(sigma, x, self.sigmas)
        return _poison(self.body(2 * x - 1, index), gap)

    def load_official(self, state_dict: Mapping[str, Tensor]) -> Self:
        """Take the weights of the official code, by its names, in place; returns self.

        Args:
            state_dict: of its network; the first of the two things that its checkpoint.pth holds.

        Raises:
            TypeError: no mapping. ValueError: names or shapes of another network.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(
                f"state_dict is {type(state_dict).__name__}: it must map names to tensors; the official checkpoint.pth holds weights "
                "and optimiser, pass torch.load(path, weights_only=True)[0]"
            )
        theirs = {name.removeprefix("module."): torch.as_tensor(value) for name, value in state_dict.items()}
        ours = self.body.state_dict()
        for name in [*ours, *theirs]:
            a, b = (list(s[name].shape) if name in s else "missing" for s in (theirs, ours))
            if a != b:
                raise ValueError(
                    f"{name} is {a} in the state_dict, {b} in the network: build it with the same channels, width and number "
                    "of levels"
                )
        self.body.load_state_dict(theirs)
        return self


class CompactNCSN(nn.Module):
    """A small relative of NCSN at full resolution: one width, plain instance norm, dilations 1, 2, 4, 8, output over sigma.

    With the defaults it has 3,176,067 parameters, in 83 pairs of a normaliser and a 3x3 convolution between the first
    convolution and the last. Levels are for data in [0, 1]; code that trains on [-1, 1] writes them twice as large.

    Args:
        channels, image_size, width, sigmas: as :class:`NCSN`; the side may be odd; from 16 on all dilations count.

    Raises:
        TypeError, ValueError: as :class:`NCSN`.
    """

    sigmas: Tensor

    def __init__(
        self, channels: int = 3, image_size: int = 32, width: int = 64, *, sigmas: Tensor | Sequence[float]
    ) -> None:
        super().__init__()
        _check_sizes(channels, image_size, width, even=False)
        self.event = (channels, image_size, image_size)
        self.register_buffer("sigmas", check_sigmas(sigmas, dtype=torch.float32))
        norm = partial(ConditionalNorm, n_levels=len(self.sigmas), plus=False)
        self.begin_conv = conv(channels, width)
        self.stages = nn.ModuleList(
            ResidualUnits(width, norm, units=2, dilation=min(dilation, image_size // 2), bias=True)
            for dilation in (1, 2, 4, 8)
        )
        self.refine = nn.ModuleList(
            RefineBlock([width] * n_inputs, width, norm, stages=4, output_units=2, bias=True, fuse_one=True)
            for n_inputs in (1, 2, 2, 2)
        )
        self.end_norm = norm(width)
        self.end_conv = conv(width, channels)

    def forward(self, x: Tensor, sigma: Sigma) -> Tensor:
        """The score at ``x`` [B, C, H, W], each ``sigma`` float | 0-d | [B] one of the levels -> like x. Errors as NCSN."""
        _check_images(x, self.event, self.end_conv.weight)
        index, gap = level_index(sigma, x, self.sigmas)
        h, seen = self.begin_conv(2 * x - 1), []
        for stage in self.stages:
            h = stage(h, index)
            seen.append(h)
        h = self.refine[0]([seen.pop()], index)
        for block in list(self.refine)[1:]:
            h = block([seen.pop(), h], index)
        out = self.end_conv(functional.elu(self.end_norm(h, index)))
        return _poison(out / ops.per_example(self.sigmas.to(out.dtype)[index], out), gap)


class ContinuousNCSN(nn.Module):
    """NCSN's layers around a Gaussian, for any sigma, so for every ladder and every diffusion. Source: karras2022, Sec. 5.

    Args:
        channels, image_size, width: as :class:`NCSN`.
        sigmas: any numbers whose range the network is to cover, in units of x.
        data_mean: m, of all pixels. data_variance: v, of all pixels.

    Raises:
        TypeError, ValueError: as :class:`NCSN`; data_variance not positive.
    """

    log_range: Tensor
    data_mean: Tensor
    data_variance: Tensor

    def __init__(
        self,
        channels: int,
        image_size: int,
        width: int,
        sigmas: Tensor | Sequence[float],
        *,
        data_mean: float = 0.5,
        data_variance: float = 0.1,
    ) -> None:
        super().__init__()
        _check_sizes(channels, image_size, width)
        ops.check_positive(data_variance, "data_variance")
        if not math.isfinite(data_mean):
            raise ValueError(f"data_mean = {data_mean}: it must be finite; pass the mean of all pixels")
        self.event = (channels, image_size, image_size)
        self.register_buffer("log_range", log_range(sigmas))
        self.register_buffer("data_mean", torch.tensor(float(data_mean)))
        self.register_buffer("data_variance", torch.tensor(float(data_variance)))
        self.embed = nn.Sequential(nn.Linear(1 + 2 * _FREQUENCIES, _FEATURES), nn.SiLU())
        self.body = _Body(channels, image_size, width, partial(ConditionalNorm, n_features=_FEATURES))

    def forward(self, x: Tensor, sigma: Sigma) -> Tensor:
        """The score at ``x`` [B, C, H, W] for any positive ``sigma`` float | 0-d | [B] -> like x."""
        _check_images(x, self.event, self.body.end_conv.weight)
        std, features = sigma_features(sigma, x, self.log_range, _FREQUENCIES)
        std = ops.per_example(std, x)
        total = (std * std + self.data_variance).sqrt()
        centred = (x - self.data_mean) / total
        correction = self.body(centred, self.embed(features))
        return correction * (self.data_variance.sqrt() / (std * total)) - centred / total


def _check_sizes(channels: int, image_size: int, width: int, even: bool = True) -> None:
    ops.check_count(channels, "channels")
    ops.check_count(width, "width", 2)
    ops.check_count(image_size, "image_size", 8)
    if even and image_size % 2:
        raise ValueError(
            f"image_size = {image_size}: it must be even, since the second stage halves it; pad or crop the images by one"
        )


def _check_images(x: Tensor, event: tuple[int, int, int], weight: Tensor) -> None:
    ops.check_batch(x)
    if tuple(x.shape[1:]) != event:
        raise ValueError(
            f"x has shape {list(x.shape)}: the network takes [B, {', '.join(map(str, event))}]; reshape it or build the network "
            "for it"
        )
    if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
        raise TypeError(
            f"x is {x.dtype}, the network {weight.dtype}: they must agree; convert one with .to({weight.dtype})"
        )
    if x.device != weight.device:
        raise ValueError(
            f"x is on {x.device}, the network on {weight.device}: they must agree; move one with .to({str(weight.device)!r})"
        )


def _poison(s: Tensor, gap: Tensor) -> Tensor:
    """NaN in the rows whose sigma is no level, where ``level_index`` could not raise."""
    if s.device.type == "cpu" and not torch.compiler.is_compiling():
        return s
    return torch.where(ops.per_example(unknown(gap), s), torch.nan, s)
