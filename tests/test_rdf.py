"""The radial distribution function against mdtraj, freud and the ideal gas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mdtraj
import numpy as np
import openmm
import pytest
import torch
from numpy.typing import NDArray
from openmm import unit
from systems import BOXES, argon, brute_force_pairs, context_of, empty_system

from openmm_diffsim import RDF, Samples
from openmm_diffsim.engine.recorder import FrameRecorder
from openmm_diffsim.errors import ObservableError

Array = NDArray[np.float64]

N = 48
R_MAX, BINS = 0.75, 25
EDGES = np.linspace(0.0, R_MAX, BINS + 1)


def single(x: Array) -> Array:
    """Rounded to single precision, as mdtraj and freud hold it."""
    return np.asarray(x, dtype=np.float32).astype(np.float64)


def frame(seed: int, box: Array, n: int = N) -> Array:
    """Random points of which no distance is so near the edge of a bin that rounding could cross it.

    mdtraj and freud compute distances in single precision.
    """
    rng = np.random.default_rng(seed)
    for _ in range(200):
        positions = single(rng.uniform(-0.2, 1.3, (n, 3)) @ box)
        pairs = brute_force_pairs(positions, box, R_MAX + 0.01)
        r = np.linalg.norm(list(pairs.values()), axis=1)
        if np.abs(r[:, None] - EDGES).min() > 1e-6:
            return positions
    raise AssertionError("no such frame")


def context_with(
    potential: Any,
    box: Array,
    n: int = N,
    bonds: Sequence[tuple[int, int]] = (),
    constraints: Sequence[tuple[int, int]] = (),
) -> openmm.Context:
    system = empty_system(n, box)
    force = openmm.HarmonicBondForce()
    for a, b in bonds:
        force.addBond(a, b, 0.1, 100.0)
    if bonds:
        system.addForce(force)
    for a, b in constraints:
        system.addConstraint(a, b, 0.1)
    potential.attach(system)
    return context_of(system, np.random.default_rng(0).random((n, 3)) @ box, "Reference")


def recorded(
    observables: Sequence[RDF], frames: Sequence[tuple[Array, Array]], **system: Any
) -> Samples:
    """Samples of frames (positions, box), as a run records them."""
    potential = argon(cutoff=0.5)
    context = context_with(potential, frames[0][1], len(frames[0][0]), **system)
    recorder = FrameRecorder(potential, context, observables)
    for positions, box in frames:
        recorder.add(positions, box, total_energy=0.0)
    return recorder.samples(potential.coefficients().detach().numpy(), 100.0, None, 1)


def trajectory(frames: Sequence[tuple[Array, Array]]) -> mdtraj.Trajectory:
    top = mdtraj.Topology()
    chain = top.add_chain()
    for _ in frames[0][0]:
        top.add_atom("Ar", mdtraj.element.argon, top.add_residue("Ar", chain))
    traj = mdtraj.Trajectory(np.array([x for x, _ in frames]), top)
    traj.unitcell_vectors = np.array([box for _, box in frames])
    return traj


def mdtraj_rdf(frames: Sequence[tuple[Array, Array]], pairs: Any) -> Array:
    _, g = mdtraj.compute_rdf(trajectory(frames), pairs, r_range=(0.0, R_MAX), n_bins=BINS)
    return g


def all_pairs(first: Sequence[int], second: Sequence[int]) -> NDArray[np.int64]:
    return np.array([(a, b) for a in first for b in second if a != b])


# Against mdtraj ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", BOXES)
def test_rdf_is_mdtrajs_on_the_same_frames(shape: str) -> None:
    box = BOXES[shape]
    frames = [(frame(seed, box), box) for seed in range(3)]
    rdf = RDF(R_MAX, BINS)  # beyond the potential's cutoff of 0.5 nm
    g = recorded([rdf], frames).average(rdf).detach().numpy()
    expected = mdtraj_rdf(frames, all_pairs(range(N), range(N)))
    assert np.count_nonzero(expected) > 15
    np.testing.assert_allclose(g, expected, rtol=2e-6)  # mdtraj's volume is in single precision


SELECTIONS = {
    "one": (range(5, 30), None),
    "two": (range(20), range(20, N)),
    "overlapping": (range(25), range(15, 40)),
    "one atom with the rest": ([7], range(N)),
}


@pytest.mark.parametrize("name", SELECTIONS)
def test_selections_count_their_ordered_pairs(name: str) -> None:
    first, second = SELECTIONS[name]
    box = BOXES["orthorhombic"]
    frames = [(frame(seed, box), box) for seed in range(3)]
    rdf = RDF(R_MAX, BINS, atoms=first, atoms2=second)
    g = recorded([rdf], frames).average(rdf).detach().numpy()
    expected = mdtraj_rdf(frames, all_pairs(first, second or first))
    assert np.count_nonzero(expected) > 5
    np.testing.assert_allclose(g, expected, rtol=2e-6)


def test_partials_of_a_mixture_add_up_to_the_whole() -> None:
    box = BOXES["cubic"]
    frames = [(frame(seed, box), box) for seed in range(3)]
    a, b = np.arange(18), np.arange(18, N)
    whole, aa, ab, bb = (
        RDF(R_MAX, BINS),
        *(RDF(R_MAX, BINS, *pair) for pair in ((a,), (a, b), (b,))),
    )
    samples = recorded([whole, aa, ab, bb], frames)
    g = {rdf: samples.average(rdf).detach().numpy() for rdf in (whole, aa, ab, bb)}
    n_a, n_b = len(a), len(b)
    total = n_a * (n_a - 1) * g[aa] + 2 * n_a * n_b * g[ab] + n_b * (n_b - 1) * g[bb]
    np.testing.assert_allclose(total / (N * (N - 1)), g[whole], rtol=1e-12)
    for rdf, first, second in ((aa, a, a), (ab, a, b), (bb, b, b)):
        expected = mdtraj_rdf(frames, all_pairs(first, second))
        np.testing.assert_allclose(g[rdf], expected, rtol=2e-6)


def test_varying_box_is_normalized_with_the_volume_of_each_frame() -> None:
    frames = []
    for seed, scale in enumerate((0.9, 1.0, 1.2)):
        box = single(scale * BOXES["skewed"])
        frames.append((frame(seed, box), box))
    rdf = RDF(R_MAX, BINS)
    samples = recorded([rdf], frames)
    pairs = all_pairs(range(N), range(N))
    expected = [mdtraj_rdf([one], pairs) for one in frames]
    np.testing.assert_allclose(samples.at().values(rdf), expected, rtol=2e-6)
    np.testing.assert_allclose(samples.volume, [np.linalg.det(box) for _, box in frames])
    average = samples.average(rdf).detach().numpy()
    np.testing.assert_allclose(average, np.mean(expected, axis=0), rtol=2e-6)


# Against freud ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["cubic", "orthorhombic", "octahedron"])
def test_rdf_is_freuds_times_its_finite_size_factor(shape: str) -> None:
    freud = pytest.importorskip("freud", reason="freud-analysis is not installed")
    box = BOXES[shape]
    positions = frame(4, box)
    rdf = RDF(R_MAX, BINS)
    g = recorded([rdf], [(positions, box)]).average(rdf).detach().numpy()
    system = (freud.box.Box.from_matrix(box.T), positions)
    exact = freud.density.RDF(BINS, R_MAX).compute(system).rdf
    np.testing.assert_allclose(g, exact * N / (N - 1), rtol=1e-5)
    finite = freud.density.RDF(BINS, R_MAX, normalization_mode="finite_size").compute(system).rdf
    np.testing.assert_allclose(g, finite, rtol=1e-5)


def test_rdf_of_two_selections_is_freuds_without_a_factor() -> None:
    freud = pytest.importorskip("freud", reason="freud-analysis is not installed")
    box = BOXES["cubic"]
    positions = frame(4, box)
    rdf = RDF(R_MAX, BINS, atoms=range(20), atoms2=range(20, N))
    g = recorded([rdf], [(positions, box)]).average(rdf).detach().numpy()
    system = (freud.box.Box.from_matrix(box.T), positions[:20])
    expected = freud.density.RDF(BINS, R_MAX).compute(system, positions[20:]).rdf
    np.testing.assert_allclose(g, expected, rtol=1e-5)


# Molecules --------------------------------------------------------------------------------------


@pytest.mark.parametrize("held_by", ["bonds", "constraints"])
def test_pairs_within_a_molecule_are_left_out(held_by: str) -> None:
    box = BOXES["cubic"]
    frames = [(frame(seed, box), box) for seed in range(2)]
    molecules = np.arange(N).reshape(-1, 3)
    joined = [pair for a, b, c in molecules.tolist() for pair in ((a, b), (b, c))]
    between = np.array([(a, b) for a, b in all_pairs(range(N), range(N)) if a // 3 != b // 3])
    some, others = range(0, N, 2), range(30)
    selected = np.array([(a, b) for a, b in between if a in some and b in others])
    rdf, everything = RDF(R_MAX, BINS), RDF(R_MAX, BINS, intramolecular=True)
    partial = RDF(R_MAX, BINS, atoms=some, atoms2=others)
    samples = recorded([rdf, everything, partial], frames, **{held_by: joined})
    for observable, pairs in (
        (rdf, between),
        (everything, all_pairs(range(N), range(N))),
        (partial, selected),
    ):
        g = samples.average(observable).detach().numpy()
        np.testing.assert_allclose(g, mdtraj_rdf(frames, pairs), rtol=2e-6)


# The ideal gas ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["cubic", "dodecahedron"])
@pytest.mark.parametrize("scales", [(1.0,), (0.9, 1.0, 1.3)], ids=["NVT", "NPT"])
def test_ideal_gas_has_an_rdf_of_one(shape: str, scales: tuple[float, ...]) -> None:
    rng = np.random.default_rng(11)
    bins, n = 12, 30
    frames = []
    for index in range(300):
        box = scales[index % len(scales)] * BOXES[shape]
        frames.append((rng.random((n, 3)) @ box, box))
    rdfs = [
        RDF(0.66, bins, r_min=0.2),
        RDF(0.66, bins, r_min=0.2, atoms=range(4), atoms2=range(4, n)),
        RDF(0.66, bins, r_min=0.2, atoms=range(4)),
    ]
    samples = recorded(rdfs, frames)
    for rdf in rdfs:
        first = n if rdf.atoms is None else len(rdf.atoms)
        second = first if rdf.atoms2 is rdf.atoms else len(rdf.atoms2)
        ordered = rdf.atoms2 is not rdf.atoms
        n_pairs = first * second if ordered else first * (first - 1) / 2
        # Pairs of an ideal gas are independent: a count is binomial with probability shell / V.
        probability = rdf.shells / samples.volume[:, None]
        variance = ((1 - probability) / (n_pairs * probability)).sum(axis=0) / len(frames) ** 2
        deviation = (samples.average(rdf).detach().numpy() - 1) / np.sqrt(variance)
        assert np.abs(deviation).max() < 4, f"{deviation} standard errors"
        # chi^2 of 12 bins: mean 12, standard deviation 4.9; within 4 of those.
        assert np.sum(deviation**2) < bins + 4 * np.sqrt(2 * bins)


def test_rdf_does_not_depend_on_the_parameters_of_one_frame() -> None:
    rdf = RDF(R_MAX, BINS)
    samples = recorded([rdf], [(frame(1, BOXES["cubic"]), BOXES["cubic"])])
    (gradient,) = torch.autograd.grad(
        samples.average(rdf).sum(),
        [samples.potential.sigma],  # type: ignore[attr-defined]
    )
    assert gradient.abs().max() == 0  # one frame has weight 1 whatever the potential


# Arguments --------------------------------------------------------------------------------------


def test_lengths_may_be_quantities() -> None:
    rdf = RDF(7.5 * unit.angstrom, 15, r_min=1.5 * unit.angstrom)
    np.testing.assert_allclose(rdf.edges, np.linspace(0.15, 0.75, 16))
    np.testing.assert_allclose(rdf.r, np.linspace(0.17, 0.73, 15))
    assert rdf.shells.sum() == pytest.approx(4 * np.pi / 3 * (0.75**3 - 0.15**3))


def test_r_min_shifts_the_bins_and_nothing_else() -> None:
    frames = [(frame(seed, BOXES["cubic"]), BOXES["cubic"]) for seed in range(2)]
    whole, outer = RDF(0.75, 25), RDF(0.75, 20, r_min=0.15)
    samples = recorded([whole, outer], frames)
    inner = samples.average(whole)[5:]
    torch.testing.assert_close(samples.average(outer), inner, rtol=1e-9, atol=0.0)


def test_range_beyond_half_the_box_is_refused_with_the_limit() -> None:
    box = BOXES["octahedron"]  # the height of this box is less than its edges
    half = 0.5 * box[2, 2]
    rdf = RDF(half + 0.001, 10)
    with pytest.raises(ObservableError, match="half the box") as error:
        recorded([rdf], [(frame(1, box), box)])
    assert error.value.limit == pytest.approx(half)
    assert error.value.r_max == pytest.approx(half + 0.001)
    fits = RDF(half, 10)
    recorded([fits], [(frame(1, box), box)])


def test_system_without_a_box_has_no_rdf() -> None:
    potential = argon(cutoff=0.5)
    system = empty_system(4, BOXES["cubic"])
    potential.attach(system, periodic=False)
    context = context_of(system, np.eye(4, 3), "Reference")
    recorder = FrameRecorder(potential, context, [RDF(0.7, 10)])
    with pytest.raises(ObservableError, match="periodic"):
        recorder.add(np.eye(4, 3), BOXES["cubic"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"r_max": 0.3, "bins": 10, "r_min": 0.4}, ("0.4", "0.3")),
        ({"r_max": 0.3, "bins": 0}, ("bins", "got 0")),
        ({"r_max": 0.3, "bins": 2.5}, ("bins", "2.5")),
        ({"r_max": 0.3, "bins": 10**9}, ("1000000000",)),
        ({"r_max": float("inf"), "bins": 5}, ("inf",)),
        ({"r_max": 0.3, "bins": 5, "exclude_bonds": -1}, ("exclude_bonds", "-1")),
        ({"r_max": 0.3, "bins": 0}, ("bins: got 0",)),
        ({"r_max": 0.3, "bins": 5, "r_min": -0.1}, ("-0.1",)),
        ({"r_max": float("nan"), "bins": 5}, ("nan",)),
    ],
)
def test_bad_range_is_refused(arguments: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(ObservableError) as error:
        RDF(**arguments)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"atoms": [0, N]}, ("atoms", f"0 .. {N - 1}", f"0 .. {N}")),
        ({"atoms2": [-1]}, ("atoms2", "-1")),
        ({"atoms": []}, ("one or more",)),
        ({"atoms": [0.9, 1.7]}, ("RDF: atoms", "1.7")),
        ({"atoms": "name O"}, ("RDF: atoms", "name O")),
        ({"atoms2": [1, 2, 1]}, ("RDF: atoms2", "once")),
        ({"atoms": [True] + [False] * (N - 1)}, ("no pair to count",)),
        ({"atoms": [3]}, ("no pair",)),
    ],
)
def test_selection_that_does_not_fit_is_refused(
    arguments: dict[str, Any], words: tuple[str, ...]
) -> None:
    potential = argon(cutoff=0.5)
    context = context_with(potential, BOXES["cubic"])
    with pytest.raises(ObservableError) as error:
        FrameRecorder(potential, context, [RDF(0.7, 10, **arguments)])
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("most", [0, 1, 2, 3])
def test_pairs_so_many_bonds_apart_are_left_out(most: int) -> None:
    """Of chains of five, and of a ring of four, which a box has cut: counted one by one."""
    chains = np.array([(5 * c + k, 5 * c + k + 1) for c in range(8) for k in range(4)])
    ring = np.array([(40, 41), (41, 42), (42, 43), (43, 40)])
    bonds = openmm.HarmonicBondForce()
    for a, b in [*chains, *ring]:
        bonds.addBond(int(a), int(b), 0.3, 100.0)
    rng = np.random.default_rng(3)
    box = np.diag([2.0, 2.1, 2.2])
    positions = rng.random((44, 3)) @ box
    potential = argon(cutoff=0.5)
    system = empty_system(44, box)
    system.addForce(bonds)
    potential.attach(system, exclude_bonds=0)
    rdf = RDF(0.9, 18, atoms=range(3, 44), atoms2=range(42), exclude_bonds=most)
    recorder = FrameRecorder(potential, context_of(system, positions, "CPU"), [rdf])
    recorder.add(positions, box, 0.0)
    c = potential.coefficients().detach().numpy()
    found = recorder.samples(c, 100.0, None, 1).records[rdf][0]
    expected, n_pairs = np.zeros(18), 0
    for i in range(3, 44):
        for j in range(42):
            same_chain = i < 40 and j < 40 and i // 5 == j // 5 and abs(i - j) <= most
            apart = min(abs(i - j), 4 - abs(i - j))
            if i == j or same_chain or (i >= 40 and j >= 40 and apart <= most):
                continue
            d = positions[i] - positions[j]
            d -= np.round(d / np.diag(box)) * np.diag(box)
            n_pairs += 1
            expected += np.histogram(np.linalg.norm(d), rdf.edges)[0]
    shells = 4 * np.pi / 3 * np.diff(rdf.edges**3)
    np.testing.assert_allclose(found, expected * np.prod(np.diag(box)) / n_pairs / shells)
