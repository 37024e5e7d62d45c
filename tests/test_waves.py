"""A covariance of few frames, shrunk toward independent modes, against one that is known."""

from __future__ import annotations

import numpy as np
import pytest

from openmm_diffsim.observables.base import CountedPairs
from openmm_diffsim.refinement.modes import Modes, Seen, inefficiency
from openmm_diffsim.refinement.waves import pair_sums, prior_frames, wave_modes
from openmm_diffsim.statistics.correlated import assign_blocks

BINS, FUNCTIONS = 40, 20
R = (np.arange(BINS) + 0.5) * 0.02
SHELLS = 4 * np.pi * R**2 * 0.02
G = np.where(R > 0.2, 1 + np.exp(-(((R - 0.35) / 0.05) ** 2)), 0.0)
BASIS = np.exp(-(((R[:, None] - np.linspace(0.2, 0.8, FUNCTIONS)) / 0.03) ** 2))


def modes_of(covariance: np.ndarray) -> Modes:
    counted = [(slice(0, BINS), CountedPairs(np.ones(1), R, SHELLS))]
    return wave_modes(counted, G, covariance)


def exact(mixing: float = 0.0) -> np.ndarray:
    """Waves of which the long ones hardly fluctuate; ``mixing`` makes them depend on each other."""
    modes = modes_of(np.diag(G / SHELLS))
    n = len(modes.inverse)
    amplitude = 0.05 + np.arange(n) / n
    root = modes.basis * amplitude
    turned = np.linalg.qr(np.eye(n) + mixing * np.random.default_rng(3).normal(size=(n, n)))[0]
    return root @ turned @ np.diag(np.linspace(0.5, 2, n) ** (mixing > 0)) @ turned.T @ root.T


def drawn(covariance: np.ndarray, n: int, seed: int) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    white = np.random.default_rng(seed).normal(size=(n, len(values)))
    return G + white @ (vectors * np.sqrt(np.maximum(values, 0))).T


def shrunk(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Covariance, Cov(A, S), and the largest share of what is known beforehand."""
    reach = (BASIS * SHELLS[:, None]).T
    n = len(values)
    a = values - values.mean(axis=0)
    modes = modes_of(a.T @ a / n)
    seen = Seen(modes, a, np.full(n, 1 / n), assign_blocks([n]), np.full(n, 1 / n))
    share = seen.share(prior_frames(np.linalg.eigvalsh(seen.covariance), n))
    target = modes.basis @ modes.basis.T @ reach.T
    linked = np.ones(len(modes.inverse), dtype=bool)
    response = seen.jacobian(a.T @ (a @ reach.T) / n, target, share, linked)
    covariance = modes.basis @ seen.mixed_covariance(share) @ modes.basis.T
    return covariance, response, float(np.median(1 - share))


def step_error(covariance: np.ndarray, response: np.ndarray, true: np.ndarray) -> float:
    """Of a Gauss-Newton step for a known change, in units of what the step has to change."""
    reach = (BASIS * SHELLS[:, None]).T
    change = np.sin(np.arange(FUNCTIONS))
    seen = G > 0

    def solved(c: np.ndarray, j: np.ndarray) -> np.ndarray:
        weighted = np.linalg.pinv(c[np.ix_(seen, seen)]) @ j[seen]
        ridge = 1e-6 * np.eye(FUNCTIONS)
        return np.linalg.solve(
            j[seen].T @ weighted + ridge, weighted.T @ (true @ reach.T @ change)[seen]
        )

    found = true @ reach.T @ (solved(covariance, response) - change)
    weighting = np.linalg.pinv(true[np.ix_(seen, seen)])
    wanted = (true @ reach.T @ change)[seen]
    return float(np.sqrt(found[seen] @ weighting @ found[seen] / (wanted @ weighting @ wanted)))


def test_modes_of_counts_span_what_is_counted() -> None:
    modes = modes_of(np.diag(G / SHELLS))
    np.testing.assert_allclose(modes.basis @ modes.inverse, np.diag((G > 0) * 1.0), atol=1e-12)


def test_counts_of_independent_particles_are_white() -> None:
    """Poisson counts: all waves have the same variance, to 5 standard errors, and none else."""
    counts = np.random.default_rng(1).poisson(200 * G * SHELLS, (4000, BINS))
    modes = modes_of(np.diag(G / SHELLS) / 200)
    waves = (counts / (200 * SHELLS) - G) @ modes.inverse.T
    covariance = np.cov(waves.T)
    error = np.sqrt((1 + np.eye(len(covariance))) / 4000)
    assert np.abs((covariance - np.eye(len(covariance))) / error).max() < 5


@pytest.mark.parametrize("mixing", [0.0, 0.02])
def test_a_step_from_few_frames_errs_less_than_half_as_much(mixing: float) -> None:
    true = exact(mixing)
    reach = (BASIS * SHELLS[:, None]).T
    errors = []
    for seed in range(5):
        values = drawn(true, 60, seed)
        covariance, response, _ = shrunk(values)
        bare = np.cov(values.T, bias=True)
        plain = step_error(bare, bare @ reach.T, true)
        errors.append((plain, step_error(covariance, response, true)))
    bare_error, error = np.median(errors, axis=0)
    assert error < 0.5 * bare_error


def test_frames_overrule_a_wrong_target() -> None:
    """Waves that depend on each other strongly: the share falls as 1/n, and with it the error."""
    true = exact(1.0)
    shares, errors = [], []
    for n in (100, 1000, 10_000):
        covariance, _, share = shrunk(drawn(true, n, n))
        shares.append(share)
        errors.append(np.linalg.norm(covariance - true) / np.linalg.norm(true))
    assert shares[2] < 0.03 and shares[2] < shares[1] < shares[0]
    assert errors[2] < 0.05 and errors[2] < errors[1] < errors[0]


def test_evidence_tells_a_right_target_from_a_wrong_one() -> None:
    rng = np.random.default_rng(5)
    right = np.linalg.eigvalsh(np.cov(rng.normal(size=(200, 30)).T, bias=True))
    assert prior_frames(right, 200) > 89  # as far as it may go, three per value
    wrong = right * np.linspace(0.1, 3, 30)
    assert prior_frames(wrong, 200) < 60


def test_pair_sums_finds_which_pairs_are_counted() -> None:
    """Two g(r), three pairs of types; the third is half of each."""
    rng = np.random.default_rng(2)
    counts = [rng.poisson(50 * SHELLS * G, (80, BINS)).astype(float) for _ in range(2)]
    sums = [c @ BASIS for c in counts]
    features = np.stack([3 * sums[0], 0.5 * sums[1], sums[0] + sums[1]], axis=1)
    found = pair_sums(counts, [BASIS, BASIS], features, np.full(80, 1 / 80))
    np.testing.assert_allclose(found[0], np.array([3, 0, 1])[:, None, None] * BASIS.T, atol=1e-9)
    np.testing.assert_allclose(found[1], np.array([0, 0.5, 1])[:, None, None] * BASIS.T, atol=1e-9)


def test_what_is_slow_shows_beneath_what_is_fast() -> None:
    """White noise with a slow tenth of its variance: 1 + 0.1 * 100 frames, +- 40 %."""
    rng = np.random.default_rng(4)
    memory = np.exp(-1 / 50)
    slow = np.zeros((2000, 30))
    for n in range(1, 2000):
        slow[n] = memory * slow[n - 1] + np.sqrt(1 - memory**2) * rng.normal(size=30)
    weights = np.full(2000, 1 / 2000)
    white = rng.normal(size=(2000, 60))
    series = white + np.concatenate([0.33 * slow, np.zeros((2000, 30))], axis=1)
    found = inefficiency(series - weights @ series, weights, assign_blocks([2000]), weights)
    assert 6 < np.mean(found[:30]) < 16
    assert 1 <= np.mean(found[30:]) < 1.5
