"""Polynomials of parameters, told from their values."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from openmm_diffsim.statistics.polynomials import polynomial_of

CENTRE, SCALE = np.array([2.0, -1.0, 0.5]), np.array([1.0, 0.5, 2.0])
POLYNOMIALS = {
    "linear": (lambda a, b, c: 3 * a - b + 2 * c + 1, 3),
    "quadratic": (lambda a, b, c: a * b - c**2 + a, 9),
    "bond": (lambda a, b, c: a * (c - b) ** 2, 17),
    "quartic": (lambda a, b, c: a * b**4 + c**3, 39),
}


@pytest.mark.parametrize("name", POLYNOMIALS)
def test_the_simplest_is_found_and_exact(name):
    function, n_monomials = POLYNOMIALS[name]
    rng = np.random.default_rng(1)
    found = polynomial_of(lambda p: np.array([function(*p), 2 * function(*p)]), CENTRE, SCALE)
    assert len(found) == n_monomials
    features = found.features(np.array([function(*p) for p in found.nodes]))
    zero = function(*CENTRE)
    for p in CENTRE + 5 * rng.normal(size=(20, 3)):
        m = found.monomials(torch.from_numpy(p)).numpy()
        assert zero + m @ features == pytest.approx(function(*p), rel=1e-9)


@pytest.mark.parametrize(
    "function",
    [
        lambda a, b, c: np.exp(a),
        lambda a, b, c: np.sqrt(a + 10),
        lambda a, b, c: abs(b + 1),
        lambda a, b, c: a**5,
        lambda a, b, c: np.float64(1) / 0,
        lambda a, b, c: 1e-3 * np.cos(b) + a,
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_anything_else_is_none(function):
    assert polynomial_of(lambda p: np.array([function(*p)]), CENTRE, SCALE) is None


def test_one_function_of_several_that_is_none_is_enough():
    assert polynomial_of(lambda p: np.array([p[0], np.exp(p[0])]), CENTRE, SCALE) is None


def test_blocks_have_nothing_to_do_with_each_other():
    """As the bonds k (r - r_0)^2 / 2 of many kinds."""
    n, r = 20, np.linspace(0.1, 0.2, 20)
    blocks = [(2 * i, 2 * i + 1) for i in range(n)]

    def bonds(p):
        return np.array([np.sum(p[::2] * (r - p[1::2]) ** 2)])

    found = polynomial_of(bonds, np.tile([3.0, 0.15], n), np.tile([1.0, 0.05], n), blocks)
    assert len(found) == 5 * n
    p = np.random.default_rng(0).uniform(0, 5, size=2 * n)
    values = np.array([bonds(node)[0] for node in found.nodes])
    assert found.at(values, p) == pytest.approx(bonds(p)[0], rel=1e-9)


def test_many_parameters_are_linear_or_not_at_all():
    n = 40
    zero, one = np.zeros(n), np.ones(n)
    assert len(polynomial_of(lambda p: np.array([p.sum()]), zero, one)) == n
    assert polynomial_of(lambda p: np.array([p[0] * p[1]]), zero, one) is None
