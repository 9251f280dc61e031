"""Images and crops as distributions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from toyscore import operators as ops

_RESIDENT = 2**32  # bytes of a set that an accelerator keeps
_CHANNELS = (1, 3, 4)


def _channels_last(event: Sequence[int]) -> bool:
    """Whether these are [H, W, C] rather than [C, H, W]: the last could count channels, the first could not, and no square is last."""
    first, middle, last = event
    return last in _CHANNELS and first not in _CHANNELS and middle != last


@dataclass(frozen=True, eq=False)
class Images:
    """Images as whole numbers, sampled with replacement, dequantised and flipped.

    Args:
        values: uint8 [N, C, H, W], an array or a memory map, not copied.
        labels: [N] whole numbers, or None.
        n_levels: q, what a value may be: 0 to q - 1.
        flip: mirror half of what is sampled, left to right.
        dequantise: sample (k + u) / q; otherwise k / (q - 1).

    Raises:
        TypeError, ValueError: values of another type, shape or range; labels of another length.
    """

    values: NDArray[np.uint8]
    labels: NDArray[np.int64] | None = None
    n_levels: int = 256
    flip: bool = False
    dequantise: bool = True

    def __post_init__(self) -> None:
        kind = (
            f"{self.values.dtype} of shape {list(self.values.shape)}"
            if hasattr(self.values, "dtype")
            else repr(type(self.values))
        )
        if not isinstance(self.values, np.ndarray) or self.values.dtype != np.uint8 or self.values.ndim != 4:
            remedy = "for numbers in [0, 1] use data.images"
            if isinstance(self.values, Tensor) and self.values.dtype == torch.uint8:
                remedy = "pass values.numpy(force=True)"
            elif isinstance(self.values, np.ndarray) and self.values.dtype == np.uint8 and self.values.ndim == 3:
                remedy = "for grey images pass values[:, None], for one image values[None]"
            raise TypeError(f"values is {kind}: it must be a uint8 array [N, C, H, W]; {remedy}")
        if 0 in self.values.shape:
            raise ValueError(f"values has shape {list(self.values.shape)}: there is no image in it; pass at least one")
        if _channels_last(self.values.shape[1:]):
            raise ValueError(
                f"values has shape {list(self.values.shape)}, which looks like [N, H, W, C]: images are [N, C, H, W]; pass "
                "values.transpose(0, 3, 1, 2)"
            )
        ops.check_count(self.n_levels, "n_levels", 2)
        if self.n_levels > 256:
            raise ValueError(f"n_levels = {self.n_levels}: values are 8 bits, at most 256 levels; requantise them")
        if self.n_levels < 256 and int(self.values.max()) >= self.n_levels:
            raise ValueError(
                f"values reach {int(self.values.max())}: with n_levels = {self.n_levels} they must be 0 to {self.n_levels - 1}; pass "
                "the right n_levels"
            )
        if self.labels is not None and len(self.labels) != len(self.values):
            raise ValueError(
                f"labels has {len(self.labels)} entries for {len(self.values)} images: one each; drop the rest"
            )

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.event))
        return f"Images(N={len(self)}, event={shape}, n_levels={self.n_levels}, flip={self.flip}, dequantise={self.dequantise})"

    @property
    def event(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.values.shape[1:]
        return channels, height, width

    def sample(self, n: int, *, generator: Generator | None = None) -> Tensor:
        """[n, C, H, W] in [0, 1], float32, on the generator's device.

        Raises:
            TypeError, ValueError: n is not a whole number of at least one; a generator that is none.
        """
        ops.check_count(n, "n")
        return self._prepare(self._draw_index(n, generator), generator)

    def sample_labelled(self, n: int, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """What ``sample`` gives with the same generator, and the labels [n], int64.

        Raises:
            ValueError: the set has no labels.
        """
        ops.check_count(n, "n")
        if self.labels is None:
            raise ValueError("the set has no labels: it came without; use sample, or pass labels")
        index = self._draw_index(n, generator)
        labels = torch.from_numpy(np.ascontiguousarray(self.labels[index.cpu().numpy()], dtype=np.int64))
        return self._prepare(index, generator), labels.to(index.device)

    def tensor(self, *, limit: int | None = None) -> Tensor:
        """The images as they are, no noise and no flips, at the middle of their level where the set dequantises: [N, C, H, W].

        Args:
            limit: the first so many.
        """
        if limit is not None:
            ops.check_count(limit, "limit")
        chosen = np.asarray(self.values[:limit])
        return self._scale(torch.from_numpy(chosen.astype(np.float32)), 0.5)

    @cached_property
    def moments(self) -> tuple[float, float]:
        """Mean and variance of all pixels as sampled, dequantisation included."""
        counts = np.zeros(self.n_levels)
        for piece in np.array_split(self.values, max(1, self.values.nbytes >> 24)):
            counts += np.bincount(piece.reshape(-1), minlength=self.n_levels)
        level = self._scale(torch.arange(self.n_levels, dtype=torch.float64, device="cpu"), 0.5).numpy()
        share = counts / counts.sum()
        mean = float(share @ level)
        within = 1 / (12 * self.n_levels**2) if self.dequantise else 0.0
        return mean, float(share @ (level - mean) ** 2) + within

    def _scale(self, levels: Tensor, offset: float | Tensor) -> Tensor:
        return (levels + offset) / self.n_levels if self.dequantise else levels / (self.n_levels - 1)

    def _draw_index(self, n: int, generator: Generator | None) -> Tensor:
        device = ops.source(generator, torch.empty(()))
        return torch.randint(len(self), (n,), generator=generator, device=device)

    def _gather(self, index: Tensor) -> Tensor:
        """The chosen images, as bytes, on the index's device; an accelerator keeps a copy of the set, so that nothing waits for it."""
        if index.device.type != "cpu" and self.values.nbytes <= _RESIDENT:
            return self._resident(index.device)[index]
        return torch.from_numpy(np.ascontiguousarray(self.values[index.cpu().numpy()])).to(index.device)

    def _resident(self, device: torch.device) -> Tensor:
        copies: dict[torch.device, Tensor] = self.__dict__.setdefault("_copies", {})
        if device not in copies:
            copies[device] = torch.tensor(self.values, device=device)
        return copies[device]

    def _prepare(self, index: Tensor, generator: Generator | None) -> Tensor:
        x = self._gather(index).float()
        offset = ops.uniform(tuple(x.shape), x, generator) if self.dequantise else 0.0
        x = self._scale(x, offset).clamp(max=1.0)  # the largest level and u next to 1 may round beyond it
        if self.flip:
            mirrored = ops.uniform((len(x),), x, generator) < 0.5
            x = torch.where(ops.per_example(mirrored, x), x.flip(-1), x)
        return x


@dataclass(frozen=True, eq=False)
class Crops:
    """Random square crops of photographs: a set without end.

    Args:
        photos: uint8 arrays [C, H_i, W_i], of any sizes.
        size: side of a crop.
        flip, dequantise: as :class:`Images`.

    Raises:
        TypeError, ValueError: no photograph, one of another type, or smaller than a crop.
    """

    photos: Sequence[NDArray[np.uint8]]
    size: int = 32
    flip: bool = True
    dequantise: bool = True

    def __post_init__(self) -> None:
        ops.check_count(self.size, "size")
        if not self.photos:
            raise ValueError("photos is empty: there is nothing to crop; pass at least one array [C, H, W]")
        for i, photo in enumerate(self.photos):
            if photo.dtype != np.uint8 or photo.ndim != 3:
                raise TypeError(
                    f"photos[{i}] is {photo.dtype} of shape {list(photo.shape)}: it must be uint8 [C, H, W]; convert it"
                )
            if _channels_last(photo.shape):
                raise ValueError(
                    f"photos[{i}] has shape {list(photo.shape)}, which looks like [H, W, C]: photographs are [C, H, W]; pass "
                    f"photos[{i}].transpose(2, 0, 1)"
                )
            if photo.shape[0] != self.photos[0].shape[0]:
                raise ValueError(
                    f"photos[{i}] has {photo.shape[0]} channels, photos[0] {self.photos[0].shape[0]}: they must agree; convert one"
                )
            if min(photo.shape[1:]) < self.size:
                raise ValueError(
                    f"photos[{i}] has shape {list(photo.shape)}: a crop of side {self.size} does not fit; lower size or leave it out"
                )

    @property
    def event(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.photos[0].shape[0], self.size, self.size

    def sample(self, n: int, *, generator: Generator | None = None) -> Tensor:
        """[n, C, size, size] in [0, 1], float32: a photograph, then a place in it, all equally likely."""
        ops.check_count(n, "n")
        device = ops.source(generator, torch.empty(()))
        draws = torch.rand(n, 3, generator=generator, device=device).cpu().double().numpy()
        crops = np.empty((n, *self.event), np.uint8)
        for crop, (a, b, c) in zip(crops, draws, strict=True):
            photo = self.photos[int(a * len(self.photos))]
            top, left = (int(u * (side - self.size + 1)) for u, side in zip((b, c), photo.shape[1:], strict=True))
            crop[:] = photo[:, top : top + self.size, left : left + self.size]
        whole = Images(crops, flip=self.flip, dequantise=self.dequantise)
        return whole._prepare(torch.arange(n, device=device), generator)

    @cached_property
    def moments(self) -> tuple[float, float]:
        """Mean and variance of all pixels of 4,096 crops drawn with a seed of their own."""
        x = self.sample(4096, generator=Generator().manual_seed(0))
        return float(x.mean()), float(x.var())


class LabelledSource(Protocol):
    """What draws examples with their labels: images, mixtures."""

    def sample_labelled(self, n: int, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True, eq=False)
class Labelled:
    """Examples and labels in one row of numbers, [n, D + 1], the label last: what ``fit`` trains a classifier on.

    Args:
        source: anything with ``sample_labelled``, an image set or a mixture.

    Raises:
        TypeError: the source has no labels to draw.
    """

    source: LabelledSource

    def __post_init__(self) -> None:
        if not hasattr(self.source, "sample_labelled"):
            raise TypeError(
                f"source is {type(self.source).__name__}: it must have sample_labelled(n, generator=...); pass an image set or a mixture"
            )

    def sample(self, n: int, *, generator: Generator | None = None) -> Tensor:
        """[n, D + 1]. Errors as those of the source."""
        x, labels = self.source.sample_labelled(n, generator=generator)
        return torch.cat([ops.flatten(x), labels[:, None].to(x)], 1)


def images(x: Tensor, labels: Tensor | None = None, *, flip: bool = False) -> Images:
    """A tensor of images as a set, kept in 8 bits: ``x`` [N, C, H, W] in [0, 1].

    Raises:
        TypeError: not floating-point, labels that are no whole numbers. ValueError: another shape; a value outside [0, 1], with the
            likely cause.
    """
    ops.check_batch(x, "x")
    if labels is not None and (
        not isinstance(labels, Tensor) or labels.is_floating_point() or labels.dtype == torch.bool or labels.ndim != 1
    ):
        found = f"{labels.dtype} of shape {list(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(f"labels is {found}: it must be a tensor [N] of whole numbers; convert it with torch.tensor")
    if x.ndim != 4:
        raise ValueError(f"x has shape {list(x.shape)}: images are [N, C, H, W]; add the missing axes, e.g. x[:, None]")
    if _channels_last(x.shape[1:]):
        raise ValueError(
            f"x has shape {list(x.shape)}, which looks like [N, H, W, C]: images are [N, C, H, W]; pass x.permute(0, 3, 1, 2), or "
            "x.transpose(2, 3) if it is [N, C, L, 1]"
        )
    ops.check_finite(x, "x")
    low, high = (float(v) for v in torch.aminmax(x))
    if low < 0 or high > 1:
        cause = (
            "divide by 255"
            if low >= 0 and high > 2
            else "map [-1, 1] there by (x + 1) / 2"
            if low >= -1
            else "rescale them"
        )
        raise ValueError(f"x has values from {low:.4g} to {high:.4g}: images lie in [0, 1]; {cause}")
    values = (x.detach().cpu() * 255).round().to(torch.uint8).numpy()
    return Images(values, None if labels is None else labels.cpu().numpy().astype(np.int64), flip=flip)
