"""toyscore: score-based generative models with exact truth beside every learned thing.

A score function is any callable ``score(x, sigma)`` returning the gradient of the log density of ``x`` perturbed by Gaussian
noise of standard deviation ``sigma``; every loss, sampler, metric and plot works on any of them. Start with::

    from toyscore.distributions import two_modes
    from toyscore.samplers import final, langevin

The modules, in the order in which they build on each other: ``operators``, ``distributions``, ``noise``, ``losses``,
``samplers``, ``metrics``, ``models``, ``train``, ``plotting``. All but ``plotting`` come with ``import toyscore``.
"""

from toyscore import distributions, losses, metrics, models, noise, operators, samplers, train

__version__ = "0.1.0"
__all__ = ["distributions", "losses", "metrics", "models", "noise", "operators", "samplers", "train"]
