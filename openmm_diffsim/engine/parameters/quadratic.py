"""Polynomials of second degree, which a few values of an energy say all about."""

from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]

MOST_DIRECTIONS = 12
"""So many numbers are learned in one polynomial at most: a frame costs 91 energies then."""


def monomials(z: Tensor, is_quadratic: bool = False) -> Tensor:
    """z_d, unless ``is_quadratic``, and z_d z_e of d <= e, of z [points, directions]."""
    d, e = products(z.shape[1])
    found = z[:, d] * z[:, e]
    return found if is_quadratic else torch.cat([z, found], dim=1)


def monomials_of(z: Array) -> Array:
    """Those of one z [directions]."""
    return np.asarray(monomials(torch.from_numpy(z[None])).numpy()[0])


def products(n: int) -> tuple[list[int], list[int]]:
    """All d <= e."""
    pairs = list(combinations_with_replacement(range(n), 2))
    return [d for d, _ in pairs], [e for _, e in pairs]


def points(size: Array, is_quadratic: bool = False) -> Array:
    """As many z as the polynomial has terms, [points, directions]: each by itself, and each two."""
    each = np.diag(size)
    d, e = products(len(size))
    both = (each[d] + each[e]) / (1.0 + np.equal(d, e))[:, None]
    return both if is_quadratic else np.concatenate([0 * each[:1], -each, both])


def solver(z: Array, is_quadratic: bool = False) -> Array:
    """From energies at ``points`` z to those of the ``monomials``, a matrix; no constant."""
    table = monomials(torch.from_numpy(z), is_quadratic).numpy()
    if is_quadratic:
        return np.asarray(np.linalg.inv(table))
    return np.asarray(np.linalg.inv(np.column_stack([np.ones(len(table)), table]))[1:])
