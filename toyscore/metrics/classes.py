"""How sure a classifier of real images is of samples, and how many of each class it sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from toyscore import operators as ops
from toyscore.data import Images

_N_EXAMPLES = 6000


@dataclass(frozen=True)
class Confidence:
    """``.mean`` of the largest class probability, its standard error, ``.shares`` of the classes [K], ``.n`` images."""

    mean: float
    error: float
    shares: Tensor
    n: int


@dataclass(frozen=True)
class Classifier:
    """Class probabilities for images; made by :func:`fit_classifier`."""

    model: Any
    dim: int

    def probabilities(self, x: Tensor) -> Tensor:
        """[B, K] in float64 on the CPU, for x [B, *event].

        Raises:
            TypeError, ValueError: x is no batch of such images.
        """
        ops.check_batch(x)
        flat = ops.flatten(x.detach().cpu())
        if flat.shape[1] != self.dim:
            raise ValueError(
                f"x has shape {list(x.shape)}, {flat.shape[1]} numbers in an image: the classifier was fitted to {self.dim}; pass "
                "images of that size"
            )
        return torch.from_numpy(self.model.predict_proba(flat.cpu().double().numpy()))

    def confidence(self, x: Tensor) -> Confidence:
        """How sure it is of a batch, and of what."""
        p = self.probabilities(x)
        top = p.max(1)
        shares = torch.bincount(top.indices, minlength=p.shape[1]) / len(p)
        error = float(top.values.std()) / len(p) ** 0.5 if len(p) > 1 else float("inf")
        return Confidence(float(top.values.mean()), error, shares, len(p))


def fit_classifier(data: Images, *, seed: int = 0) -> Classifier:
    """A logistic regression on the pixels of a labelled set, dequantised as it is sampled.

    It is scikit-learn's, with its default penalty: linear, and so calibrated enough for its probability to fall when an image is no
    digit in particular.

    Args:
        data: with labels; its training part, so that the held-out part can be compared with.
        seed: of the draws.

    Raises:
        ValueError: the set has no labels, or they are not 0 to K - 1 with K at least 2.
    """
    from sklearn.linear_model import LogisticRegression

    ops.check_count(seed, "seed", 0)
    x, labels = data.sample_labelled(_N_EXAMPLES, generator=Generator().manual_seed(seed))
    everyone = torch.as_tensor(data.labels)
    check_labels(everyone)
    for missed in set(everyone.tolist()) - set(labels.tolist()):  # a class so rare that no draw is of it
        one = int((everyone == missed).nonzero()[0])
        x, labels = torch.cat([x, data.tensor()[one : one + 1]]), torch.cat([labels, everyone[one : one + 1]])
    flat = ops.flatten(x).cpu().double().numpy()
    return Classifier(LogisticRegression(max_iter=5000).fit(flat, labels.numpy()), flat.shape[1])


def check_labels(labels: Tensor) -> None:
    """Refuse labels that are not 0 to K - 1.

    Raises:
        ValueError: they are not, or K is one.
    """
    found = labels.unique().tolist()
    if len(found) < 2 or found != list(range(len(found))):
        raise ValueError(
            f"the labels are {found}: they must be 0 to K - 1, at least two of them; number the classes anew"
        )
