"""Pair search and pair sums against plain loops over all pairs and all images."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from systems import BOXES, brute_force_pairs, numerical_derivative

from openmm_diffsim.potentials import SplineBasis, pair_index
from openmm_diffsim.statistics import kernels
from openmm_diffsim.statistics.kernels import (
    PairHistogram,
    SplineInteraction,
    largest_range,
    pair_blocks,
    pair_sums,
)

Array = NDArray[np.float64]

BASIS = SplineBasis(0.25, 0.7, 15)
N = 110


def points(box: Array | None, n: int = N, seed: int = 1) -> Array:
    """Random points; in a box, spread over several of its images."""
    rng = np.random.default_rng(seed)
    if box is None:
        return rng.uniform(-1.0, 1.4, (n, 3)) * [1.0, 1.3, 0.8]
    return rng.uniform(-1.5, 2.5, (n, 3)) @ box


def found_pairs(positions: Array, box: Array | None, r_max: float) -> dict[tuple[int, int], Array]:
    """What pair_blocks yields; checks that no pair comes twice and that lengths fit."""
    found: dict[tuple[int, int], Array] = {}
    for block in pair_blocks(positions, box, r_max):
        lengths = np.linalg.norm(block.displacement, axis=1)
        np.testing.assert_allclose(block.distance, lengths, rtol=1e-12)
        for i, j, d in zip(block.i, block.j, block.displacement, strict=True):
            assert i < j
            assert (int(i), int(j)) not in found
            found[int(i), int(j)] = d.copy()
    return found


def assert_same_pairs(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for pair in expected:
        np.testing.assert_allclose(found[pair], expected[pair], atol=1e-12)


# Pairs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", BOXES)
@pytest.mark.parametrize("r_max", [0.3, 0.55, "largest"])
def test_pairs_are_those_of_brute_force(shape: str, r_max: float | str) -> None:
    box = BOXES[shape]
    reach = largest_range(box) if r_max == "largest" else float(r_max)
    positions = points(box)
    has_cells = kernels._cells(positions, box, reach) is not None
    assert has_cells == (r_max == 0.3), "both ways of searching are to be tested"
    expected = brute_force_pairs(positions, box, reach)
    assert len(expected) > 50
    assert_same_pairs(found_pairs(positions, box, reach), expected)


@pytest.mark.parametrize("r_max", [0.3, 2.0])
def test_pairs_without_a_box_are_those_of_brute_force(r_max: float) -> None:
    positions = points(None)
    assert (kernels._cells(positions, None, r_max) is not None) == (r_max == 0.3)
    expected = brute_force_pairs(positions, None, r_max)
    assert len(expected) > 30
    assert_same_pairs(found_pairs(positions, None, r_max), expected)


def test_pairs_in_a_plane_or_far_apart_are_found() -> None:
    flat = points(None, 300) * [3.0, 3.0, 0.0]
    assert kernels._cells(flat, None, 0.3) is not None
    assert_same_pairs(found_pairs(flat, None, 0.3), brute_force_pairs(flat, None, 0.3))
    far = np.concatenate([points(None, 40), points(None, 40, 2) + 1000.0])
    assert_same_pairs(found_pairs(far, None, 0.5), brute_force_pairs(far, None, 0.5))


@pytest.mark.parametrize("r_max", [0.3, 0.9])
def test_pairs_do_not_depend_on_the_size_of_a_block(
    r_max: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = BOXES["cubic"]
    positions = points(box)
    whole = found_pairs(positions, box, r_max)
    monkeypatch.setattr(kernels, "_BUFFER", 1)
    assert sum(1 for _ in pair_blocks(positions, box, r_max)) > 1
    assert_same_pairs(found_pairs(positions, box, r_max), whole)


@pytest.mark.parametrize("shape", BOXES)
@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("sign", [-1, 1])
def test_pair_nearly_half_a_box_apart_is_found_in_any_image(
    shape: str, axis: int, sign: int
) -> None:
    box = BOXES[shape]
    d = np.zeros(3)
    d[axis] = sign * 0.4999 * box[axis, axis]
    for image in ([0, 0, 0], [1, 0, 0], [0, -1, 0], [0, 0, 1], [2, 1, -3]):
        positions = np.array([[0.1, 0.2, 0.3] + d + image @ box, [0.1, 0.2, 0.3]])
        found = found_pairs(positions, box, 0.5001 * box[axis, axis])
        np.testing.assert_allclose(found[0, 1], d, atol=1e-12)


def test_one_particle_has_no_pair() -> None:
    assert found_pairs(np.zeros((1, 3)), BOXES["cubic"], 0.5) == {}


@pytest.mark.parametrize("shape", BOXES)
def test_minimum_image_is_unique_up_to_the_largest_range(shape: str) -> None:
    box = BOXES[shape]
    around = np.arange(-3, 4)
    steps = np.stack(np.meshgrid(around, around, around), axis=-1).reshape(-1, 3)
    lengths = np.linalg.norm(steps @ box, axis=1)
    shortest = lengths[lengths > 0].min()
    assert largest_range(box) <= 0.5 * shortest + 1e-12
    assert largest_range(box) == 0.5 * min(box[0, 0], box[1, 1], box[2, 2])


# Sums -------------------------------------------------------------------------------------------


def interaction(
    types: NDArray[np.int64],
    exclusions: NDArray[np.int64] | None = None,
    molecule_of: NDArray[np.int64] | None = None,
    n_types: int = 2,
) -> SplineInteraction:
    return SplineInteraction(
        BASIS.r_min,
        BASIS.spacing,
        BASIS.cutoff,
        BASIS.n_coefficients,
        types,
        pair_index(n_types),
        np.zeros((0, 2), dtype=np.int64) if exclusions is None else exclusions,
        np.arange(len(types)) if molecule_of is None else molecule_of,
    )


def mixture(positions: Array, box: Array | None) -> SplineInteraction:
    """Two types and absent particles, molecules of one to four particles, many exclusions."""
    rng = np.random.default_rng(2)
    types = rng.integers(-1, 2, N)
    types[:4] = 0
    exclusions = rng.integers(0, N, (60, 2))
    exclusions = exclusions[exclusions[:, 0] != exclusions[:, 1]]
    near = list(brute_force_pairs(positions, box, 0.4))[1::2]
    exclusions = np.concatenate([exclusions, np.array(near)[:, ::-1]])
    molecule_of = np.repeat(np.arange(N), rng.integers(1, 5, N))[:N]
    return interaction(types, exclusions, molecule_of)


@pytest.mark.parametrize("shape", [*BOXES, None])
def test_sums_and_virials_equal_a_plain_loop(shape: str | None) -> None:
    box = None if shape is None else BOXES[shape]
    positions = points(box)
    positions[1] = positions[0] + 0.1  # below r_min, where the potential is a straight line
    pairs = mixture(positions, box)
    sums = pair_sums(positions[None], None if box is None else box[None], interaction=pairs)
    assert sums.counts == []

    centers = np.array(
        [positions[pairs.molecule_of == molecule].mean(axis=0) for molecule in pairs.molecule_of]
    )
    offsets = positions - centers
    shape_of_sums = (3, BASIS.n_coefficients)
    expected_sums, expected_virials = np.zeros(shape_of_sums), np.zeros(shape_of_sums)
    excluded = {frozenset(pair) for pair in pairs.exclusions.tolist()}
    for (i, j), d in brute_force_pairs(positions, box, 0.7).items():
        if min(pairs.types[i], pairs.types[j]) < 0 or frozenset((i, j)) in excluded:
            continue
        pair = pairs.types[i] + pairs.types[j]  # (0,0), (0,1), (1,1)
        r = np.linalg.norm(d)
        between_centers = d - offsets[i] + offsets[j]
        expected_sums[pair] += BASIS.values(r)[0]
        expected_virials[pair] -= BASIS.derivatives(r)[0] * (d @ between_centers) / r
    assert np.count_nonzero(expected_sums) > 30
    np.testing.assert_allclose(sums.basis[0], expected_sums, atol=1e-11)
    np.testing.assert_allclose(sums.virial[0], expected_virials, atol=1e-10)


def histograms() -> list[PairHistogram]:
    """One selection, two that overlap, two apart; molecules left out; edges of any widths."""
    rng = np.random.default_rng(3)
    one, other = rng.random(N) < 0.5, rng.random(N) < 0.5
    molecules = np.repeat(np.arange(N), 3)[:N]
    molecules[::5] = -1
    return [
        PairHistogram(np.linspace(0.0, 0.75, 21), np.ones(N, dtype=bool), np.ones(N, dtype=bool)),
        PairHistogram(np.linspace(0.2, 0.6, 8), one, other, molecules),
        PairHistogram(np.array([0.1, 0.11, 0.5, 0.52, 0.77]), one, ~one),
    ]


@pytest.mark.parametrize("shape", [*BOXES, None])
def test_histograms_equal_a_plain_loop_whatever_the_interaction(shape: str | None) -> None:
    box = None if shape is None else BOXES[shape]
    positions = points(box)
    boxes = None if box is None else box[None]
    alone = pair_sums(positions[None], boxes, histograms())
    assert alone.basis.size == alone.virial.size == 0
    beside = pair_sums(positions[None], boxes, histograms(), mixture(positions, box))
    for h, *counts in zip(histograms(), alone.counts, beside.counts, strict=True):
        distances = []
        for (i, j), d in brute_force_pairs(positions, box, 0.77).items():
            together = h.groups is not None and h.groups[i] == h.groups[j] >= 0
            for a, b in ((i, j), (j, i)):
                if h.first[a] and h.second[b] and not together:
                    distances.append(np.linalg.norm(d))
        expected, _ = np.histogram(distances, h.edges)
        assert expected.sum() > 10
        for count in counts:
            np.testing.assert_array_equal(count, [expected])


def test_edges_belong_to_the_bin_above() -> None:
    edges = np.array([0.125, 0.25, 0.5, 1.0])  # exact in binary
    everyone = np.ones(2, dtype=bool)
    for r, expected in ((0.125, 0), (0.25, 1), (0.5, 2), (np.nextafter(0.5, 0), 1), (1.0, None)):
        positions = np.array([[[0.0, 0, 0], [r, 0, 0]]])
        (counts,) = pair_sums(positions, None, [PairHistogram(edges, everyone, everyone)]).counts
        np.testing.assert_array_equal(counts[0], [2 * (b == expected) for b in range(3)])


def test_each_frame_has_its_own_sums_however_small_the_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    boxes = np.array([BOXES["cubic"], 1.1 * BOXES["skewed"], BOXES["octahedron"]])
    positions = np.array([points(box, seed=seed) for seed, box in enumerate(boxes)])
    pairs = mixture(positions[0], boxes[0])
    single = [
        pair_sums(x[None], box[None], histograms(), pairs)
        for x, box in zip(positions, boxes, strict=True)
    ]
    monkeypatch.setattr(kernels, "_BUFFER", 1)
    together = pair_sums(positions, boxes, histograms(), pairs)
    for name in ("basis", "virial"):
        expected = np.concatenate([getattr(sums, name) for sums in single])
        assert np.abs(expected).max() > 1
        np.testing.assert_allclose(getattr(together, name), expected, atol=1e-11)
    for h, counts in enumerate(together.counts):
        np.testing.assert_array_equal(counts, np.concatenate([s.counts[h] for s in single]))


def test_coinciding_particles_give_a_finite_sum() -> None:
    sums = pair_sums(np.zeros((1, 2, 3)), interaction=interaction(np.zeros(2, dtype=np.int64)))
    np.testing.assert_allclose(sums.basis[0, 0], BASIS.values(0.0)[0])
    assert np.all(sums.virial == 0)


@pytest.mark.parametrize("shape", ["orthorhombic", "skewed"])
def test_virial_is_how_the_energy_answers_to_moving_whole_molecules(shape: str) -> None:
    box = BOXES[shape]
    rng = np.random.default_rng(4)
    n_molecules = 30
    centers = rng.uniform(-1, 2, (n_molecules, 3)) @ box
    offsets = rng.normal(scale=0.08, size=(n_molecules, 3, 3))
    offsets -= offsets.mean(axis=1, keepdims=True)
    first = 3 * np.arange(n_molecules)
    exclusions = np.concatenate(
        [np.stack([first + a, first + b], axis=1) for a, b in ((0, 1), (0, 2), (1, 2))]
    )
    pairs = interaction(
        np.tile([0, 1, 1], n_molecules), exclusions, np.repeat(np.arange(n_molecules), 3)
    )

    def sums_at(scale: Array) -> kernels.PairSums:
        positions = (centers[:, None] * scale + offsets).reshape(1, -1, 3)
        return pair_sums(positions, box[None] * scale, interaction=pairs)

    # W = -3 V dU/dV, and a box scaled by s has the volume s^3 V: W = -dU/ds.
    slope = numerical_derivative(lambda s: sums_at(s).basis[0], np.ones(1), 1e-5)[..., 0]
    virials = sums_at(np.ones(1)).virial[0]
    scale = np.abs(slope).max()
    assert np.abs(virials).max() > 1
    np.testing.assert_allclose(virials, -slope, rtol=1e-6, atol=1e-6 * scale)


def test_exclusion_lists_hold_each_pair_once_under_its_lower_index() -> None:
    pairs = np.array([[5, 2], [0, 4], [2, 3], [4, 1]])
    heads, partners = interaction(np.zeros(6, dtype=np.int64), pairs).exclusion_lists
    listed = [(a, int(b)) for a in range(6) for b in partners[heads[a] : heads[a + 1]]]
    assert sorted(listed) == [(0, 4), (1, 4), (2, 3), (2, 5)]
    heads, partners = interaction(np.zeros(4, dtype=np.int64)).exclusion_lists
    assert heads.tolist() == [0] * 5
    assert len(partners) == 0


def test_nothing_to_count_is_no_pass() -> None:
    with np.errstate(all="raise"):
        sums = pair_sums(np.zeros((2, 5, 3)), np.tile(np.eye(3), (2, 1, 1)))
    assert sums.counts == [] and sums.basis.size == 0
