"""toyscore: score-based generative models with exact truth beside every learned thing.

A score function is any callable ``score(x, sigma)`` returning the gradient of the log density of ``x`` perturbed by Gaussian
noise of standard deviation ``sigma``; every loss, sampler, metric and plot works on any of them. Start with::

    from toyscore.distributions import two_modes
    from toyscore.samplers import final, langevin

The modules, in the order in which they build on each other: ``operators``, ``distributions``, ``noise``, ``losses``, ``sde``,
``samplers``, ``likelihood``, ``diagnostics``, ``metrics``, ``models``, ``train``, ``data``, ``plotting``, ``widgets``, ``config``,
``build``, ``pretrained``, ``cli``. Each is imported when it is first used.
"""

from importlib import import_module
from types import ModuleType

__version__ = "0.1.0"
__all__ = [
    "build",
    "config",
    "data",
    "diagnostics",
    "distributions",
    "likelihood",
    "losses",
    "metrics",
    "models",
    "noise",
    "operators",
    "plotting",
    "pretrained",
    "samplers",
    "sde",
    "train",
    "widgets",
]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return import_module(f"toyscore.{name}")
    raise AttributeError(f"module 'toyscore' has no attribute {name!r}: its modules are {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
