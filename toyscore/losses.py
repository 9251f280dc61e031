r"""Five ways to fit a score function, all minimising the same Fisher divergence.

.. math:: F(s) = \frac12 E_{q_\sigma} \| s(x, \sigma) - \nabla \log q_\sigma(x) \|^2

Each objective below has :math:`F`, times a weight for the denoising one, plus a constant free of s as its expectation, and
so the same minimiser at each noise level (the finite difference up to a bias of order h²). They differ in what they need
to know and in what they cost:

=======================  ==========================================  ==========================  =====================
objective                value for one x                             needs                       cost of D coordinates
=======================  ==========================================  ==========================  =====================
explicit                 ½‖s - s*‖²                                  the true score s*           1 pass
implicit (exact)         ½‖s‖² + tr(ds/dx)                           nothing; constant -½E‖s*‖²  D directions
sliced                   ½‖s‖² + v·(ds/dx)v                          projections, E[vvᵀ] = I     1 direction per slice
finite-difference        ½‖s‖² + v·(s(x+hv) - s(x-hv))/2h            no derivative               3 passes
denoising                ½w‖s(x+σz) + z/σ‖²                          noise, σ > 0                1 pass
=======================  ==========================================  ==========================  =====================

Every loss is pure and per example: it returns [B], reduces nothing, keeps rows independent, and takes ``generator``, also
where it draws nothing, so that all are called alike. Only the denoising loss takes *clean* x and perturbs it; the others
take x drawn from q_sigma (:func:`perturbed` draws it). A low loss is not a good score: the constants differ, and that of
the implicit losses is large and negative at small sigma; look at the exact Fisher divergence beside it.

References: hyvarinen2005, vincent2011, song2019sliced, pang2020, song2019.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal, Protocol

import torch
from torch import Generator, Tensor
from torch.nn import functional

from toyscore import operators as ops
from toyscore.noise import Draw
from toyscore.operators import Score, Sigma

Slices = Literal["rademacher", "gaussian", "sphere"]


class Classifier(Protocol):
    """``classifier(x, sigma)`` -> logits [B, K], for events of the shape ``event``."""

    @property
    def event(self) -> tuple[int, ...]: ...

    def __call__(self, x: Tensor, sigma: Sigma, /) -> Tensor: ...


class Loss(Protocol):
    """``loss(score, x, sigma, *, generator)`` -> [B]."""

    def __call__(self, score: Score, x: Tensor, sigma: Sigma, /, *, generator: Generator | None = None) -> Tensor: ...


def explicit_score_matching(
    score: Score, x: Tensor, sigma: Sigma = 0.0, *, target: Score, generator: Generator | None = None
) -> Tensor:
    """Half the squared distance to a known score, ½‖s(x) - s*(x)‖². Source: hyvarinen2005, Sec. 2.

    The score of N(0, 1) at x = 3 is -3, and a score of zero has the loss 3²/2:

    >>> import torch
    >>> from toyscore.distributions import GaussianMixture
    >>> from toyscore.losses import explicit_score_matching
    >>> p, x = GaussianMixture([[0.0]]), torch.tensor([[3.0]])
    >>> explicit_score_matching(lambda x, sigma: 0 * x, x, target=p.score).tolist()
    [4.5]

    Args:
        score: the score function to judge.
        x: [B, *event], drawn from q_sigma.
        sigma: float | 0-d | [B], in units of x.
        target: the true score s*, called as ``target(x, sigma)``.
        generator: unused; taken so that all losses are called alike.

    Returns:
        [B], not negative.

    Raises:
        TypeError, ValueError: x or sigma is not what it must be; a score of another shape than x.
    """
    _check(score, x, sigma)
    difference = ops.evaluate(score, x, sigma) - ops.evaluate(target, x, sigma)
    return 0.5 * ops.dot(difference, difference)


def implicit_score_matching(
    score: Score, x: Tensor, sigma: Sigma = 0.0, *, generator: Generator | None = None
) -> Tensor:
    r"""Score matching without the truth, ½‖s‖² + tr(ds/dx), exact trace. Source: hyvarinen2005, Theorem 1; song2019, Eq. (1).

    Integration by parts turns :math:`-E[s \cdot s^*]` into :math:`E[\mathrm{tr}(\partial s / \partial x)]`, provided
    that q s vanishes at infinity. Its expectation is the Fisher divergence less ½E‖s*‖².

    The score of N(0, 1) is -x and its derivative -1, so the value at x = 3 is 3²/2 - 1:

    >>> import torch
    >>> from toyscore.distributions import GaussianMixture
    >>> from toyscore.losses import implicit_score_matching
    >>> p, x = GaussianMixture([[0.0]]), torch.tensor([[3.0]])
    >>> round(implicit_score_matching(p.score, x).item(), 3)
    3.5

    Args, errors: as ``explicit_score_matching``.

    Returns:
        [B], of either sign.
    """
    _check(score, x, sigma)
    s, trace = ops.jacobian_trace(score, x, sigma)
    return 0.5 * ops.dot(s, s) + trace  # Eq. (1)


def sliced_score_matching(
    score: Score,
    x: Tensor,
    sigma: Sigma = 0.0,
    *,
    n_slices: int = 1,
    slices: Slices = "rademacher",
    variance_reduced: bool = True,
    generator: Generator | None = None,
) -> Tensor:
    r"""The trace seen along random directions v, E[v vᵀ] = I. Source: song2019, Eq. (3); song2019sliced, Sec. 3.

    On N(0, I) in two dimensions the Jacobian is -I, and v·v = 2 for any signs: one slice gives the exact 10/2 - 2:

    >>> import torch
    >>> from toyscore.distributions import GaussianMixture
    >>> from toyscore.losses import sliced_score_matching
    >>> p, x = GaussianMixture([[0.0, 0.0]]), torch.tensor([[1.0, 3.0]])
    >>> g = torch.Generator().manual_seed(0)
    >>> round(sliced_score_matching(p.score, x, generator=g).item(), 3)
    3.0

    Args:
        score, x, sigma: as ``explicit_score_matching``.
        n_slices: directions per example, averaged.
        slices: their law; "rademacher" (signs; of laws with independent coordinates the least variance), "gaussian", or "sphere"
            (radius sqrt(D)).
        variance_reduced: ½‖s‖² + vᵀ(ds/dx)v; otherwise ½(v·s)² + vᵀ(ds/dx)v, with the same expectation.
        generator: of the directions.

    Returns:
        [B], an unbiased estimate of ``implicit_score_matching`` at each x.

    Raises:
        TypeError, ValueError: as ``explicit_score_matching``; fewer than one slice; an unknown law.
    """
    _check(score, x, sigma)
    ops.check_count(n_slices, "n_slices")
    v = _directions(slices, x.expand(n_slices, *x.shape), generator)
    s, forms = ops.quadratic_form(score, x, sigma, v)
    if variance_reduced:
        return 0.5 * ops.dot(s, s) + forms.mean(0)  # Eq. (3)
    along = ops.sum_event((v * s).flatten(0, 1)).view(forms.shape)
    return (0.5 * along.square() + forms).mean(0)


def _directions(law: Slices, like: Tensor, generator: Generator | None) -> Tensor:
    """[n, B, *event] with identity second moment."""
    if law == "rademacher":
        return ops.rademacher_like(like, generator)
    if law == "gaussian":
        return ops.normal_like(like, generator)
    if law == "sphere":
        return ops.sphere_like(like, generator)
    raise ValueError(f'slices = {law!r}: the laws are "rademacher", "gaussian" and "sphere"; pass one of them')


def finite_difference_score_matching(
    score: Score, x: Tensor, sigma: Sigma = 0.0, *, step: float | None = None, generator: Generator | None = None
) -> Tensor:
    r"""The sliced objective without derivatives, ½‖s‖² + v·(s(x + hv) - s(x - hv)) / 2h. Source: pang2020, Sec. 3.

    v has random signs. The central difference errs by h²/6 times the third derivative of v·s along v, and by rounding,
    about eps |s| / h with eps the rounding unit; the default h balances the two for a density of width sigma, or of unit
    width where sigma = 0. It is a power of two and at least 16 eps |x|, so that x ± h is exact.

    On N(0, I), whose score is linear, the difference is exact but for rounding, 10/2 - 2:

    >>> import torch
    >>> from toyscore.distributions import GaussianMixture
    >>> from toyscore.losses import finite_difference_score_matching
    >>> p, x = GaussianMixture([[0.0, 0.0]]), torch.tensor([[1.0, 3.0]])
    >>> g = torch.Generator().manual_seed(0)
    >>> round(finite_difference_score_matching(p.score, x, generator=g).item(), 2)
    3.0

    Args:
        score, x, sigma: as ``explicit_score_matching``.
        step: h, in units of x; default, per example, ``eps^(1/3)`` times the width to the nearest power of two (0.004 in
            float32, 8e-6 in float64 for a unit width). Where sigma is far below the true width, a larger one is better.
        generator: of the signs.

    Returns:
        [B].

    Raises:
        TypeError, ValueError: as ``explicit_score_matching``; a step that is not positive.
    """
    _check(score, x, sigma)
    if step is not None:
        ops.check_positive(step, "step")
    h = _default_step(x, sigma) if step is None else step
    v = ops.rademacher_like(x, generator)
    s = ops.evaluate(score, x, sigma)
    difference = (ops.evaluate(score, x + h * v, sigma) - ops.evaluate(score, x - h * v, sigma)) / (2 * h)
    return 0.5 * ops.dot(s, s) + ops.dot(v, difference)


def _default_step(x: Tensor, sigma: Sigma) -> Tensor:
    """[B, 1, ...]."""
    eps = torch.finfo(x.dtype).eps
    width = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).expand(len(x))
    best = eps ** (1 / 3) * torch.where(width > 0, width, 1.0)
    exact = 16 * eps * ops.flatten(x.detach()).abs().amax(1)
    return ops.per_example(torch.maximum(best.log2().round(), exact.log2().ceil()).exp2(), x)


def denoising_score_matching(
    score: Score,
    x: Tensor,
    sigma: Sigma,
    *,
    weight: Callable[[Sigma], Sigma] | None = None,
    generator: Generator | None = None,
) -> Tensor:
    r"""Regression on the noise that was added, ½ w(σ) ‖s(x + σz, σ) + z/σ‖². Source: song2019, Eq. (5); vincent2011, Sec. 4.

    The score of N(x̃; x, σ²I) is :math:`-(\tilde x - x)/\sigma^2 = -z/\sigma`; averaged over the x that may have led to
    x̃ it is the score of q_sigma, which is therefore the minimiser.

    Even the exact score cannot know all of the noise: on N(0, I) its mean loss is D / (2 (1 + sigma²)), the least there is:

    >>> import torch
    >>> from toyscore.distributions import GaussianMixture
    >>> from toyscore.losses import denoising_score_matching
    >>> p, g = GaussianMixture([[0.0]]), torch.Generator().manual_seed(0)
    >>> x = p.sample(100_000, generator=g)
    >>> loss = denoising_score_matching(p.score, x, 2.0, generator=g)
    >>> round(loss.mean().item(), 2)
    0.1

    Args:
        score: the score function to fit.
        x: [B, *event], *clean* data.
        sigma: float | 0-d | [B], positive, in units of x.
        weight: w(sigma), given sigma as passed; default sigma² (the paper's lambda), which makes levels comparable.
        generator: of the noise.

    Returns:
        [B], not negative; about D/2 times w/σ² for a zero score.

    Raises:
        TypeError, ValueError: as ``explicit_score_matching``; sigma = 0.
    """
    _check(score, x, sigma, positive=True)
    z = ops.normal_like(x, generator)
    std = ops.expand(sigma, x)
    residual = std * ops.evaluate(score, x + std * z, sigma) + z
    value = 0.5 * ops.dot(residual, residual)  # Eq. (5), times sigma²
    if weight is None:
        return value
    ratio = weight(sigma) / sigma**2
    if isinstance(ratio, Tensor) and ratio.shape not in (value.shape, ()):
        raise ValueError(
            f"weight(sigma) has shape {list(ratio.shape)}: it must be a number or [{len(x)}], like sigma; do not reshape it"
        )
    return value * (ratio.to(value) if isinstance(ratio, Tensor) else ratio)


def noisy_cross_entropy(
    classifier: Classifier, x: Tensor, sigma: Sigma, *, generator: Generator | None = None
) -> Tensor:
    """How badly a classifier that knows the noise level tells the class of a noisy example, in nats. Source: song2021, Appendix I.

    No score matching, but called as the others are, so that ``fit`` and ``at_random_sigma`` serve it: its minimiser is p(y | x, sigma),
    the gradient of whose logarithm turns a score into that of a class.

    Args:
        classifier: ``(x, sigma)`` -> logits [B, K], for x [B, *event] and sigma [B]; its ``event`` is the shape of an example.
        x: [B, D + 1], *clean* examples with their labels, as ``data.Labelled`` draws them.
        sigma: float | 0-d | [B], in units of x.
        generator: of the noise.

    Returns:
        [B], not negative; log K for a classifier that knows nothing.

    Raises:
        TypeError, ValueError: x or sigma is not what it must be; rows that are not an example and a label.
    """
    ops.check_batch(x)
    ops.check_sigma(sigma, x)
    if not hasattr(classifier, "event"):
        raise TypeError(
            f"classifier is {type(classifier).__name__}: it must have .event, the shape of an example; use NoiseClassifier"
        )
    dim = math.prod(classifier.event)
    if x.shape[1:] != (dim + 1,):
        raise ValueError(
            f"x has shape {list(x.shape)}: it must be [B, {dim + 1}], the numbers of an example and its label; draw it from data.Labelled"
        )
    clean, labels = x[:, :-1].reshape(len(x), *classifier.event), x[:, -1].long()
    logits = classifier(clean + ops.expand(sigma, clean) * ops.normal_like(clean, generator), sigma)
    if ops.looks(x) and not bool(((x[:, -1] == labels) & (labels >= 0) & (labels < logits.shape[1])).all()):
        raise ValueError(
            f"labels are {x[:4, -1].tolist()} ...: the last number of a row must be a class, 0 to {logits.shape[1] - 1}; draw rows from "
            "data.Labelled"
        )
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return functional.cross_entropy(logits, labels, reduction="none")


def perturbed(loss: Loss) -> Loss:
    """A loss that takes x from q_sigma, made to take clean x: adds the noise, then calls it.

    N(0, 1) with noise of 2 is N(0, 5), whose score -x/5 has the implicit loss -E[x²/25] / 2 = -0.1 on average:

    >>> import torch
    >>> from toyscore.distributions import GaussianMixture
    >>> from toyscore.losses import implicit_score_matching, perturbed
    >>> p, g = GaussianMixture([[0.0]]), torch.Generator().manual_seed(0)
    >>> x, loss = p.sample(100_000, generator=g), perturbed(implicit_score_matching)
    >>> round(loss(p.score, x, 2.0, generator=g).mean().item(), 2)
    -0.1

    Raises:
        TypeError: loss cannot be called. ValueError: a loss of this module that adds the noise itself.
    """
    _check_loss(loss, noised=True)

    def wrapped(score: Score, x: Tensor, sigma: Sigma, /, *, generator: Generator | None = None) -> Tensor:
        _check(score, x, sigma)
        return loss(score, x + ops.expand(sigma, x) * ops.normal_like(x, generator), sigma, generator=generator)

    return wrapped


def at_random_sigma(loss: Loss, draw: Draw) -> Callable[..., Tensor]:
    """A noise-conditional objective: ``loss`` at a sigma drawn for each example. Source: song2019, Eq. (6).

    A score of zero leaves all of the noise, D/2 at every level:

    >>> import torch
    >>> from toyscore.distributions import two_modes
    >>> from toyscore.losses import at_random_sigma, denoising_score_matching
    >>> from toyscore.noise import levels
    >>> loss = at_random_sigma(denoising_score_matching, levels([3.0, 1.0]))
    >>> g = torch.Generator().manual_seed(0)
    >>> x = two_modes().sample(10_000, generator=g)
    >>> round(loss(lambda x, sigma: 0 * x, x, generator=g).mean().item(), 1)
    1.0

    Args:
        loss: one that takes clean x: the denoising loss, or another in :func:`perturbed`.
        draw: the law of sigma, e.g. ``levels(sigmas)`` or ``log_uniform(0.01, 50.0)``.

    Returns:
        ``loss(score, x, *, generator=None)`` -> [B], what ``train.fit`` takes.

    Raises:
        TypeError: loss or draw cannot be called. ValueError: a loss of this module that takes x from q_sigma, not perturbed.
    """
    _check_loss(loss, noised=False)
    if not callable(draw):
        raise TypeError(
            f"draw is {type(draw).__name__}: it must be a law of sigma, called as draw(n, generator=g); pass levels(sigmas)"
        )

    def conditional(score: Score, x: Tensor, *, generator: Generator | None = None) -> Tensor:
        ops.check_batch(x)
        return loss(score, x, draw(len(x), generator=generator).to(x), generator=generator)  # Eq. (6)

    return conditional


_OF_NOISED = (explicit_score_matching, implicit_score_matching, sliced_score_matching, finite_difference_score_matching)
_OF_CLEAN = (denoising_score_matching, noisy_cross_entropy)


def _check_loss(loss: object, *, noised: bool) -> None:
    """Refuse what is no loss and, of this module's, partial ones too, what takes the other kind of x: it would fit another density."""
    if not callable(loss):
        raise TypeError(
            f"loss is {type(loss).__name__}: it must be callable as loss(score, x, sigma, generator=g); pass e.g. "
            "denoising_score_matching"
        )
    while isinstance(loss, partial):
        loss = loss.func
    if noised and loss in _OF_CLEAN:
        raise ValueError(
            f"loss = {loss.__name__}: it must take x from q_sigma, and this one adds the noise itself; pass it as it is"
        )
    if not noised and loss in _OF_NOISED:
        raise ValueError(
            f"loss = {loss.__name__}: it must take clean x, and this one takes x from q_sigma; pass perturbed(loss)"
        )


def _check(score: Score, x: Tensor, sigma: Sigma, positive: bool = False) -> None:
    ops.check_score(score)
    ops.check_batch(x)
    ops.check_sigma(sigma, x, positive=positive)
