"""The distribution of angles against brute force, mdtraj, freud and random directions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import mdtraj
import numpy as np
import pytest
from numpy.typing import NDArray
from openmm import unit
from systems import BOXES, argon, argon_simulation, brute_force_pairs, topology

from openmm_diffsim import AngleDistribution, StatePoint
from openmm_diffsim.errors import ObservableError, UnitError
from openmm_diffsim.observables import Frame, Particles

Array = NDArray[np.float64]

N, R_MAX, BINS = 48, 0.6, 20


def recorded(observable: AngleDistribution, positions: Array, box: Array | None) -> Array:
    """P(theta) of one frame."""
    n = len(positions)
    recorder = observable.recorder(Particles(n, np.arange(n), np.ones(n)))
    volume = np.nan if box is None else float(np.linalg.det(box))
    return recorder.record(Frame(positions, box, volume, 0.0), [])


def frame(seed: int, box: Array, n: int = N) -> Array:
    """Random points, in single precision and some of them outside the box."""
    x = np.random.default_rng(seed).uniform(-0.2, 1.3, (n, 3)) @ box
    return x.astype(np.float32).astype(np.float64)


def neighbors(positions: Array, box: Array | None) -> list[list[tuple[int, Array]]]:
    """Index and vector of each neighbour of each particle, by brute force."""
    found: list[list[tuple[int, Array]]] = [[] for _ in positions]
    for (i, j), vector in brute_force_pairs(positions, box, R_MAX).items():
        found[i].append((j, -vector))
        found[j].append((i, vector))
    return found


def triplets(positions: Array, box: Array | None) -> NDArray[np.int64]:
    """j, i, k of every angle, [angles, 3]."""
    return np.array(
        [
            (j, i, k)
            for i, near in enumerate(neighbors(positions, box))
            for (j, _), (k, _) in itertools.combinations(near, 2)
        ]
    )


def angle(a: Array, b: Array) -> float:
    return float(np.arctan2(np.linalg.norm(np.cross(a, b)), a @ b))


def density(angles: Sequence[float], bins: int = BINS) -> Array:
    return np.histogram(np.float64(angles), bins, (0, np.pi), density=True)[0]


def clear_of_edges(angles: Sequence[float], margin: float) -> bool:
    """No angle is so near the edge of a bin that rounding could move it to the next."""
    edges = np.linspace(0, np.pi, BINS + 1)[1:-1]
    return bool(np.abs(np.subtract.outer(angles, edges)).min() > margin)


# Against others ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [*BOXES, None])
def test_every_angle_is_counted_once(shape: str | None) -> None:
    box = None if shape is None else BOXES[shape]
    positions = frame(1, 0.6 * BOXES["cubic"] if box is None else box)
    angles = [
        angle(a, b)
        for near in neighbors(positions, box)
        for (_, a), (_, b) in itertools.combinations(near, 2)
    ]
    assert len(angles) > 200 and clear_of_edges(angles, 1e-9)
    p = recorded(AngleDistribution(R_MAX, BINS), positions, box)
    np.testing.assert_allclose(p, density(angles), rtol=1e-12)
    assert p.sum() * np.pi / BINS == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("shape", ["cubic", "orthorhombic"])
def test_angles_are_mdtrajs(shape: str) -> None:
    box = BOXES[shape]
    for seed in range(50):
        positions = frame(seed, box, 30)
        trajectory = mdtraj.Trajectory(positions, mdtraj.Topology.from_openmm(topology(30)))
        trajectory.unitcell_vectors = box[None]
        angles = mdtraj.compute_angles(trajectory, triplets(positions, box), periodic=True)[0]
        if clear_of_edges(angles, 1e-4):  # mdtraj computes in single precision
            break
    else:
        raise AssertionError("no such frame")
    assert len(angles) > 50
    p = recorded(AngleDistribution(R_MAX, BINS), positions, box)
    np.testing.assert_allclose(p, density(angles), rtol=1e-6)


@pytest.mark.parametrize("shape", ["skewed", "octahedron"])
def test_angles_are_those_between_freuds_neighbors(shape: str) -> None:
    freud = pytest.importorskip("freud", reason="freud-analysis is not installed")
    box = BOXES[shape]
    for seed in range(50):
        positions = frame(seed, box)
        query = freud.locality.AABBQuery(freud.box.Box.from_matrix(box.T), positions)
        options = {"r_max": R_MAX, "exclude_ii": True}
        found = query.query(positions, options).toNeighborList()
        angles = [
            angle(a, b)
            for i in range(N)
            for a, b in itertools.combinations(found.vectors[found.query_point_indices == i], 2)
        ]
        if clear_of_edges(angles, 1e-5):  # freud computes in single precision
            break
    else:
        raise AssertionError("no such frame")
    p = recorded(AngleDistribution(R_MAX, BINS), positions, box)
    np.testing.assert_allclose(p, density(angles), rtol=1e-12)


def test_random_directions_give_half_the_sine() -> None:
    rng = np.random.default_rng(5)
    box = BOXES["skewed"]
    observable = AngleDistribution(0.5, 12)
    frames = np.array([recorded(observable, rng.random((100, 3)) @ box, box) for _ in range(400)])
    expected = -np.diff(np.cos(observable.edges)) / 2 / np.diff(observable.edges)
    error = frames.std(axis=0, ddof=1) / len(frames) ** 0.5
    deviation = (frames.mean(axis=0) - expected) / error
    assert np.abs(deviation).max() < 4, f"{deviation} standard errors"
    assert error.max() < 0.01  # the test can tell: P is 0.5 rad^-1 at most


def test_a_known_molecule_has_its_angles() -> None:
    """A tetrahedral centre: six angles of 109.47 degrees there, and none that is left out."""
    corners = 0.1 * np.array([[0, 0, 0], [1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    p = recorded(AngleDistribution(0.2, 180), corners, None)  # corners are 0.283 nm apart
    expected = np.zeros(180)
    expected[109] = 180 / np.pi
    np.testing.assert_allclose(p, expected, rtol=1e-12)


# Selections -------------------------------------------------------------------------------------


def test_a_selection_is_all_there_is() -> None:
    box = BOXES["octahedron"]
    positions = frame(2, box)
    chosen = np.random.default_rng(3).permutation(N)[:30]
    p = recorded(AngleDistribution(R_MAX, BINS, atoms=chosen), positions, box)
    alone = recorded(AngleDistribution(R_MAX, BINS), positions[chosen], box)
    np.testing.assert_allclose(p, alone, rtol=1e-12)
    assert np.abs(p - recorded(AngleDistribution(R_MAX, BINS), positions, box)).max() > 0.01


def test_it_is_recorded_in_a_run_and_averaged() -> None:
    angles = AngleDistribution(0.5, 18)
    potential = argon()
    liquid = StatePoint(argon_simulation(potential, 60, 1.6), potential)
    samples = liquid.sample(400, 20, [angles], equilibration=100, discard_transient=False)
    p = samples.average(angles)
    assert float(p.detach().sum()) * np.pi / 18 == pytest.approx(1, rel=1e-9)
    assert p.requires_grad
    assert samples.at().estimate(angles, check=False).standard_error[9] > 0


# Arguments --------------------------------------------------------------------------------------


def test_the_cutoff_may_be_a_quantity() -> None:
    made = AngleDistribution(3.18 * unit.angstrom, 36)
    assert made.r_max == pytest.approx(0.318)
    np.testing.assert_allclose(np.degrees(made.theta), np.arange(2.5, 180, 5))
    with pytest.raises(UnitError, match="length"):
        AngleDistribution(1.0 * unit.degree)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"r_max": 0.0}, "r_max: got 0.0, expected a number"),
        ({"r_max": float("nan")}, "got nan"),
        ({"r_max": 0.3, "bins": 1}, "bins: got 1, expected a whole number from 2"),
        ({"r_max": 0.3, "atoms": []}, "atoms: got none, expected one or more"),
        ({"r_max": 0.3, "atoms": [1, 1]}, "each of them once"),
    ],
)
def test_what_cannot_be_is_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ObservableError, match=words):
        AngleDistribution(**arguments)


def test_what_does_not_fit_the_frame_is_refused() -> None:
    box = BOXES["octahedron"]
    with pytest.raises(ObservableError, match=r"indices 0 \.\. 47, got 48"):
        recorded(AngleDistribution(0.3, atoms=[0, 48]), frame(1, box), box)
    half = 0.5 * box[2, 2]
    with pytest.raises(ObservableError, match="beyond half the box") as caught:
        recorded(AngleDistribution(half + 0.01), frame(1, box), box)
    assert caught.value.limit == pytest.approx(half)  # type: ignore[attr-defined]
    with pytest.raises(ObservableError, match=r"no particle has two neighbours within 0\.0100 nm"):
        recorded(AngleDistribution(0.01), frame(1, box), box)
