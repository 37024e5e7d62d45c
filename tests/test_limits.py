"""Ranges of numbers: what is beyond them is refused where it is given, by its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import openmm
import pytest

from openmm_diffsim import RDF, AngleDistribution, LennardJones, Mie, NeuralPair, SplinePair
from openmm_diffsim.errors import DiffsimError
from openmm_diffsim.fluid import Dynamics, fluid
from openmm_diffsim.limits import (
    LIMITS,
    checked_indices,
    checked_number,
    checked_whole,
    limit_of,
    shown,
)
from openmm_diffsim.refinement.schedule import Schedule


def attached(**options: Any) -> openmm.Force:
    _, system = fluid(20, 1.0, 1.0)
    return SplinePair(0.3, 0.9).attach(system, **options)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "knots": (lambda: SplinePair(0.3, 0.9, 10**9), "knots: got 1000000000"),
    "knots of a half": (lambda: SplinePair(0.3, 0.9, 60.5), "knots: got 60.5"),  # type: ignore
    "knots of text": (lambda: SplinePair(0.3, 0.9, "many"), "knots: got 'many'"),  # type: ignore
    "cutoff": (lambda: SplinePair(0.3, 1e300), "cutoff: got 1e[+]300"),
    "r_min": (lambda: SplinePair(1e-300, 0.9), "r_min: got 1e-300"),
    "sigma": (lambda: LennardJones(0.0, 1.0, 0.9, r_min=0.3), "sigma: got 0.0"),
    "epsilon": (lambda: LennardJones(0.34, 1e300, 0.9), "epsilon: got 1e[+]300"),
    "exponent": (lambda: Mie(0.34, 1.0, 0.9, repulsive=1e9), "repulsive: got 1000000000.0"),
    "NaN": (lambda: NeuralPair(0.3, 0.9, np.nan), "prior_sigma: got nan"),
    "bins": (lambda: RDF(1.0, 10**9), "bins: got 1000000000"),
    "half a bin": (lambda: RDF(1.0, 0.5), "bins: got 0.5"),  # type: ignore[arg-type]
    "angles": (lambda: AngleDistribution(0.5, bins=10**9), "bins: got 1000000000"),
    "range": (lambda: RDF(1e-300, 10), "r_max: got 1e-300"),
    "bonds": (lambda: RDF(1.0, 10, exclude_bonds=4), "exclude_bonds: got 4"),
    "bonds of a force": (lambda: attached(exclude_bonds=4), "exclude_bonds: got 4"),
    "no whole bond": (lambda: attached(exclude_bonds=1.5), "exclude_bonds: got 1.5"),
    "rounds": (lambda: Schedule(10**9, 1000, 10), "rounds: got 1000000000"),
    "steps": (lambda: Schedule(1, 2**63, 10), "steps: got 9223372036854775808"),
    "equilibration": (lambda: Schedule(1, 1000, 10, -1), "equilibration: got -1"),
    "seed": (lambda: Dynamics(100.0, 0.001).simulation(*fluid(10, 1.0, 1.0), 2**31), "seed: got"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_number_beyond_its_range_is_refused_by_its_name(case: str) -> None:
    make, words = REFUSED[case]
    with pytest.raises(DiffsimError, match=f"^{words}.*, expected .* from .* to .*; ") as error:
        make()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "atoms", [[1, 3], (1, 3), range(1, 4, 2), np.array([[1], [3]]), [False, True, False, True]]
)
def test_indices_and_masks_say_the_same(atoms: Any) -> None:
    assert checked_indices("atoms", atoms, ValueError).tolist() == [1, 3]
    assert RDF(0.5, 10, atoms=atoms).atoms.tolist() == [1, 3]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("atoms", "words"),
    [
        ([], "got none, expected one or more indices 0 .. 3"),
        ([False] * 4, "got none by a mask"),
        ([True] * 3, r"got \[True, .*\], expected indices 0 .. 3, or a mask of 4 that is true"),
        ([0.0, 1.0], r"got \[0.0, 1.0\], expected indices"),
        ([np.nan], "got "),
        ("name O", "got 'name O'"),
        (2, "got 2, expected indices"),
        ([[0], [1, 2]], r"got \[\[0\], \[1, 2\]\], expected indices"),
        ([-1, 2], r"got -1 .. 2"),
        ([0, 4], r"got 0 .. 4"),
        ([2, 2], "got 2 twice, expected indices 0 .. 3, each of them once"),
    ],
)
def test_what_is_no_selection_is_told(atoms: Any, words: str) -> None:
    with pytest.raises(DiffsimError, match=f"^atoms: {words}"):
        checked_indices("atoms", atoms, DiffsimError, 4)


@pytest.mark.parametrize("name", LIMITS)
def test_both_ends_of_a_range_are_in_it(name: str) -> None:
    limit = limit_of(name)
    assert checked_number(name, limit.least, ValueError) == limit.least
    assert checked_number(name, limit.most, ValueError) == limit.most
    ends = [np.nextafter(limit.least, -np.inf), np.nan]
    ends += [np.nextafter(limit.most, np.inf)] if np.isfinite(limit.most) else []
    for beyond in ends:
        with pytest.raises(DiffsimError, match=f"{name}: got"):
            checked_number(name, beyond, DiffsimError)
    assert limit.why


@pytest.mark.parametrize(
    "value", [True, "7", None, [7], 7.5, np.nan, np.inf, 10**5000, 1j], ids=shown
)
def test_what_is_no_whole_number_is_refused(value: Any) -> None:
    with pytest.raises(DiffsimError, match=r"rounds: got .*, expected a whole number from 1 to"):
        checked_whole("rounds", value, DiffsimError)


def test_numbers_of_numpy_are_numbers() -> None:
    assert checked_whole("rounds", np.int64(7), DiffsimError) == 7
    assert type(checked_whole("rounds", np.float32(7), DiffsimError)) is int
    assert checked_number("cutoff", np.float32(0.5), DiffsimError) == 0.5


def test_a_value_is_shown_in_one_line() -> None:
    assert shown(10**5000) == "a number of thousands of digits"
    assert shown("a" * 100) == f"'{'a' * 59}..." and "\n" not in shown(np.eye(3))


def test_the_largest_seed_runs() -> None:
    topology, system = fluid(10, 1.0, 1.0)
    made = Dynamics(100.0, 0.001, platform="Reference")
    largest = int(LIMITS["seed"].most)
    simulation = made.simulation(topology, system, largest)
    assert isinstance(simulation.context, openmm.Context)
    simulation.context.setPositions(np.random.default_rng(1).random((10, 3)))
    simulation.context.setVelocitiesToTemperature(100.0, largest + 1)
