r"""Is it a score? What every exact score satisfies at each level, and the likely cause where one does not.

Of data :math:`x_0` with variance v per number, noised to :math:`x = x_0 + \sigma z` in D dimensions, the exact score is the
conditional mean of :math:`-z / \sigma` (vincent2011). Hence

.. math:: \frac{\sigma^2}{\sigma^2 + v} \;\le\; \frac{1}{D} E\|\sigma s\|^2 \;=\; -\frac{1}{D} E\langle \sigma s, z \rangle \;\le\; 1:

the score predicts a share of the noise, all of it where noise drowns the data, and at every level no less than the best guess that
treats all numbers alike does. Levels small beside the data therefore tell little: a score that is nothing passes there. A network that
predicts the noise and is taken for a score has :math:`-\sigma` times the right size, one that is not divided by sigma has
:math:`\sigma` times it, and so on: each confusion breaks this in a way of its own, so it is the likely cause if undoing it mends
every level.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Generator, Tensor

from toyscore import operators as ops
from toyscore.models.adapters import alpha_of, epsilon_score, rescaled, v_score, x0_score
from toyscore.noise import check_sigmas
from toyscore.operators import Distribution, Score

_SLACK = 0.1  # what a network that has merely learned badly may be off, relative
_CHANCE = 5.0  # standard errors
_FEWEST = 64  # examples, for errors that can be trusted

_Reading = Callable[[Tensor, Tensor, Tensor], Tensor]


class CalibrationWarning(UserWarning):
    """A function that is taken for a score and cannot be one."""


@dataclass(frozen=True)
class Calibration:
    """``.sigmas``, ``.size`` E‖σs‖²/D, ``.agreement`` -E<σs, z>/D and ``.floor`` σ²/(σ² + v), all [L]; ``.cause``, None for a score."""

    sigmas: Tensor
    size: Tensor
    agreement: Tensor
    floor: Tensor
    cause: str | None


@torch.no_grad()
def calibrate(
    score: Score,
    data: Distribution | Tensor,
    sigmas: Tensor | Sequence[float],
    *,
    n: int = 256,
    generator: Generator | None = None,
) -> Calibration:
    """Compare a score with what every exact one satisfies, and warn with the likely cause where it cannot be one.

    Args:
        score: called as ``score(x, sigma)`` with sigma a 0-d tensor.
        data: what it was trained on, in the units it is called with: anything that can be sampled, or examples [N, *event], from which
            rows are drawn.
        sigmas: the levels [L] to look at, strictly decreasing; at least one of them as large as the data's standard deviation.
        n: noised examples per level, at least 64.
        generator: of the examples and the noise.

    Warns:
        CalibrationWarning: at some level a bound is broken by more than a tenth and five standard errors.

    Raises:
        TypeError, ValueError: as ``score`` does; sigmas not decreasing; fewer than 64 examples; data that are neither.
    """
    ops.check_score(score)
    ops.check_count(n, "n", _FEWEST)
    clean = _examples(data, n, generator)
    x0, levels = clean.to(_device(score, clean)), check_sigmas(sigmas, dtype=clean.dtype)
    z = ops.normal_like(x0, generator)
    noised = [(sigma, x0 + sigma * z) for sigma in levels.to(x0.device)]
    outs = [ops.evaluate(score, x, sigma) for sigma, x in noised]
    floor = (levels.square() / (levels.square() + float(x0.var()))).cpu().double()

    def judged(scores: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Size and agreement, and where they cannot be an exact score's."""
        noise = [sigma * s for (sigma, _), s in zip(noised, scores, strict=True)]
        sizes, agreements = (
            torch.stack([_rows(part, other) for part, other in pairs])
            for pairs in ([(part, part) for part in noise], [(-part, z) for part in noise])
        )
        size, agreement = sizes.mean(1), agreements.mean(1)
        apart = (size - agreement).abs() <= _SLACK * torch.maximum(size, agreement.abs()) + _error(sizes - agreements)
        enough = agreement >= (1 - _SLACK) * floor - _error(agreements)
        return size, agreement, ~(apart & enough)

    size, agreement, wrong = judged(outs)
    if not wrong.any():
        return Calibration(levels, size, agreement, floor, None)
    cause = "no usual confusion explains it: look at the range of the data, the order of the levels and the clock"
    if not any(_tells(s, other) for s, (_, x) in zip(outs, noised, strict=True) for other in (z, x)):
        cause = "it tells nothing of x or of the noise: was it trained, and were its weights loaded?"
    else:
        mended = {}
        for words, scores in _mended(score, noised, outs):
            s, a, still = judged(scores)
            if not still.any():
                mended[words] = float((s - 2 * a).mean())  # the denoising loss, less one
        cause = min(mended, key=lambda words: mended[words]) if mended else cause
    at = int(wrong.nonzero()[0])
    warnings.warn(
        f"this is no score of these data: at sigma = {float(levels[at]):.4g} E||sigma s||²/D is {float(size[at]):.3g} and -E<sigma s, z>/D "
        f"is {float(agreement[at]):.3g}, which must be equal and between {float(floor[at]):.3g} and 1; {cause}",
        CalibrationWarning,
        stacklevel=3,  # beyond no_grad
    )
    return Calibration(levels, size, agreement, floor, cause)


def _examples(data: Distribution | Tensor, n: int, generator: Generator | None) -> Tensor:
    if isinstance(data, Tensor):
        ops.check_batch(data, "data")
        ops.check_finite(data, "data")
        device = ops.source(generator, data)
        return data[torch.randint(len(data), (n,), generator=generator, device=device).to(data.device)]
    sample = getattr(data, "sample", None)
    if not callable(sample) or "generator" not in inspect.signature(sample).parameters:
        raise TypeError(
            f"data is {type(data).__name__}: it must be a tensor [N, *event], or have sample(n, generator=None); pass examples, as a tensor"
        )
    return data.sample(n, generator=generator)


def _mended(
    score: Score, noised: list[tuple[Tensor, Tensor]], outs: list[Tensor]
) -> Iterator[tuple[str, list[Tensor]]]:
    """Each confusion that may have happened, and the scores with it undone."""
    for words, undo in _confusions():
        yield (
            words,
            [undo(s, x, ops.per_example(sigma.expand(len(x)), x)) for s, (sigma, x) in zip(outs, noised, strict=True)],
        )
    for words, other in (
        ("it was trained on data in [-1, 1]: wrap it as rescaled(score, 2.0, -1.0)", rescaled(score, 2.0, -1.0)),
        (
            "it was trained on data in [0, 1], these are in [-1, 1]: rescaled(score, 0.5, 0.5)",
            rescaled(score, 0.5, 0.5),
        ),
    ):
        try:
            scores = [ops.evaluate(other, x, sigma) for sigma, x in noised]
        except (
            Exception
        ):  # somebody else's function: twice or half a sigma may be none of its levels, and it says so as it likes
            continue
        yield words, scores


def _confusions() -> Iterator[tuple[str, _Reading]]:
    """What was probably done, and how to undo it."""
    yield "its sign is wrong: negate it", lambda s, x, std: -s
    yield "its output is not divided by sigma: divide it", lambda s, x, std: s / std
    yield "its output is divided by sigma once too often: multiply it by sigma", lambda s, x, std: s * std
    yield "it is half the score: double it", lambda s, x, std: 2 * s
    yield "it is twice the score: halve it", lambda s, x, std: s / 2
    names = {"score": "a score", "epsilon": "epsilon", "v": "v", "x0": "x0"}
    for used, output in _OUTPUTS.items():
        for meant, reading in _READINGS.items():
            if used != meant:
                words = f"it predicts {names[meant]} and is read as {names[used]}"
                remedy = "use it as it is" if meant == "score" else f"wrap it with from_{meant}"
                yield f"{words}: {remedy}", partial(_reread, output, reading)


def _reread(output: _Reading, reading: _Reading, s: Tensor, x: Tensor, std: Tensor) -> Tensor:
    return reading(output(s, x, std), x, std)


def _v_output(s: Tensor, x: Tensor, std: Tensor) -> Tensor:
    alpha = alpha_of(std)
    return (-std * s - alpha * std * (alpha * x)) / alpha


_READINGS: dict[str, _Reading] = {
    "score": lambda out, x, std: out,
    "epsilon": epsilon_score,
    "v": v_score,
    "x0": x0_score,
}
_OUTPUTS: dict[str, _Reading] = {  # the inverses: what the network must have returned
    "score": lambda s, x, std: s,
    "epsilon": lambda s, x, std: -std * s,
    "v": _v_output,
    "x0": lambda s, x, std: x + std * std * s,
}


def _rows(a: Tensor, b: Tensor) -> Tensor:
    """<a, b> / D of each example, on the CPU in float64: a wrong score can be huge. [n]"""
    return ops.dot(a, b).cpu().double() / a[0].numel()


def _error(rows: Tensor) -> Tensor:
    """As far as chance may lead the mean of [..., n]."""
    return _CHANCE * rows.std(-1) / math.sqrt(rows.shape[-1])


def _tells(s: Tensor, other: Tensor) -> bool:
    """Whether an output goes with something, beyond chance, or is not even a number."""
    rows = _rows(s - s.mean(0), other - other.mean(0))
    return not bool(rows.mean().abs() <= _error(rows))


def _device(score: Score, x: Tensor) -> torch.device:
    parameters = getattr(score, "parameters", None)
    return next((p.device for p in parameters()), x.device) if callable(parameters) else x.device
