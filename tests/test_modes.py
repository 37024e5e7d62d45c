"""Modes: how slow each is, how far theory is believed, and what frames and theory say together."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from openmm_diffsim.refinement.modes import Modes, Seen, inefficiency
from openmm_diffsim.statistics.correlated import assign_blocks

Array = NDArray[np.float64]

N = 12  # values


def autoregressive(memory: Array, n: int, rng: np.random.Generator) -> Array:
    """Series of unit variance, x_t = memory x_(t-1) + noise, [n, series]."""
    x = np.empty((n, len(memory)))
    x[0] = rng.normal(size=len(memory))
    for t in range(1, n):
        x[t] = memory * x[t - 1] + np.sqrt(1 - memory**2) * rng.normal(size=len(memory))
    return x


def covariance_of(rng: np.random.Generator) -> Array:
    root = rng.normal(size=(N, N)) / np.sqrt(N)
    return np.asarray(root @ root.T + 0.1 * np.eye(N))


def seen(modes: Modes, values: Array) -> Seen:
    weights = np.full(len(values), 1 / len(values))
    return Seen(modes, values - values.mean(axis=0), weights, assign_blocks([len(values)]), weights)


def test_the_inefficiency_of_each_mode_is_its_own() -> None:
    """(1 + m) / (1 - m) for a memory m, to 40 % from 4000 frames; none of what never changes."""
    memory = np.repeat([0.0, 0.5, 0.9], 4)
    x = autoregressive(memory, 4000, np.random.default_rng(1))
    found = seen(Modes.of(np.eye(N), np.ones(N), [N]), x).inefficiency.reshape(3, 4).mean(axis=1)
    np.testing.assert_allclose(found, [1.0, 3.0, 19.0], rtol=0.4)
    constant = seen(Modes.of(np.eye(N), np.ones(N), [N]), np.zeros((40, N)))
    np.testing.assert_array_equal(constant.inefficiency, np.ones(N))


def test_modes_span_the_values_and_a_scalar_is_one() -> None:
    rng = np.random.default_rng(2)
    reference = covariance_of(rng)
    unit = np.where(np.arange(N) < 8, np.diag(reference), np.nan)
    modes = Modes.of(reference, unit, [8, 3, 1])
    np.testing.assert_allclose(modes.inverse @ modes.basis, np.eye(N), atol=1e-10)
    np.testing.assert_array_equal(modes.known, np.isfinite(modes.strength))
    assert modes.known.sum() == 8
    known = modes.basis[:, modes.known]
    np.testing.assert_allclose((known @ known.T)[:8, :8], reference[:8, :8], rtol=1e-10)
    assert np.count_nonzero(modes.basis[11]) == 1  # the scalar


def test_what_is_no_covariance_and_what_never_changes_is_not_believed() -> None:
    reference = np.diag([1.0, 1.0, 0.0, 1e-9])
    reference[0, 1] = reference[1, 0] = 1.5  # one eigenvalue is negative
    modes = Modes.of(reference, np.array([1.0, 1.0, 0.0, 1e-9]), [4])
    assert modes.basis.shape == (4, 2)
    assert modes.known.sum() == 1 and modes.strength[modes.known] == pytest.approx(2.5)
    assert not modes.basis[2:].any()


def test_theory_keeps_its_weight_where_it_is_right_and_loses_it_where_it_is_not() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(400, N))
    x[:, 0] *= 3.0  # theory: variance one
    x[:, 1] *= 0.3
    left_to_frames = seen(Modes.of(np.eye(N), np.ones(N), [N]), x).share_by_evidence(1500)
    assert left_to_frames[:2].min() > 0.9
    assert left_to_frames[2:].max() < 0.4
    amplified = seen(Modes.of(np.diag([9.0] + [1.0] * 11), np.ones(N), [N]), x)
    # right, but of a wave 9 times as large as independent counts are: known less well beforehand
    assert left_to_frames[2:].max() < amplified.share_by_evidence(1500)[-1] < 0.98


def test_frames_and_theory_are_the_ends_of_what_is_mixed() -> None:
    rng = np.random.default_rng(4)
    reference = covariance_of(rng)
    x = rng.multivariate_normal(np.zeros(N), reference, size=60)
    s = x @ rng.normal(size=(N, 5)) + 0.1 * rng.normal(size=(60, 5))
    found = seen(Modes.of(reference, np.diag(reference), [N]), x)
    of_frames = (x - x.mean(axis=0)).T @ s / 60
    of_theory = rng.normal(size=(N, 5))
    whole, nothing = np.ones(N), np.zeros(N)
    np.testing.assert_allclose(found.jacobian(of_frames, of_theory, whole), of_frames, atol=1e-10)
    np.testing.assert_allclose(found.jacobian(of_frames, of_theory, nothing), of_theory, atol=1e-10)
    slow = found.modes.basis * np.sqrt(found.inefficiency)
    np.testing.assert_allclose(found.frame_covariance(nothing), slow @ slow.T, rtol=1e-9)
    scale = np.sqrt(found.inefficiency)
    bare = found.modes.inverse @ found.frame_covariance(whole) @ found.modes.inverse.T
    np.testing.assert_allclose(bare / np.outer(scale, scale), found.covariance, atol=1e-9)


def test_one_large_fluctuation_does_not_spoil_the_response_of_all_others() -> None:
    """All features share a slow wave of many times the size, of which few frames tell."""
    rng = np.random.default_rng(5)
    size = np.array([30.0] + [1.0] * (N - 1))
    through = rng.normal(size=(N, 6))
    exact = size[:, None] ** 2 * through
    theory = size**2 * (1 + 0.1 * rng.normal(size=N))
    errors = []
    for _ in range(50):
        x = size * rng.normal(size=(100, N))
        s = x @ through
        found = seen(Modes.of(np.diag(theory), np.ones(N), [N]), x)
        share = np.where(np.arange(N) == N - 1, 0.02, 0.3)  # modes by size
        of_frames = (x - x.mean(axis=0)).T @ s / 100
        of_theory = theory[:, None] * through
        mixed = found.jacobian(of_frames, of_theory, share)
        plain = of_theory + share[:, None] * (of_frames - of_theory)
        errors.append([np.abs(j - exact)[1:].mean() for j in (mixed, plain)])
    ours, plainly = np.mean(errors, axis=0)
    assert ours < 0.5 * plainly


def test_what_is_slower_than_a_run_shows_between_runs() -> None:
    """Eight runs of 100, one series of memory 80 frames: far more than what is seen within them."""
    rng = np.random.default_rng(6)
    memory = np.array([np.exp(-1 / 80)] * 10 + [0.0] * 10)
    found = []
    for _ in range(5):
        x = autoregressive(memory, 800, rng)
        runs = assign_blocks([100] * 8)
        found.append(
            inefficiency(x - x.mean(axis=0), np.full(800, 1 / 800), runs, np.full(800, 0.01))
        )
    slow, white = np.mean(found, axis=0).reshape(2, 10).mean(axis=1)
    assert 40 < slow < 200 and 1 <= white < 1.5  # 160 and 1


def test_runs_of_other_parameters_make_no_noise() -> None:
    """Each has its own share of the average, which is not by chance."""
    rng = np.random.default_rng(7)
    n, shift = 2000, 0.7
    centre = np.repeat([-shift, shift], 2 * n)
    x = rng.normal(size=4 * n) + centre
    density = np.exp(-((x + shift) ** 2) / 2) + np.exp(-((x - shift) ** 2) / 2)
    weights = np.exp(-(x**2) / 2) / density
    weights /= weights.sum()
    deviations = (x - weights @ x)[:, None]
    alone = np.exp(((x - centre) ** 2 - x**2) / 2).reshape(4, n)
    alone = (alone / alone.sum(axis=1, keepdims=True)).ravel()
    assert inefficiency(deviations, weights, assign_blocks([n] * 4), alone)[0] < 1.5
