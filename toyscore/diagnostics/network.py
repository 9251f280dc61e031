r"""Resistor networks on a grid, solved without a subtraction.

Nodes are joined to their neighbours by conductances :math:`c_{ij} > 0`. For sources b that sum to zero, potentials f solve

.. math:: \sum_j c_{ij} (f_i - f_j) = b_i.

Eliminating node k joins its neighbours i, j by :math:`c_{ik} c_{kj} / \sum_l c_{kl}` (the star-mesh transform) and hands them its source in
the same proportions: sums, products and quotients of positive numbers, so every conductance keeps its digits however many
orders of magnitude lie between them. Rows are eliminated from both ends towards the heaviest node, which is grounded last: what
rounding leaves of the sum of the sources ends there, where it cannot matter.
"""

from __future__ import annotations

from typing import Any

import numpy as np


class Half:
    """One side of a network, n rows of b nodes, eliminated row by row towards its last row, the middle."""

    def __init__(self, across: Any, along: Any) -> None:
        """``across`` [n, b]: conductances to the next row. ``along`` [n + 1, b - 1]: within the rows, the middle one included."""
        self.n, self.b = across.size, across.shape[1]
        band = np.zeros((len(across) + 2, self.b, self.b))  # of each node, the conductances to the next b
        band[: len(along), : self.b - 1, 0] = along
        band[: len(across), :, self.b - 1] += across
        self.band = band.reshape(-1)
        self.sums = np.empty(self.n)
        first, second = np.triu_indices(self.b, 1)
        to = (first + 1) * self.b + (second - first - 1)
        for k in range(self.n):
            row = self._row(k)
            self.sums[k] = row.sum()
            self.band[k * self.b + to] += row[first] * (row[second] / self.sums[k])  # the star becomes a mesh

    def _row(self, k: int) -> Any:
        return self.band[k * self.b : (k + 1) * self.b]

    def middle(self) -> Any:
        """[b, b], the conductances left between the nodes of the middle row."""
        left = np.zeros((self.b, self.b))
        for i in range(self.b - 1):
            left[i, i + 1 :] = self._row(self.n + i)[: self.b - 1 - i]
        return left + left.T

    def push(self, sources: Any) -> Any:
        """Hand sources [n + b, r] on towards the middle, in place; those of the middle row."""
        for k in range(self.n):
            sources[k + 1 : k + 1 + self.b] += (self._row(k) / self.sums[k])[:, None] * sources[k]
        return sources[self.n :]

    def pull(self, values: Any) -> None:
        """Make pushed sources [n + b, r], whose middle row holds potentials, potentials, in place."""
        for k in range(self.n - 1, -1, -1):
            shares = self._row(k) / self.sums[k]
            values[k] = values[k] / self.sums[k] + shares @ values[k + 1 : k + 1 + self.b]


class Network:
    """A grid of one or two dimensions: ``edges[d]`` joins neighbours along axis d, ``masses`` has the grid's shape."""

    def __init__(self, edges: list[Any], masses: Any) -> None:
        self.turned = masses.ndim == 2 and len(masses) < masses.shape[1]  # elimination is cheaper where rows are short
        if self.turned:
            edges, masses = [e.T for e in edges[::-1]], masses.T
        across, along = (edges[0], edges[1]) if masses.ndim == 2 else (edges[0][:, None], np.zeros((len(masses), 0)))
        self.shape = (len(masses), masses.size // len(masses))
        self.row, ground = np.unravel_index(int(masses.argmax()), self.shape)
        below = along[self.row :].copy()
        below[0] = 0  # the middle row is joined within itself once
        self.top = Half(across[: self.row], along[: self.row + 1])
        self.bottom = Half(across[self.row :][::-1, ::-1], below[::-1, ::-1])
        mesh = self.top.middle() + self.bottom.middle()[::-1, ::-1]
        self.order = np.append(np.delete(np.arange(len(mesh)), ground), ground)
        mesh = mesh[np.ix_(self.order, self.order)]
        self.shares, self.sums = np.zeros_like(mesh), np.ones(len(mesh))
        for k in range(len(mesh) - 1):
            links = mesh[k, k + 1 :].copy()
            self.sums[k] = links.sum()
            self.shares[k, k + 1 :] = links / self.sums[k]
            mesh[k + 1 :, k + 1 :] += links[:, None] * self.shares[k, k + 1 :]
            np.fill_diagonal(mesh, 0.0)

    def solve(self, sources: Any) -> Any:
        """Potentials [nodes, r] for sources [nodes, r] whose columns sum to zero; zero at the heaviest node."""
        r, b = sources.shape[1], self.shape[1]
        x = sources.reshape(*self.shape[::-1], r).swapaxes(0, 1) if self.turned else sources.reshape(*self.shape, r)
        top = x[: self.row + 1].reshape(-1, r).copy()
        bottom = x[self.row :][::-1, ::-1].reshape(-1, r).copy()
        bottom[-b:] = 0
        values = (self.top.push(top) + self.bottom.push(bottom)[::-1])[self.order]
        for k in range(b - 1):
            values[k + 1 :] += self.shares[k, k + 1 :, None] * values[k]
        values[-1] = 0
        for k in range(b - 2, -1, -1):
            values[k] = values[k] / self.sums[k] + self.shares[k, k + 1 :] @ values[k + 1 :]
        potentials = np.empty_like(values)
        potentials[self.order] = values
        top[-b:], bottom[-b:] = potentials, potentials[::-1]
        self.top.pull(top)
        self.bottom.pull(bottom)
        lower = bottom.reshape(-1, b, r)[::-1, ::-1]
        found = np.concatenate([top.reshape(-1, b, r), lower[1:]])
        return (found.swapaxes(0, 1) if self.turned else found).reshape(-1, r)
