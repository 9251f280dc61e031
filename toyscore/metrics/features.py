"""Images as a classifier sees them, and how far two sets of images are apart there.

Distances of samples are taken in the last hidden layer of a small convolutional classifier that is trained on the spot, on the real
images: what helps to tell classes apart is what counts. Convolutions matter: in the pixels themselves (and in the features of a fully
connected classifier) a Gaussian with the digits' mean and covariance is nearer to the digits than other digits are; a test shows it.
Published FID uses a network trained on ImageNet instead; so these are called Fréchet and kernel distances in classifier features,
never FID, and compare only with each other.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from toyscore import operators as ops
from toyscore.data import Images
from toyscore.metrics.classes import check_labels
from toyscore.metrics.clouds import as_doubles, unbiased_mmd2

_WIDTH = 32
_BATCH = 128
_LR = 5e-3


class Features(nn.Module):
    """The last hidden layer of a classifier, [B, C, H, W] -> [B, F], on the CPU; made by :func:`fit_features`.

    The features of what it learned from have root mean square one. ``.num_features`` is F, ``.event`` is (C, H, W).
    """

    rms: Tensor

    def __init__(self, event: tuple[int, int, int], n_features: int, n_classes: int) -> None:
        super().__init__()
        ops.check_count(n_features, "n_features")
        ops.check_count(n_classes, "n_classes")
        self.event, self.num_features = event, n_features
        stride = max(1, min(event[1:]) // 12)

        def conv(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
            return [nn.Conv2d(inputs, outputs, 3, padding=1, stride=stride), nn.ReLU()]

        self.body = nn.Sequential(
            *conv(event[0], _WIDTH, stride),
            *conv(_WIDTH, _WIDTH),
            nn.MaxPool2d(2, ceil_mode=True),
            *conv(_WIDTH, 2 * _WIDTH),
            *conv(2 * _WIDTH, 2 * _WIDTH),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(2 * _WIDTH, n_features),
            nn.ReLU(),
        )
        self.head = nn.Linear(n_features, n_classes)
        self.register_buffer("rms", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """The features of ``x`` [B, C, H, W].

        Raises:
            TypeError, ValueError: x is no batch of such images.
        """
        ops.check_batch(x)
        ops.check_finite(x)
        if tuple(x.shape[1:]) != self.event:
            raise ValueError(
                f"x has shape {list(x.shape)}: the features are of [B, {', '.join(map(str, self.event))}]; pass images of that size"
            )
        return self.body(x.to(self.rms)) / self.rms

    def classes(self, x: Tensor) -> Tensor:
        """The likeliest class of each image: [B]."""
        return self.head(self(x)).argmax(1)


def fit_features(data: Images, *, n_features: int = 32, n_steps: int = 500, seed: int = 0) -> Features:
    """Train the classifier on images dequantised as they are sampled, and keep what its last layer sees.

    Args:
        data: with labels; its training part.
        n_features: F, units of the last hidden layer.
        n_steps: of Adam, 128 images each, the rate falling linearly to nothing.
        seed: of weights and draws.

    Raises:
        ValueError: no labels, or they are not 0 to K - 1 with K at least 2.
    """
    ops.check_count(n_features, "n_features")
    ops.check_count(n_steps, "n_steps")
    ops.check_count(seed, "seed", 0)
    generator = Generator().manual_seed(seed)
    x, labels = data.sample_labelled(_BATCH, generator=generator)
    check_labels(torch.as_tensor(data.labels))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Features(data.event, n_features, int(torch.as_tensor(data.labels).max()) + 1)
    optimizer = torch.optim.Adam(network.parameters(), lr=_LR, fused=True)
    for step in range(n_steps):
        optimizer.param_groups[0]["lr"] = _LR * (1 - step / n_steps)
        optimizer.zero_grad()
        functional.cross_entropy(network.head(network(x)), labels.to(network.rms.device)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        x, labels = data.sample_labelled(_BATCH, generator=generator)
    network.requires_grad_(False)
    network.rms.copy_(network(data.sample(1000, generator=generator)).square().mean().sqrt())
    network.head.weight.mul_(network.rms)
    return network.eval()


def frechet_distance(x: Tensor, y: Tensor) -> float:
    r"""The squared Wasserstein-2 distance of two Gaussians with the means and covariances of the features x [N, F] and y [M, F].

    .. math:: \|m_x - m_y\|^2 + \mathrm{tr}(C_x + C_y - 2 (C_x C_y)^{1/2})

    It is biased upwards where N or M is not large beside F: compare sets of one size. Source: heusel2017, Eq. (6).

    Raises:
        TypeError, ValueError: not two clouds of like points; fewer than two in one.
    """
    a, b = as_doubles(x, y, 2)
    r, s = (_root(cloud) for cloud in (a, b))
    left, _, right = torch.linalg.svd(
        r @ s.mT
    )  # C_x = r^T r, and the trace is the least |r - U s|², U orthogonal: a sum of squares
    return float(((a - b[0]).mean(0) - (b - b[0]).mean(0)).square().sum() + (r - left @ right @ s).square().sum())


def _root(points: Tensor) -> Tensor:
    """r [F, F] with r^T r the covariance of points [N, F]."""
    moved = points - points[0]
    r = torch.linalg.qr((moved - moved.mean(0)) / (len(points) - 1) ** 0.5, mode="r").R
    return torch.cat([r, r.new_zeros(points.shape[1] - len(r), points.shape[1])])


def kernel_distance(x: Tensor, y: Tensor) -> float:
    """Unbiased squared maximum mean discrepancy of the features x [N, F] and y [M, F], with the kernel (1 + <a, b> / F)³.
    Source: binkowski2018, Sec. 4.

    About zero, of either sign, when the laws agree, whatever N and M.

    Raises:
        TypeError, ValueError: not two clouds of like points; fewer than two in one.
    """
    a, b = as_doubles(x, y, 2)

    def kernel(p: Tensor, q: Tensor) -> Tensor:
        return (1 + p @ q.mT / p.shape[1]) ** 3

    return unbiased_mmd2(kernel, a, b)
