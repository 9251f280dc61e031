"""What theory predicts: the law of a chain without sampling it, and how slowly it mixes.

Where the truth is a mixture, each failure of Langevin dynamics has a number that can be computed before a chain is run:

- ``propagate``: the law of the discretised chain, plain or annealed, and so the weights of the modes that it must give;
- ``spectral_gap``: the rate of hops between modes, also where it is 1e-11; ``eyring_kramers`` estimates and ``hop_rate`` counts it.

Everything is float64 on the CPU; results are Python floats or CPU tensors.
"""

from toyscore.diagnostics.propagation import Cloud, Law, Stage, annealed_stages, propagate, reduce, uniform_cloud
from toyscore.diagnostics.spectrum import HopRate, SlowModes, eyring_kramers, hop_rate, slow_modes, spectral_gap

__all__ = [
    "Cloud",
    "HopRate",
    "Law",
    "SlowModes",
    "Stage",
    "annealed_stages",
    "eyring_kramers",
    "hop_rate",
    "propagate",
    "reduce",
    "slow_modes",
    "spectral_gap",
    "uniform_cloud",
]
