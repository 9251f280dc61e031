"""What several figures need, computed once: sampled digits and a network, kept under ``build/cache`` of a clone; and seeds.

A file of the cache is named by a digest of all that its arrays follow from: the module of the function, the sources and weights of the
package, the versions that compute, and the arguments. Whatever changes is computed anew, and so is what a damaged file held. Of two
processes that want the same arrays one computes, and the other waits.
"""

from __future__ import annotations

import hashlib
import inspect
import platform
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial, wraps
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

import toyscore
from toyscore import data, losses, noise, pretrained, sde
from toyscore._writing import replacing
from toyscore.build import sampling_plan
from toyscore.data.files import cache_folder
from toyscore.distributions import GaussianMixture
from toyscore.metrics import Classifier, fit_classifier
from toyscore.models import MLP
from toyscore.operators import Score, Sigma, normal_like
from toyscore.samplers import ancestral, final, inpaint
from toyscore.train import fit

CLONE = Path(__file__).parent.parent
CACHE = CLONE / "build" / "cache" if (CLONE / "pyproject.toml").exists() else cache_folder() / "figures"
LIBRARIES = ("torch", "numpy", "scipy", "scikit-learn")
LEVELS = (20.0, 0.02, 25)  # of the digits' chains: a call of the network at each
N_ROWS = 4  # of a digit's pixels, from above, that are known where the others are drawn

Arrays = dict[str, np.ndarray]
T = TypeVar("T")


def seeded(seed: int, build: Callable[[], T]) -> T:
    """What ``build()`` makes of torch's global random numbers from ``seed`` on; afterwards they are as before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def remembered(score: Score) -> Score:
    """The score, which is not computed again for the same x and sigma: guidance needs it in the likelihood, and once more next to it."""
    last: list[Tensor] = []

    def at(x: Tensor, sigma: Sigma) -> Tensor:
        level = torch.as_tensor(sigma)
        if last and not x.requires_grad and torch.equal(x, last[0]) and torch.equal(level, last[1]):
            return last[2]
        value = score(x, sigma)
        last[:] = x.detach().clone(), level, value.detach()  # a sampler may write into x
        return value

    return at


@cache
def package() -> str:
    """A digest of the sources and weights of the package, and of what computes with them."""
    folder = Path(toyscore.__file__).parent
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".py", ".json", ".safetensors"))
    found = [(path.relative_to(folder).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()) for path in files]
    computing = [platform.machine(), platform.python_version(), *map(version, LIBRARIES)]
    return hashlib.sha256(repr((found, computing)).encode()).hexdigest()


def _told(argument: object) -> str:
    """All that an argument is."""
    if isinstance(argument, GaussianMixture):
        return repr([part.tolist() for part in (argument.means, argument.covariances, argument.weights)])
    return repr(argument)


def once(compute: Callable[..., Arrays]) -> Callable[..., Arrays]:
    """The function, its arrays being kept from one call, process and run to the next."""

    @wraps(compute)
    def kept(*arguments: object) -> Arrays:
        source = Path(inspect.getfile(compute)).read_text()
        name = repr((package(), source, compute.__name__, [_told(a) for a in arguments]))
        path = CACHE / f"{compute.__name__}-{hashlib.sha256(name.encode()).hexdigest()[:32]}.npz"
        CACHE.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            try:
                with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                    return dict(arrays)
            except (OSError, ValueError, EOFError, zipfile.BadZipFile):  # none yet, or a damaged one
                found = compute(*arguments)
                with replacing(path) as new:
                    np.savez(new, **found)
                return found

    return kept


def chain_of_digits(n: int, seed: int, score: Score | None = None) -> Iterator[Tensor]:
    """Ancestral sampling with the network of digits along ``LEVELS``, then to no noise: states [n, 1, 8, 8], the start first.
    Source: song2021, Eq. (47). ``score`` is called in place of the network.
    """
    trained, process = pretrained.digits(), sde.VE(LEVELS[1] / 2, LEVELS[0])
    times = [*sde.level_times(process, noise.karras(*LEVELS)).tolist(), 0.0]
    generator = torch.Generator().manual_seed(seed)
    start = trained.data["mean"] + process.prior_sample((n, *trained.data["event"]), generator=generator)
    return chain([start], ancestral(process, score or trained.network, start, times, generator=generator))


@once
def sampled_digits(n: int, seed: int) -> Arrays:
    """The ends of such chains."""
    return {"samples": final(chain_of_digits(n, seed)).numpy()}


def digits(seed: int, quick: bool) -> np.ndarray:
    """Samples of the network of digits, [360, 1, 8, 8], as many as there are held-out digits; 64 for a quick look."""
    return sampled_digits(64 if quick else 360, seed)["samples"]


def halves() -> tuple[Tensor, Tensor]:
    """The first held-out digit of each class, [10, 1, 8, 8], and which of its pixels are known, the upper ones."""
    held = data.digits("held-out")
    mask = torch.zeros(held.event, dtype=torch.bool)
    mask[:, :N_ROWS] = True
    return held.tensor()[[int(np.flatnonzero(held.labels == k)[0]) for k in range(10)]], mask


@once
def completions(n_each: int, n_steps_each: int, seed: int) -> Arrays:
    """Lower halves of digits given the upper ones, [10, n_each, 1, 8, 8], by ``inpaint`` along few of the configured levels.
    Source: song2019, Algorithm 2.
    """
    trained, (truth, mask) = pretrained.digits(), halves()
    sampling = replace(trained.config.sampling, n_levels=8, n_steps_each=n_steps_each)
    plan = sampling_plan(replace(trained.config, sampling=sampling))
    del plan["clamp"]
    known, generator = truth.repeat_interleave(n_each, 0), torch.Generator().manual_seed(seed)
    start = trained.data["mean"] + float(plan["sigmas"][0]) * normal_like(known, generator)
    drawn = final(inpaint(trained.network, start, known=known, mask=mask, generator=generator, **plan))
    return {"drawn": drawn.view(len(truth), n_each, *truth.shape[1:]).numpy()}


def completed(seed: int, quick: bool) -> Tensor:
    """Eight such completions of each digit; two for a quick look."""
    n_each, n_steps_each = (2, 1) if quick else (8, 8)
    return torch.from_numpy(completions(n_each, n_steps_each, seed)["drawn"])


@once
def logistic_regression(n_rows: int) -> Arrays:
    """Weights of a classifier of the upper ``n_rows`` of the training digits' rows."""
    train = data.digits("train")
    model = fit_classifier(replace(train, values=train.values[:, :, :n_rows])).model
    return {"coef_": model.coef_, "intercept_": model.intercept_, "classes_": model.classes_}


def judge(n_rows: int = 8) -> Classifier:
    """That classifier; of whole digits by default."""
    from sklearn.linear_model import (
        LogisticRegression,  # here, since it is slow to import and the first picture needs none
    )

    weights, model = logistic_regression(n_rows), LogisticRegression()
    vars(model).update(weights)
    return Classifier(model, weights["coef_"].shape[1])


@once
def paper_network(p: GaussianMixture, seed: int, n_steps: int) -> Arrays:
    """The weights of the paper's network after sliced score matching. Source: song2019, Figure 2."""
    model, loss = seeded(seed, MLP), partial(losses.sliced_score_matching, slices="gaussian")
    for _ in fit(model, p, loss, n_steps=n_steps, seed=seed):
        pass
    return {name: value.numpy() for name, value in model.state_dict().items()}
