"""Networks with the type of a score function: ``model(x, sigma)`` -> like x."""

from toyscore.models.ema import EMA
from toyscore.models.mlp import MLP
from toyscore.models.ncsn import NCSN, CompactNCSN, ContinuousNCSN

__all__ = ["EMA", "MLP", "NCSN", "CompactNCSN", "ContinuousNCSN"]
