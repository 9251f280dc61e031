"""The published scores of images, FID and IS, for those who can fetch their network."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from toyscore import operators as ops
from toyscore.data import DownloadError
from toyscore.metrics.features import frechet_distance

_BATCH = 64
_N_PER_UNIT = 100  # samples to each unit of the Inception score, for a bias of five percent


@dataclass(frozen=True)
class InceptionScores:
    """``.fid``, ``.inception_score`` with its deviation over splits ``.error``, and ``.n`` samples they were computed from."""

    fid: float
    inception_score: float
    error: float
    n: int


def inception_scores(
    x: Tensor, real: Tensor, *, features: nn.Module | None = None, logits: nn.Module | None = None
) -> InceptionScores:
    r"""FID and Inception score, the latter by torchmetrics. Source: heusel2017, Eq. (6).

    Papers report them for 50,000 samples. Both are biased for fewer, and cannot be compared with theirs: FID is too high. The Inception
    score is too low: it is the mean over ten splits, each of N / 10 samples, whose histogram of K classes is taken for their law. Of a
    score near K that takes off the share (K - 1) / (2 N / 10), and no score exceeds N / 10.

    Args:
        x, real: [N, 1 or 3, H, W] and [M, 1 or 3, H, W] in [0, 1]; grey is repeated.
        features, logits: of bytes [B, 3, H, W], to [B, F] and [B, K]; default the Inception network that papers use, which
            torch-fidelity fetches once (91 MB).

    Warns:
        UserWarning: N is below 100 times the Inception score, which is then too low by five percent or more.

    Raises:
        ImportError: torchmetrics or torch-fidelity is not installed.
        DownloadError: the network cannot be fetched.
        TypeError, ValueError: not images.
    """
    pictures = [_bytes(images, name) for images, name in ((x, "x"), (real, "real"))]
    try:
        from torchmetrics.image.fid import FrechetInceptionDistance
        from torchmetrics.image.inception import InceptionScore

        network = FrechetInceptionDistance(feature=2048).inception if features is None else features
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "Metric `InceptionScore` will save all", UserWarning
            )  # that is what it is for
            score: Any = InceptionScore(feature="logits_unbiased" if logits is None else logits, sync_on_compute=False)
    except ImportError as error:
        raise ImportError(
            "FID and IS need torchmetrics and torch-fidelity, which brings torchvision: install them with pip install torchmetrics "
            "torch-fidelity"
        ) from error
    except OSError as error:
        raise DownloadError(
            f"the Inception network cannot be fetched ({error}): go online once, or leave FID and IS out"
        ) from error
    with torch.no_grad(), torch.random.fork_rng(devices=[]):  # the score shuffles its images by the default generator
        torch.manual_seed(0)
        for batch in pictures[0].split(_BATCH):
            score.update(batch)
        mean, deviation = (float(value) for value in score.compute())
        seen = [torch.cat([network(batch).cpu().double() for batch in images.split(_BATCH)]) for images in pictures]
    if len(x) < _N_PER_UNIT * mean:
        warnings.warn(
            f"the Inception score {mean:.3g} is of {len(x)} samples in ten splits: it is too low by {5 * mean / len(x):.0%} or more; pass "
            f"at least {math.ceil(_N_PER_UNIT * mean)}, and compare scores of one N only",
            UserWarning,
            stacklevel=2,
        )
    return InceptionScores(frechet_distance(*seen), mean, deviation, len(x))


def _bytes(x: Tensor, name: str) -> Tensor:
    """[N, 3, H, W] of bytes on the CPU."""
    ops.check_batch(x, name)
    ops.check_finite(x, name)
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise ValueError(f"{name} has shape {list(x.shape)}: it must be [N, 1 or 3, H, W]; choose channels")
    return (x.detach().cpu().clamp(0, 1) * 255).round().byte().expand(-1, 3, -1, -1)
