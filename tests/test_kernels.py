"""Pair search and pair sums against plain loops over all pairs and all images."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from systems import BOXES, brute_force_pairs, direct_sums, numerical_derivative

from openmm_diffsim import kernels
from openmm_diffsim.kernels import (
    add_basis_sums,
    exclusion_lists,
    largest_range,
    pair_blocks,
)
from openmm_diffsim.potentials import SplineBasis, n_pairs_of_types, pair_index

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


def sums_and_virials(
    positions: Array,
    box: Array | None,
    types: NDArray[np.int64],
    exclusions: NDArray[np.int64],
    offsets: Array,
    n_types: int = 2,
) -> tuple[Array, Array]:
    sums = np.zeros((n_pairs_of_types(n_types), BASIS.n_coefficients))
    virials = np.zeros_like(sums)
    lists = exclusion_lists(len(positions), exclusions)
    for block in pair_blocks(positions, box, 0.8):  # beyond the cutoff, as for an RDF
        add_basis_sums(
            *block,
            types,
            pair_index(n_types),
            *lists,
            offsets,
            BASIS.r_min,
            BASIS.spacing,
            BASIS.cutoff,
            sums,
            virials,
        )
    return sums, virials


@pytest.mark.parametrize("shape", [*BOXES, None])
def test_sums_and_virials_equal_a_plain_loop(shape: str | None) -> None:
    box = None if shape is None else BOXES[shape]
    rng = np.random.default_rng(2)
    positions = points(box)
    positions[1] = positions[0] + 0.1  # below r_min, where the potential is a straight line
    types = rng.integers(-1, 2, N)
    types[:4] = 0
    exclusions = rng.integers(0, N, (60, 2))
    exclusions = exclusions[exclusions[:, 0] != exclusions[:, 1]]
    near = list(brute_force_pairs(positions, box, 0.4))[1::2]
    exclusions = np.concatenate([exclusions, np.array(near)[:, ::-1]])
    offsets = rng.normal(scale=0.1, size=(N, 3))
    sums, virials = sums_and_virials(positions, box, types, exclusions, offsets)

    expected_sums, expected_virials = np.zeros_like(sums), np.zeros_like(virials)
    excluded = {frozenset(pair) for pair in exclusions.tolist()}
    for (i, j), d in brute_force_pairs(positions, box, 0.7).items():
        if min(types[i], types[j]) < 0 or frozenset((i, j)) in excluded:
            continue
        pair = types[i] + types[j]  # (0,0), (0,1), (1,1)
        r = np.linalg.norm(d)
        between_centers = d - offsets[i] + offsets[j]
        expected_sums[pair] += BASIS.values(r)[0]
        expected_virials[pair] -= BASIS.derivatives(r)[0] * (d @ between_centers) / r
    assert np.count_nonzero(expected_sums) > 30
    np.testing.assert_allclose(sums, expected_sums, atol=1e-11)
    np.testing.assert_allclose(virials, expected_virials, atol=1e-10)


def test_sums_are_added_to_what_is_there() -> None:
    box = BOXES["cubic"]
    positions, types = points(box), np.zeros(N, dtype=np.int64)
    sums = np.full((1, BASIS.n_coefficients), 7.0)
    virials = np.full_like(sums, -3.0)
    lists = exclusion_lists(N, np.zeros((0, 2)))
    grid = (BASIS.r_min, BASIS.spacing, BASIS.cutoff)
    for block in pair_blocks(positions, box, BASIS.cutoff):
        add_basis_sums(*block, types, pair_index(1), *lists, np.zeros((N, 3)), *grid, sums, virials)
    expected, _ = direct_sums(BASIS, positions, box)
    np.testing.assert_allclose(sums - 7.0, expected, atol=1e-11)
    assert np.abs(virials + 3.0).max() > 1


def test_coinciding_particles_give_a_finite_sum() -> None:
    positions = np.zeros((2, 3))
    sums, virials = sums_and_virials(
        positions, None, np.zeros(2, dtype=np.int64), np.zeros((0, 2)), np.zeros((2, 3))
    )
    np.testing.assert_allclose(sums[0], BASIS.values(0.0)[0])
    assert np.all(virials == 0)


@pytest.mark.parametrize("shape", ["orthorhombic", "skewed"])
def test_virial_is_how_the_energy_answers_to_moving_whole_molecules(shape: str) -> None:
    box = BOXES[shape]
    rng = np.random.default_rng(4)
    n_molecules = 30
    centers = rng.uniform(-1, 2, (n_molecules, 3)) @ box
    offsets = rng.normal(scale=0.08, size=(n_molecules, 3, 3))
    offsets -= offsets.mean(axis=1, keepdims=True)
    types = np.tile([0, 1, 1], n_molecules)
    first = 3 * np.arange(n_molecules)
    exclusions = np.concatenate(
        [np.stack([first + a, first + b], axis=1) for a, b in ((0, 1), (0, 2), (1, 2))]
    )

    def sums_at(scale: Array) -> Array:
        positions = (centers[:, None] * scale + offsets).reshape(-1, 3)
        flat = offsets.reshape(-1, 3)
        return sums_and_virials(positions, box * scale, types, exclusions, flat)[0]

    flat = offsets.reshape(-1, 3)
    positions = (centers[:, None] + offsets).reshape(-1, 3)
    _, virials = sums_and_virials(positions, box, types, exclusions, flat)
    # W = -3 V dU/dV, and a box scaled by s has the volume s^3 V: W = -dU/ds.
    expected = -numerical_derivative(sums_at, np.ones(1), 1e-5)[..., 0]
    scale = np.abs(expected).max()
    assert np.abs(virials).max() > 1
    np.testing.assert_allclose(virials, expected, rtol=1e-6, atol=1e-6 * scale)


def test_exclusion_lists_hold_each_pair_once_under_its_lower_index() -> None:
    pairs = np.array([[5, 2], [0, 4], [2, 3], [4, 1]])
    heads, partners = exclusion_lists(6, pairs)
    listed = [(a, int(b)) for a in range(6) for b in partners[heads[a] : heads[a + 1]]]
    assert sorted(listed) == [(0, 4), (1, 4), (2, 3), (2, 5)]
    heads, partners = exclusion_lists(4, np.zeros((0, 2), dtype=int))
    assert heads.tolist() == [0] * 5
    assert len(partners) == 0
