"""How good is a trained network? Its losses level by level, and its samples beside real ones.

The loss says when training is done, not when samples are good: it plateaus early, and what it averages away is where samples go wrong. So
samples are compared with the training set, and two references are compared with it in the same way and number: real examples that the
network has not seen (what a perfect one would get) and draws from a Gaussian with the data's mean and covariance (what the best
linear one would). A measure on which the Gaussian does as well as real examples measures nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Generator, Tensor, nn

from toyscore import metrics
from toyscore import operators as ops
from toyscore.build import build_data, n_calls, sampling_plan
from toyscore.config import Config
from toyscore.data import Images
from toyscore.distributions import GaussianMixture
from toyscore.operators import Distribution, Score

_MOST = 1000  # examples of each kind, unless told
_TRAINING = 10_000  # of the training set, at most
_LEVELS = 7
_WIDEST = 4096  # numbers in an event, for which a covariance is taken apart
FEWEST = 5  # samples, and training examples: neighbours are looked for among them

Sets: TypeAlias = tuple[Tensor | None, ...]


@dataclass(frozen=True)
class Row:
    """One measure, and which is ``better``: higher, lower, or like the held-out examples; of the samples, of held-out examples (NaN where
    there are none) and of the Gaussian.
    """

    measure: str
    better: str
    samples: float
    held_out: float
    gaussian: float


@dataclass(frozen=True)
class Level:
    """The share of the noise left unexplained at ``sigma``, with standard errors; by the exact score where the data have one."""

    sigma: float
    training: float
    training_error: float
    held_out: float
    held_out_error: float
    linear: float
    exact: float


@dataclass(frozen=True)
class Evaluation:
    """What was found: ``.rows`` and ``.levels`` of numbers, ``.facts`` about how, ``.shares`` of the classes; ``.samples`` [n, *event] and,
    of each, the ``.nearest`` training example.
    """

    rows: list[Row]
    levels: list[Level]
    n: int
    facts: dict[str, Any]
    samples: Tensor
    nearest: Tensor
    shares: dict[str, list[float]]

    def asdict(self) -> dict[str, Any]:
        """The numbers, for JSON: what is not a number is null."""
        found = {"n": self.n, "facts": self.facts, "shares": self.shares}
        found |= {"rows": [asdict(r) for r in self.rows], "levels": [asdict(level) for level in self.levels]}
        return _nulled(found)

    def table(self) -> str:
        """The rows as Markdown."""
        lines = [
            "| against the training set | samples | held out | Gaussian | better |",
            "| --- | --- | --- | --- | --- |",
        ]
        for row in self.rows:
            values = (_short(v) for v in (row.samples, row.held_out, row.gaussian))
            lines.append(f"| {row.measure} | {' | '.join(values)} | {row.better} |")
        return "\n".join(lines)

    def level_table(self) -> str:
        """The levels as Markdown."""
        exact = any(not math.isnan(level.exact) for level in self.levels)
        last = " exact score |" if exact else ""
        lines = [
            f"| noise left unexplained at sigma | training | held out | best linear guess |{last}",
            "| --- | --- | --- | --- |" + (" --- |" if exact else ""),
        ]
        for level in self.levels:
            cells = [
                f"{level.sigma:.3g}",
                f"{level.training:.4f} ± {level.training_error:.4f}",
                "" if math.isnan(level.held_out) else f"{level.held_out:.4f} ± {level.held_out_error:.4f}",
                f"{level.linear:.4f}",
                *([f"{level.exact:.4f}"] if exact else []),
            ]
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines)


def default_n(config: Config) -> int:
    """As many samples as there are held-out examples, at most 1,000."""
    held_out = build_data(config.data, "held-out")
    return min(_MOST, len(held_out)) if isinstance(held_out, Images) else _MOST


def evaluate(
    score: nn.Module, samples: Tensor, config: Config, *, seed: int = 0, inception: bool = False
) -> Evaluation:
    """Compare samples with the data that a configuration names.

    Args:
        score: the network.
        samples: [n, *event], n at least 5; the training set, too, has at least 5.
        config: of the run.
        seed: of noise, references and the classifier's training.
        inception: FID and IS, too.

    Raises:
        TypeError, ValueError: samples that are not like the data. ImportError, DownloadError: what a measure needs is missing.
    """
    n = len(samples)
    training, held_out = build_data(config.data), build_data(config.data, "held-out")
    if isinstance(training, Images) and len(training) < FEWEST:
        raise ValueError(
            f"the training set has {len(training)} examples: neighbours are looked for among at least {FEWEST}; judge by eye"
        )
    bank = _examples(training, _TRAINING, seed)
    unseen = _examples(held_out, n, seed + 1) if _is_apart(config) else None
    x = samples.detach().float().cpu()
    gaussian = _gaussian(bank, n, seed + 2)
    labelled = isinstance(training, Images) and training.labels is not None
    see: Callable[[Tensor], Tensor] = ops.flatten
    facts: dict[str, Any] = {"seed": seed, "n_training": len(bank), "n_calls": n_calls(config)}
    facts |= {"sampling": config.asdict()["sampling"], "features": "the numbers themselves"}
    if x.ndim == 4:
        facts["features"] += ", in which even a Gaussian can be nearer than real images"
    rows: list[Row] = []
    shares: dict[str, list[float]] = {}
    sets = (x, unseen, gaussian)
    if labelled:
        assert isinstance(training, Images)
        see = metrics.fit_features(training, seed=seed)
        facts["features"] = f"{see.num_features} of a convolutional {config.data.name} classifier trained on the spot"
        if unseen is not None and isinstance(held_out, Images):
            right = see.classes(held_out.tensor()) == torch.as_tensor(held_out.labels)
            facts["accuracy_held_out"] = float(right.double().mean())
    near, features = see(bank), tuple(None if c is None else see(c) for c in sets)
    if labelled:
        rows += _distances(f"{config.data.name} classifier features", near, features)
    elif x.ndim == 2:
        rows += _plane(training, bank[:n], sets)
    cover = metrics.expected_coverage(n, len(bank))
    found = [None if c is None else metrics.overlap(c, near) for c in features]
    for name, words in (("precision", ""), ("recall", ""), ("coverage", f" ({cover:.2f} if of one law)")):
        values = [math.nan if f is None else getattr(f, name) for f in found]
        rows.append(Row(f"{name}{words}", "higher", *values))
    if labelled:
        assert isinstance(training, Images)
        judged, shares = _classes(training, bank, sets)
        rows += judged
    distance, index = metrics.nearest(x, bank)
    others = _each(lambda c: float(metrics.nearest(c, bank)[0].median()), (unseen, gaussian))
    rows.append(
        Row("median distance to the nearest training example", "like held out", float(distance.median()), *others)
    )
    if inception:
        scores = [None if c is None else metrics.inception_scores(c, bank) for c in sets]
        rows.append(Row(f"FID ({n:,} samples)", "lower", *[math.nan if s is None else s.fid for s in scores]))
        values = [math.nan if s is None else s.inception_score for s in scores]
        rows.append(Row("Inception score", "higher", *values))
    levels = _levels(score, training, held_out if unseen is not None else None, config, seed)
    return Evaluation(rows, levels, n, facts, x, bank[index], shares)


def _is_apart(config: Config) -> bool:
    """Whether the data have examples that training has not seen: a set's held-out part, or a toy, drawn anew."""
    return config.data.name not in ("photos", "folder")


def _examples(data: Distribution, n: int, seed: int) -> Tensor:
    """At most n examples as they are, without the noise of dequantisation, from all over the set; or draws, where there is no end."""
    if not isinstance(data, Images):
        return data.sample(n, generator=Generator().manual_seed(seed))
    chosen = torch.linspace(0, len(data) - 1, min(n, len(data))).round().long().numpy()
    return replace(data, values=data.values[chosen], labels=None).tensor()


def _gaussian(bank: Tensor, n: int, seed: int) -> Tensor:
    """Draws from the Gaussian with the bank's mean and covariance: [n, *event]."""
    flat = ops.flatten(bank).double()
    centred, generator = flat - flat.mean(0), Generator().manual_seed(seed)
    weights = ops.normal_like(flat.new_empty(n, len(flat)), generator) / math.sqrt(len(flat) - 1)
    drawn = flat.mean(0) + weights @ centred  # a mix of examples with normal weights has their covariance
    return drawn.to(bank.dtype).reshape(n, *bank.shape[1:])


def _each(measure: Callable[[Tensor], float], sets: Sets) -> list[float]:
    """A measure of each set, NaN of one that there is not."""
    return [math.nan if c is None else measure(c) for c in sets]


def _distances(name: str, near: Tensor, features: Sets) -> list[Row]:
    frechet = _each(lambda c: metrics.frechet_distance(c, near), features)
    kernel = _each(lambda c: 1000 * metrics.kernel_distance(c, near), features)
    return [Row(f"Fréchet distance ({name})", "lower", *frechet), Row("kernel distance, times 1,000", "lower", *kernel)]


def _classes(training: Images, bank: Tensor, sets: Sets) -> tuple[list[Row], dict[str, list[float]]]:
    classifier = metrics.fit_classifier(training)
    real = classifier.confidence(bank).shares
    found = [None if c is None else classifier.confidence(c) for c in sets]
    sure = [math.nan if c is None else c.mean for c in found]
    off = [math.nan if c is None else 0.5 * float((c.shares - real).abs().sum()) for c in found]
    names = ("samples", "held_out", "gaussian")
    shares = {name: c.shares.tolist() for name, c in zip(names, found, strict=True) if c is not None}
    return [
        Row("confidence of a linear classifier", "like held out", *sure),
        Row("class histogram, total variation", "like held out", *off),
    ], shares | {"training": real.tolist()}


def _plane(data: Distribution, near: Tensor, sets: Sets) -> list[Row]:
    rows = [Row("Wasserstein-2 distance", "lower", *_each(lambda c: metrics.wasserstein2(c, near), sets))]
    if isinstance(data, GaussianMixture):
        off = _each(lambda c: 0.5 * float((metrics.mode_weights(c, data) - data.weights).abs().sum()), sets)
        rows.append(Row("mode weights, total variation", "lower", *off))
    return rows


def _levels(
    score: nn.Module, training: Distribution, held_out: Distribution | None, config: Config, seed: int
) -> list[Level]:
    """At levels that chains go through, over draws from each, dequantised where the network was trained so."""
    own = sampling_plan(config)["sigmas"]
    sigmas = own[torch.linspace(0, len(own) - 1, min(_LEVELS, len(own))).round().long()]
    device = next(score.parameters()).device
    n = min(_MOST, len(held_out)) if isinstance(held_out, Images) else _MOST  # no more draws than there are examples
    many = training.sample(_TRAINING, generator=Generator().manual_seed(seed))
    x, flat = many[:n], ops.flatten(many)
    new = None if held_out is None else _once_each(held_out, n, Generator().manual_seed(seed + 1))

    def left(of: Score, x: Tensor | None, where: torch.device | str) -> tuple[list[float], list[float]]:
        if x is None:
            return [math.nan] * len(sigmas), [math.nan] * len(sigmas)
        found = metrics.denoising_losses(of, x.to(where), sigmas, generator=Generator(where).manual_seed(seed + 2))
        return found[0].tolist(), found[1].tolist()

    exact = left(training.score, x, "cpu")[0] if hasattr(training, "score") else [math.nan] * len(sigmas)
    linear = [math.nan] * len(sigmas)
    if flat.shape[1] <= _WIDEST:
        covariance = torch.cov(flat.double().mT).reshape(flat.shape[1], -1)
        linear = metrics.linear_losses(covariance, sigmas).tolist()
    columns = (sigmas.tolist(), *left(score, x, device), *left(score, new, device), linear, exact)
    return [Level(*values) for values in zip(*columns, strict=True)]


def _once_each(data: Distribution, n: int, generator: Generator) -> Tensor:
    """n draws; of a set with n examples each once."""
    if isinstance(data, Images) and len(data) == n:
        return data._prepare(torch.arange(n), generator)
    return data.sample(n, generator=generator)


def _short(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"


def _nulled(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _nulled(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_nulled(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
