"""Networks with the type of a score function: ``model(x, sigma)`` -> like x."""

from toyscore.models.mlp import MLP

__all__ = ["MLP"]
