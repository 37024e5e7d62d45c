"""Covariances as a diagonal and a few modes: the same numbers as whole matrices have."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from openmm_diffsim.refinement.low_rank import LowRank

N = 12
RNG = np.random.default_rng(7)


def random(rank: int, dense: bool = False) -> LowRank:
    """Positive, though its core is not."""
    root = RNG.normal(size=(N, N))
    own = root @ root.T + np.eye(N) if dense else RNG.uniform(1, 2, N)
    core = RNG.normal(size=(rank, rank))
    core = core @ core.T
    if rank > 1:
        core[0, 0] -= 1e-3  # theory and frames mixed: not quite positive
    return LowRank.made(own, RNG.normal(size=(N, rank)), core)


CASES = [(0, False), (1, False), (5, False), (11, False), (12, False), (40, False), (4, True)]


@pytest.mark.parametrize(("rank", "dense"), CASES)
def test_it_computes_what_the_whole_matrix_does(rank: int, dense: bool) -> None:
    a, b = random(rank, dense), random(3)
    whole, other = a.dense(), b.dense()
    assert a.factor.shape[1] == (rank if rank < N else 0)
    x, y = RNG.normal(size=N), RNG.normal(size=(N, 4))
    scale = RNG.uniform(0, 2, N)
    tolerance = {"rtol": 1e-10, "atol": 1e-10}
    np.testing.assert_allclose(a.diagonal(), np.diag(whole), **tolerance)
    np.testing.assert_allclose(a @ x, whole @ x, **tolerance)
    np.testing.assert_allclose(a @ y, whole @ y, **tolerance)
    np.testing.assert_allclose((a + b).dense(), whole + other, **tolerance)
    np.testing.assert_allclose((b + a).dense(), whole + other, **tolerance)
    np.testing.assert_allclose((a + a).dense(), 2 * whole, **tolerance)
    for factors in (scale, np.full(N, 3.0)):
        expected = factors[:, None] * whole * factors
        np.testing.assert_allclose(a.scaled(factors).dense(), expected, **tolerance)
    np.testing.assert_allclose(a.inverse().dense(), np.linalg.inv(whole), **tolerance)
    assert a.trace_with(b) == pytest.approx(np.trace(whole @ other), rel=1e-10)
    assert b.trace_with(a) == pytest.approx(np.trace(whole @ other), rel=1e-10)


def test_what_shares_its_modes_adds_them_up() -> None:
    a = random(5)
    b = replace(a, own=RNG.uniform(1, 2, N), core=2 * a.core)
    assert (a + b).factor is a.factor
    np.testing.assert_allclose((a + b).dense(), a.dense() + b.dense(), rtol=1e-12)


def test_parts_are_independent_of_each_other() -> None:
    covariance = np.array([[2.0, 1.0], [1.0, 3.0]])
    both = LowRank.of_parts([np.array([4.0]), covariance]).dense()
    np.testing.assert_array_equal(both, [[4, 0, 0], [0, 2, 1], [0, 1, 3]])
    assert LowRank.of_parts([np.ones(2), np.ones(3)]).own.shape == (5,)
