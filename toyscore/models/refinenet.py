r"""The parts of a conditional RefineNet, from which the image networks are built.

Every part is called as ``part(h, condition)``, ``h`` [B, C, H, W]; only the normalisers look at ``condition``, which is the
index [B] of a noise level, or features [B, F] of log sigma. Each normaliser is

.. math:: \gamma \odot \left(\frac{h - \mu}{\sqrt{v + 10^{-5}}} + \alpha \odot \hat\mu\right) + \beta,

with :math:`\mu, v` the mean and variance of a channel of one image, and :math:`\hat\mu` the channel means standardised over
the channels ("instance norm++", song2019, Appendix A.1: plain instance norm forgets the means, and with them the colour
of a picture). :math:`\gamma, \alpha, \beta` are given by the condition. With ``plus=False`` the means are left out.

Names of submodules are those of the official code, so that its weights load as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

_EPS = 1e-5


class ConditionalNorm(nn.Module):
    """Instance norm with the channel means kept (``plus``), shifted and stretched as told. Source: song2019, Appendix A.1.

    Args:
        channels: C.
        n_levels: the condition is the index of one of so many levels; or
        n_features: the condition is a vector of so many features. One of the two.
        plus: keep the standardised channel means.
    """

    def __init__(self, channels: int, *, n_levels: int = 0, n_features: int = 0, plus: bool = True) -> None:
        super().__init__()
        self.parts = 3 if plus else 2
        self.embed: nn.Linear | nn.Embedding = (
            nn.Linear(n_features, self.parts * channels)
            if n_features
            else nn.Embedding(n_levels, self.parts * channels)
        )
        with torch.no_grad():
            start = self.embed.weight
            if isinstance(self.embed, nn.Linear):
                start = self.embed.bias
                self.embed.weight.normal_(0.0, 0.02)
            start[..., :-channels].fill_(1.0)
            start[..., -channels:].zero_()
            if plus:  # as the official code: gamma and alpha from N(1, 0.02²)
                start[..., :-channels].normal_(1.0, 0.02)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        """[B, C, H, W], and [B] indices or [B, F] features -> [B, C, H, W]."""
        gamma, *alpha, beta = self.embed(condition).chunk(self.parts, 1)
        shift = beta
        if alpha:
            mean = h.flatten(2).mean(2)
            centred = mean - mean.mean(1, keepdim=True)
            variance = centred.square().sum(1, keepdim=True) / (h.shape[1] - 1)
            shift = torch.addcmul(beta, gamma * alpha[0], centred * (variance + _EPS).rsqrt())
        whitened = functional.group_norm(h, h.shape[1], eps=_EPS)  # a group per channel: instance norm, and faster
        return torch.addcmul(shift[:, :, None, None], whitened, gamma[:, :, None, None])


Norm: TypeAlias = Callable[[int], ConditionalNorm]


def conv(inputs: int, outputs: int, *, dilation: int = 1, bias: bool = True) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size."""
    return nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation, bias=bias)


def mean_pool(h: Tensor, size: int, *, stride: int = 1, padding: int = 0) -> Tensor:
    """The mean of each window of ``size`` x ``size``, zeros around: [B, C, H, W] -> [B, C, H', W'].

    On the CPU torch pools far faster where channels come last in memory, to the same bits.
    """
    if h.is_cpu:
        h = h.contiguous(memory_format=torch.channels_last)
    return functional.avg_pool2d(h, size, stride, padding).contiguous()


class ConvMeanPool(nn.Module):
    """A convolution, then the mean of each 2x2 block."""

    def __init__(self, inputs: int, outputs: int, size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, padding=size // 2)

    def forward(self, h: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C', H/2, W/2]."""
        return mean_pool(self.conv(h), 2, stride=2)


class ResidualBlock(nn.Module):
    """(norm, act, conv) twice beside a shortcut; it halves the size (``halve``) or widens its view (``dilation`` > 1).

    The shortcut is convolved where the block halves or changes the width, and where ``project``.
    """

    def __init__(
        self, inputs: int, outputs: int, norm: Norm, *, halve: bool = False, dilation: int = 1, project: bool = False
    ) -> None:
        super().__init__()
        middle = inputs if halve else outputs
        self.normalize1, self.normalize2 = norm(inputs), norm(middle)
        self.conv1 = conv(inputs, middle, dilation=dilation)
        self.conv2 = ConvMeanPool(middle, outputs, 3) if halve else conv(middle, outputs, dilation=dilation)
        self.shortcut: nn.Module | None = None
        if halve:
            self.shortcut = ConvMeanPool(inputs, outputs, 1)
        elif project:
            self.shortcut = conv(inputs, outputs, dilation=dilation)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C', H', W']."""
        out = self.conv1(functional.elu(self.normalize1(h, condition)))
        out = self.conv2(functional.elu(self.normalize2(out, condition)))
        return out + (h if self.shortcut is None else self.shortcut(h))


class ResidualUnits(nn.ModuleDict):
    """``units`` residual units, each ``convs`` times (norm, act, conv)."""

    def __init__(
        self, channels: int, norm: Norm, *, units: int, convs: int = 2, dilation: int = 1, bias: bool = False
    ) -> None:
        super().__init__()
        self.pairs = [[f"{unit}_{i}" for i in range(1, convs + 1)] for unit in range(1, units + 1)]
        for pair in (p for pairs in self.pairs for p in pairs):
            self[f"{pair}_norm"] = norm(channels)
            self[f"{pair}_conv"] = conv(channels, channels, dilation=dilation, bias=bias)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        """[B, C, H, W] -> the same."""
        for pairs in self.pairs:
            start = h
            for pair in pairs:
                h = self[f"{pair}_conv"](functional.elu(self[f"{pair}_norm"](h, condition)))
            h = h + start
        return h


class Fusion(nn.Module):
    """Each input normalised, convolved to one width and resized to one size; their sum."""

    def __init__(self, inputs: Sequence[int], outputs: int, norm: Norm) -> None:
        super().__init__()
        self.norms = nn.ModuleList(norm(channels) for channels in inputs)
        self.convs = nn.ModuleList(conv(channels, outputs) for channels in inputs)

    def forward(self, hs: Sequence[Tensor], condition: Tensor, size: torch.Size) -> Tensor:
        """n of [B, C_i, H_i, W_i] -> [B, C, *size]."""
        parts = [c(n(h, condition)) for h, n, c in zip(hs, self.norms, self.convs, strict=True)]
        same = [
            p if p.shape[2:] == size else functional.interpolate(p, size, mode="bilinear", align_corners=True)
            for p in parts
        ]
        return torch.stack(same).sum(0) if len(same) > 1 else same[0]


class ChainedPooling(nn.Module):
    """act, then ``stages`` times (norm, 5x5 mean pool, conv) in a chain, every link added."""

    def __init__(self, channels: int, norm: Norm, *, stages: int, bias: bool = False) -> None:
        super().__init__()
        self.norms = nn.ModuleList(norm(channels) for _ in range(stages))
        self.convs = nn.ModuleList(conv(channels, channels, bias=bias) for _ in range(stages))

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        """[B, C, H, W] -> the same."""
        link = h = functional.elu(h)
        for norm, convolve in zip(self.norms, self.convs, strict=True):
            link = convolve(mean_pool(norm(link, condition), 5, padding=2))
            h = h + link
        return h


class RefineBlock(nn.Module):
    """Adapters of each input, their fusion, chained pooling, and an output adapter.

    Args:
        inputs: width of each input; outputs: the width that leaves.
        norm: makes a normaliser for a width.
        stages: of the pooling; output_units: residual units of the output adapter.
        bias: of the convolutions in adapters and pooling. fuse_one: a single input passes a fusion, too.
    """

    def __init__(
        self,
        inputs: Sequence[int],
        outputs: int,
        norm: Norm,
        *,
        stages: int = 2,
        output_units: int = 1,
        bias: bool = False,
        fuse_one: bool = False,
    ) -> None:
        super().__init__()
        self.adapt_convs = nn.ModuleList(ResidualUnits(channels, norm, units=2, bias=bias) for channels in inputs)
        self.msf = Fusion(inputs, outputs, norm) if fuse_one or len(inputs) > 1 else None
        self.crp = ChainedPooling(outputs, norm, stages=stages, bias=bias)
        self.output_convs = ResidualUnits(outputs, norm, units=output_units, bias=bias)

    def forward(self, hs: Sequence[Tensor], condition: Tensor) -> Tensor:
        """n of [B, C_i, H_i, W_i], the first of the size that leaves -> [B, C, H_0, W_0]."""
        adapted = [adapt(h, condition) for h, adapt in zip(hs, self.adapt_convs, strict=True)]
        h = adapted[0] if self.msf is None else self.msf(adapted, condition, hs[0].shape[2:])
        return self.output_convs(self.crp(h, condition), condition)
