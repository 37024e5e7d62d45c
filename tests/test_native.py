"""The native force as an OpenMM Force: API, serialization, histograms, energy in an MD run."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import openmm
import pytest
from native_systems import (
    CPU,
    PLATFORMS,
    REFERENCE,
    Case,
    Live,
    Where,
    case,
    context_on,
    live,
    nearest_image,
    pair,
    why_missing,
)
from systems import EPSILON, MASS, SIGMA, Array, argon, lattice

from openmm_diffsim.engine import native
from openmm_diffsim.statistics.kernels import PairHistogram

Contexts = Callable[[str], Live]

pytestmark = pytest.mark.skipif(
    why_missing(REFERENCE) is not None, reason=str(why_missing(REFERENCE))
)


def refused(message: str) -> Any:
    """What the plugin refuses, with the class, what was got and the limit in the message."""
    return pytest.raises(openmm.OpenMMException, match="SplinePairForce: " + message)


@pytest.mark.parametrize("where", PLATFORMS, ids=str)
def test_what_is_here(where: Where) -> None:
    """Reference and CPU always are; the names of what is not stand in pytest's summary."""
    reason = why_missing(where)
    if reason is not None and where not in (REFERENCE, CPU):
        pytest.skip(reason)
    assert reason is None


# What it is --------------------------------------------------------------------------------------


def described(force: native.SplinePairForce) -> list[Any]:
    """All that a force is, as plain numbers and lists."""
    return [
        force.getNumTypes(), force.getRMin(), force.getCutoffDistance(), force.getNumKnots(),
        force.getNonbondedMethod(), force.getForceGroup(), force.getName(),
        force.getCoefficients().tolist(), force.getParticleTypes().tolist(),
        force.getExclusions().tolist(),
    ]  # fmt: skip


def test_getters_give_what_was_set() -> None:
    c = case("cubic")
    force = c.force()
    assert isinstance(force, openmm.Force)
    assert (force.getNumTypes(), force.getNumKnots(), force.getNumCoefficients()) == (3, 10, 8)
    assert (force.getRMin(), force.getCutoffDistance()) == (0.2, 0.6)
    assert force.usesPeriodicBoundaryConditions()
    assert force.getNumParticles() == len(c.types)
    np.testing.assert_array_equal(force.getParticleTypes(), c.types)
    np.testing.assert_array_equal(force.getCoefficients(), c.coefficients)
    np.testing.assert_array_equal(force.getTypePairCoefficients(2, 1), c.coefficients[4])
    assert force.getNumExclusions() == len(c.exclusions)
    assert force.getExclusionParticles(3) == list(c.exclusions[3])
    force.setParticleType(np.int64(2), np.int64(-1))  # as np.flatnonzero gives them
    assert force.getParticleType(2) == -1
    assert force.addParticle(1) == len(c.types)
    assert force.addExclusion(0, 1) == len(c.exclusions)
    force.setExclusionParticles(0, 4, 5)
    assert force.getExclusionParticles(0) == [4, 5]


def test_lengths_may_have_units() -> None:
    angstrom = openmm.unit.angstrom
    force = native.SplinePairForce(1, 2.0 * angstrom, 9.0 * angstrom, 30)
    assert (force.getRMin(), force.getCutoffDistance()) == pytest.approx((0.2, 0.9))


def test_exclusions_from_bonds() -> None:
    """A chain 0-1-2-3-4: up to two bonds apart; one pair is bonded twice over."""
    force = native.SplinePairForce(1, 0.2, 0.6, 10)
    force.addParticles([0] * 6)
    force.createExclusionsFromBonds([(0, 1), (1, 2), (2, 3), (3, 4), (1, 0)], 2)
    expected = {(0, 1), (1, 2), (2, 3), (3, 4), (0, 2), (1, 3), (2, 4)}
    assert sorted(map(tuple, force.getExclusions())) == sorted(expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0.2, 0.6, 10), "expected at least 1 type of particle, got 0"),
        ((1, 0.0, 0.6, 10), "expected 0 < rMin < cutoff, got rMin = 0 nm and cutoff = 0.6 nm"),
        ((1, 0.7, 0.6, 10), "expected 0 < rMin < cutoff, got rMin = 0.7"),
        ((1, 0.2, np.inf, 10), "expected 0 < rMin < cutoff, .*cutoff = inf"),
        ((1, 0.2, 0.6, 5), "expected at least 6 knots, got 5"),
        ((2**32 + 1, 0.2, 0.6, 10), "expected .*32 bits, got 4294967297"),
    ],
)
def test_constructor_refuses(arguments: tuple[Any, ...], message: str) -> None:
    with refused(message):
        native.SplinePairForce(*arguments)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: f.addParticle(3), "expected a particle type -1 to 2, got 3"),
        (lambda f: f.addParticles([0, -2]), "expected a particle type -1 to 2, got -2"),
        (lambda f: f.addParticles([0.5]), "expected whole numbers"),
        (lambda f: f.addParticles([2**32]), "expected whole numbers of 32 bits"),
        (lambda f: f.setParticleType(0, 3), "expected a particle type -1 to 2, got 3"),
        (lambda f: f.setParticleType(4, 0), "expected a particle index 0 to 3, got 4"),
        (lambda f: f.getParticleType(-1), "expected a particle index 0 to 3, got -1"),
        (lambda f: f.getParticleType(2**32), "expected .*32 bits, got 4294967296"),
        (lambda f: f.getExclusionParticles(1), "expected an exclusion index 0 to 0, got 1"),
        (lambda f: f.setExclusionParticles(-1, 0, 1), "expected an exclusion index 0 to 0, got -1"),
        (lambda f: f.createExclusionsFromBonds([(0, 4)], 1), "expected a particle index .* got 4"),
        (lambda f: f.setNonbondedMethod(0), r"expected the nonbonded method .*\(2\), got 0"),
        (lambda f: f.getTypePairCoefficients(-1, 0), "expected a particle type 0 to 2, got -1"),
        (lambda f: f.getTypePairCoefficients(0, 3), "expected a particle type 0 to 2, got 3"),
        (
            lambda f: f.setTypePairCoefficients(0, 2, np.zeros(9)),
            "expected 8 coefficients for types 0 and 2, got 9",
        ),
        (
            lambda f: f.setTypePairCoefficients(0, 2, [0, 0, 0, np.nan, 0, 0, 0, 0]),
            "coefficient 3 of 8 for types 0 and 2 is -?nan, expected a finite number",
        ),
        (
            lambda f: f.setTypePairCoefficients(2, 1, np.full(8, np.inf)),
            "coefficient 0 of 8 for types 2 and 1 is inf",
        ),
        (
            lambda f: f.setCoefficients(np.zeros((3, 8))),
            r"expected coefficients of shape \(6, 8\), got \(3, 8\)",
        ),
    ],
)
def test_methods_refuse(call: Callable[[Any], Any], message: str) -> None:
    force = native.SplinePairForce(3, 0.2, 0.6, 10)
    force.addParticles([0, 1, 2, -1])
    force.addExclusion(0, 1)
    before = described(force)
    with refused(message):
        call(force)
    assert described(force)[:8] == before[:8]  # all but the particles


# Serialization -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "copied",
    [
        lambda f: openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(f)),
        copy.copy,
        copy.deepcopy,
        lambda f: pickle.loads(pickle.dumps(f)),
    ],
    ids=["XML", "copy", "deepcopy", "pickle"],
)
def test_a_copy_is_the_same_force(copied: Callable[[Any], Any]) -> None:
    force = case("cubic").force()
    force.setName("learned")
    twin = native.SplinePairForce.cast(copied(force))
    assert isinstance(twin, native.SplinePairForce) and twin is not force
    assert described(twin) == described(force)
    twin.setParticleType(0, -1 if force.getParticleType(0) != -1 else 0)  # and it is another one
    assert described(twin) != described(force)


def test_copies_of_a_system() -> None:
    c = case("narrow")
    system = c.system(c.force())
    xml = openmm.XmlSerializer.serialize(system)
    copies = [copy.deepcopy(system), pickle.loads(pickle.dumps(system))]
    for twin in (openmm.XmlSerializer.deserialize(xml), *copies):
        force = native.SplinePairForce.cast(twin.getForce(0))
        context = context_on(REFERENCE, twin)
        context.setPositions(c.positions)
        at = Live(c, REFERENCE, force, context)
        assert at.quantities().energy == pytest.approx(c.expected.energy, rel=1e-12)


def test_cast() -> None:
    system = case("molecules").system(case("molecules").force())
    plain, bonds = system.getForces()
    assert native.SplinePairForce.isinstance(plain)
    assert not native.SplinePairForce.isinstance(bonds)
    assert native.SplinePairForce.cast(plain).getNumTypes() == 3
    with refused("cannot cast HarmonicBondForce 'HarmonicBondForce'"):
        native.SplinePairForce.cast(bonds)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('version="1"', 'version="2"', "unsupported version 2 in XML, expected 1"),
        ('numKnots="10"', 'numKnots="3"', "expected at least 6 knots, got 3"),
        ('method="2"', 'method="7"', "expected the nonbonded method"),
        ('<Particle type="-1"/>', '<Particle type="3"/>', "expected a particle type -1 to 2"),
        ('type2="2"', 'type2="5"', "expected a particle type 0 to 2, got 5"),
        ("<Coefficient [^>]*/>", "", "expected 8 coefficients for types 0 and 0, got 7"),
        ('Coefficient v="[^"]*"', 'Coefficient v="nan"', "coefficient 0 of 8 .* finite"),
    ],
)
def test_xml_with_errors_is_refused(old: str, new: str, message: str) -> None:
    xml = openmm.XmlSerializer.serialize(case("cubic").force())
    wrong = re.sub(old, new, xml, count=1)
    assert wrong != xml
    with refused(message):
        openmm.XmlSerializer.deserialize(wrong)


# Contexts that are refused -----------------------------------------------------------------------


def test_number_of_particles(where: Where) -> None:
    force = native.SplinePairForce(1, 0.2, 0.6, 10)
    force.addParticles([0, 0, 0])
    system = openmm.System()
    for _ in range(4):
        system.addParticle(1.0)
    system.addForce(force)
    with refused("must have exactly as many particles as the System it belongs to, 4, got 3"):
        context_on(where, system)


@pytest.mark.parametrize("platform", ["OpenCL", "CUDA"])
def test_several_devices(platform: str) -> None:
    """The same one twice will do."""
    where = Where(platform, "single")
    reason = why_missing(where)
    if reason is not None:
        pytest.skip(reason)
    system = pair().system(pair().force())
    integrator, properties = openmm.VerletIntegrator(0.001), {"DeviceIndex": "0,0"}
    with refused(
        "a Context with .* runs on one device, but it was given 2; name a single one.*DeviceIndex"
    ):
        openmm.Context(system, integrator, openmm.Platform.getPlatform(platform), properties)


@pytest.mark.parametrize(
    ("exclusions", "message"),
    [
        ([(0, 1), (1, 0)], "exclusion 1: particles 1 and 0 are excluded twice"),
        ([(0, 2)], "exclusion 0: expected two particles 0 to 1, got 0 and 2"),
        ([(0, -1)], "exclusion 0: expected two particles 0 to 1, got 0 and -1"),
        ([(1, 1)], "exclusion 0: expected two particles 0 to 1, got 1 and 1"),
    ],
)
def test_exclusions_are_checked(exclusions: list[tuple[int, int]], message: str) -> None:
    with refused(message):
        live(pair(exclusions=exclusions), REFERENCE)


def test_cutoff_beyond_half_the_box(where: Where, contexts: Contexts) -> None:
    """At creation, and when the box has shrunk: for energies and derivatives alike."""
    message = "the cutoff, 0.6 nm, must not be greater than half the periodic box size, 0.55 nm"
    narrow = np.diag([2.0, 1.1, 2.0])
    with refused(message):
        live(replace(case("cubic"), box=narrow), where)
    at = contexts("cubic")
    at.context.setPeriodicBoxVectors(*narrow)
    # On GPU platforms, OpenMM looks first.
    theirs = "box size has decreased to less than twice the nonbonded cutoff"
    with pytest.raises(openmm.OpenMMException, match=f"{message}|{theirs}"):
        at.energy()
    with refused(message):
        at.force.computeBasisSums(at.context)
    with refused(message):
        at.force.computeHessianVectorProduct(at.context, at.case.vectors)
    at.reset()
    with refused(message):
        at.force.computeSums(at.context, at.case.positions[None], narrow)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        (np.diag([2.0, np.nan, 2.0]), "finite"),
        (np.array([[2.0, 0.1, 0], [0, 2.0, 0], [0, 0, 2.0]]), "reduced form"),
        (np.array([[2.0, 0, 0], [1.2, 2.0, 0], [0, 0, 2.0]]), "reduced form"),
        (np.diag([2.0, -2.0, 2.0]), "reduced form"),
    ],
)
def test_boxes_that_are_none(box: Array, message: str) -> None:
    at = live(case("cubic"), REFERENCE)
    with refused(f".*{message}"):
        at.force.computeSums(at.context, boxes=box)


def test_arguments_of_derivatives(contexts: Contexts) -> None:
    at = contexts("cubic")
    x, n = at.case.positions, len(at.case.positions)
    force, context = at.force, at.context
    with refused(rf"expected positions of shape \[frames, {n}, 3\], got \({n}, 3\)"):
        force.computeSums(context, x)
    with refused(r"expected boxes of shape \(1, 3, 3\), got \(2, 3, 3\)"):
        force.computeSums(context, x[None], np.tile(np.eye(3) * 2, (2, 1, 1)))
    with refused(rf"expected vectors of shape \({n}, 3\), got \({n - 1}, 3\)"):
        force.computeProducts(context, x[1:])
    with refused("frame 1: a coordinate of particle 7 is -?nan, expected a finite number"):
        wrong = np.stack([x, x])
        wrong[1, 7, 2] = np.nan
        force.computeSums(context, wrong)
    with refused("expected an openmm.Context, got System"):
        force.computeBasisSums(openmm.System())
    with refused("expected an openmm.Context, got NoneType"):
        force.computeHessianVectorProduct(None, x)
    with pytest.raises(openmm.OpenMMException, match="not present in the Context"):
        at.case.force().computeBasisSums(context)


def test_the_number_of_particles_must_not_change(where: Where) -> None:
    at = live(pair(), where)
    at.force.addParticle(0)
    with refused("the number of particles has changed from 2 to 3"):
        at.force.updateParametersInContext(at.context)


def test_an_update_changes_coefficients_and_types_only(where: Where) -> None:
    """Method and exclusions are those of when the Context was made, until it is made anew."""
    at = live(pair(), where)
    before = at.energy()
    at.force.setNonbondedMethod(at.force.CutoffPeriodic)
    at.force.addExclusion(0, 1)
    at.force.updateParametersInContext(at.context)
    assert at.energy() == before != 0
    # The default box, 2 nm, is too small for an edge of 1.5 nm only where boxes matter.
    far = PairHistogram(np.array([0.0, 1.5]), np.ones(2, bool), np.ones(2, bool))
    counts = at.force.computeSums(at.context, basis=False, histograms=[far]).counts
    assert counts[0].tolist() == [[2]]
    at.context.reinitialize(preserveState=True)
    assert at.energy() == 0


# Histograms --------------------------------------------------------------------------------------


def histograms_of(c: Case, seed: int = 3) -> dict[str, PairHistogram]:
    """Even and uneven bins, selections that overlap or are empty, groups; up to half the box."""
    rng = np.random.default_rng(seed)
    n = len(c.types)
    r_max = 1.4 if c.box is None else 0.5 * float(np.diag(c.box).min())
    first, second = rng.random((2, n)) < [[0.6], [0.5]]
    everyone, nobody = np.ones(n, dtype=bool), np.zeros(n, dtype=bool)
    uneven = np.sort(rng.uniform(0.05, r_max, 40))
    return {
        "all": PairHistogram(np.linspace(0, r_max, 201), everyone, everyone),
        "overlap": PairHistogram(np.linspace(0.1, r_max, 61), first, second),
        "disjoint": PairHistogram(np.linspace(0.1, r_max, 61), first, ~first),
        "uneven": PairHistogram(uneven, everyone, first),
        "groups": PairHistogram(uneven, first, everyone, rng.integers(-1, 8, n)),
        "one bin": PairHistogram(np.array([0.2, 0.4]), everyone, everyone, np.arange(n) // 3),
        "nobody": PairHistogram(uneven, nobody, everyone),
    }


def counted(c: Case, h: PairHistogram, margin: float) -> tuple[Array, Array]:
    """Ordered pairs per bin by NumPy: surely in it, and perhaps, if r is known to ``margin``."""
    i, j = np.triu_indices(len(c.positions), 1)
    r = np.linalg.norm(nearest_image(c.positions[i] - c.positions[j], c.box), axis=1)
    times = (h.first[i] & h.second[j]).astype(int) + (h.first[j] & h.second[i])
    if h.groups is not None:
        times[(h.groups[i] >= 0) & (h.groups[i] == h.groups[j])] = 0
    low, high = h.edges[:-1, None], h.edges[1:, None]
    surely = ((r >= low + margin) & (r < high - margin)) @ times
    perhaps = ((r >= low - margin) & (r < high + margin)) @ times
    return surely, perhaps


@pytest.mark.parametrize("name", ["cubic", "narrow", "octahedron", "nonperiodic", "many"])
def test_histograms(contexts: Contexts, where: Where, name: str) -> None:
    """Exact; a pair may be in the bin next to its own only if rounding can take it there.

    Coordinates are rounded to eps L each, L being the largest, and edges are rounded as well.
    """
    at = contexts(name)
    wanted = histograms_of(at.case)
    sums = at.force.computeSums(at.context, basis=False, histograms=list(wanted.values()))
    # Coordinates reach 8 nm where particles are some images away.
    margin = 4 * where.epsilon * np.abs(at.case.positions).max()
    for h, found in zip(wanted.values(), sums.counts, strict=True):
        surely, perhaps = counted(at.case, h, margin)
        assert np.all(surely <= found[0]) and np.all(found[0] <= perhaps)
        assert perhaps.sum() - surely.sum() < 0.02 * max(surely.sum(), 1) + 5  # it says something
        if where.precision == "double":
            np.testing.assert_array_equal(surely, perhaps)
    assert sums.counts[0].sum() > 100 and sums.counts[-1].sum() == 0


@pytest.mark.parametrize("name", ["cubic", "narrow", "nonperiodic"])
def test_histogram_within_the_cutoff_where_all_interact(where: Where, name: str) -> None:
    """The CPU platform then counts the pairs of its neighbour list, also some steps old."""
    full = case(name)
    c = replace(full, types=np.arange(len(full.types)) % full.n_types, exclusions=())
    at = live(c, where)
    everyone = np.ones(len(c.types), dtype=bool)
    h = PairHistogram(np.linspace(0.05, c.basis.cutoff, 31), everyone, everyone)
    for shift in (0.0, 0.1 * c.basis.spacing):
        moved = replace(c, positions=c.positions + shift * c.vectors)
        at.place(moved.positions)
        surely, perhaps = counted(moved, h, 4 * where.epsilon * np.abs(c.positions).max())
        found = at.force.computeSums(at.context, basis=False, histograms=[h]).counts[0][0]
        assert surely.sum() > 100
        assert np.all(surely <= found) and np.all(found <= perhaps)


def test_edges_of_bins(where: Where) -> None:
    """A bin has its lower edge, not its upper one. Distances are exact in any precision."""
    x = np.array([[0.0, 0, 0], [0.5, 0, 0], [1.25, 0, 0]])
    at = live(replace(pair(), positions=x, types=np.zeros(3, dtype=int)), where)
    everyone = np.ones(3, dtype=bool)
    uniform = PairHistogram(np.array([0.25, 0.5, 0.75, 1.0, 1.25]), everyone, everyone)
    uneven = PairHistogram(np.array([0.25, 0.5, 0.625, 0.75, 1.25]), everyone, everyone)
    sums = at.force.computeSums(at.context, basis=False, histograms=[uniform, uneven])
    assert sums.counts[0].tolist() == [[0, 2, 2, 0]]
    assert sums.counts[1].tolist() == [[0, 2, 0, 2]]


def test_histograms_of_frames(contexts: Contexts, where: Where) -> None:
    at = contexts("narrow")
    assert at.case.box is not None
    moves = np.random.default_rng(4).uniform(-0.2, 0.2, (3, *at.case.positions.shape))
    x, boxes = at.case.positions + moves, at.case.box * np.array([1.0, 1.1, 1.3])[:, None, None]
    wanted = list(histograms_of(at.case).values())
    sums = at.force.computeSums(at.context, x, boxes, virial=True, histograms=wanted)
    margin = 4 * where.epsilon * np.abs(x).max()
    for m in range(3):
        c = replace(at.case, positions=x[m], box=boxes[m])
        for h, found in zip(wanted, sums.counts, strict=True):
            surely, perhaps = counted(c, h, margin)
            assert np.all(surely <= found[m]) and np.all(found[m] <= perhaps)


def test_pair_histogram_counts_each_pair_once(contexts: Contexts) -> None:
    at = contexts("many")
    edges = np.array([0.0, 1.5])
    types = at.case.types
    same = at.force.computePairHistogram(at.context, edges, 0, 0)
    i, j = np.triu_indices(len(types), 1)
    delta = nearest_image(at.case.positions[i] - at.case.positions[j], at.case.box)
    near = np.linalg.norm(delta, axis=1) < 1.5
    assert same.tolist() == [np.sum(near & (types[i] == 0) & (types[j] == 0))]
    mixed = at.force.computePairHistogram(at.context, edges, 0, 1)
    kinds = np.sort(np.stack([types[i], types[j]]), axis=0)
    assert mixed.tolist() == [np.sum(near & (kinds[0] == 0) & (kinds[1] == 1))]


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ([0.1], "at least two edges, the first not negative, got 1 edges"),
        ([-0.1, 0.2], "at least two edges, the first not negative"),
        ([0.1, 0.3, 0.3], "must rise, but edge 2 is 0.3 nm after 0.3 nm"),
        ([0.1, np.nan], "must rise, but edge 1 is -?nan"),
        ([0.1, np.inf], "must rise, but edge 1 is inf"),
        ([0.1, 1.01], "last edge of a histogram, 1.01 nm, .* half the periodic box size, 1 nm"),
    ],
)
def test_edges_are_checked(edges: list[float], message: str) -> None:
    at = live(case("cubic"), REFERENCE)
    everyone = np.ones(len(at.case.types), dtype=bool)
    with refused(f".*{message}"):
        at.force.computeSums(
            at.context, histograms=[PairHistogram(np.array(edges), everyone, everyone)]
        )


def test_selections_are_checked() -> None:
    at = live(case("cubic"), REFERENCE)
    n = len(at.case.types)
    everyone, fewer = np.ones(n, dtype=bool), np.ones(n - 1, dtype=bool)
    edges = np.array([0.0, 0.5])
    for wrong in (
        PairHistogram(edges, fewer, everyone),
        PairHistogram(edges, fewer, fewer),
        PairHistogram(edges, everyone, everyone, np.zeros(n + 1, dtype=int)),
    ):
        with refused(f".*expected {n}"):
            at.force.computeSums(at.context, histograms=[wrong])


# A run -------------------------------------------------------------------------------------------


def energies_of_a_run(system: openmm.System, positions: Array, where: Where) -> Array:
    """Total energy, kJ/mol, every 10 of 2000 steps after 200 of equilibration, seeded."""
    integrator = openmm.VerletIntegrator(0.008)  # a large step, so that drift would be seen
    context = context_on(where, system, integrator)
    context.setPositions(positions)
    context.setVelocitiesToTemperature(120.0, 1)
    integrator.step(200)
    energies = []
    for _ in range(200):
        integrator.step(10)
        state = context.getState(getEnergy=True)
        total = state.getPotentialEnergy() + state.getKineticEnergy()
        energies.append(total._value)
    return np.array(energies)


def drift_and_noise(energies: Array) -> tuple[float, float, float]:
    """Slope of a straight line over the whole run, its standard error, and what is left over."""
    time = np.linspace(-0.5, 0.5, len(energies))
    slope = np.sum(time * energies) / np.sum(time**2)
    residual = energies - energies.mean() - slope * time
    # Neighbouring values are alike: as many independent ones as a quarter of all.
    error = residual.std() / np.sqrt(np.sum(time**2) / 4)
    return float(slope), float(error), float(residual.std())


@pytest.mark.parametrize("platform", [CPU], ids=str)
def test_energy_is_kept_as_well_as_by_nonbonded_force(platform: Where) -> None:
    """Lennard-Jones argon, N = 500, cutoff 2.5 sigma, both with the same switching function.

    Fluctuation: at most 1.2 times that of NonbondedForce. Drift over the 16 ps: at most that of
    NonbondedForce and four standard errors of both slopes.
    """
    reason = why_missing(platform)
    if reason is not None:
        pytest.skip(reason)
    box = np.eye(3) * 2.9
    cutoff = 2.5 * SIGMA
    positions = lattice(512, box)[np.random.default_rng(2).permutation(512)[:500]]
    spline, nonbonded = openmm.System(), openmm.System()
    for system in (spline, nonbonded):
        system.setDefaultPeriodicBoxVectors(*box)
        for _ in range(500):
            system.addParticle(MASS)
    argon(cutoff=cutoff, knots=60).attach(spline)
    if not native.SplinePairForce.isinstance(spline.getForce(0)):
        potential = argon(cutoff=cutoff, knots=60)
        spline.removeForce(0)
        b = potential.basis
        force = native.SplinePairForce(1, b.r_min, b.cutoff, b.knots)
        force.setCoefficients(potential.spline_coefficients().detach().numpy())
        force.addParticles(np.zeros(500))
        force.setNonbondedMethod(force.CutoffPeriodic)
        spline.addForce(force)
    theirs = openmm.NonbondedForce()
    theirs.setNonbondedMethod(theirs.CutoffPeriodic)
    theirs.setCutoffDistance(cutoff)
    theirs.setUseSwitchingFunction(True)
    theirs.setSwitchingDistance(0.9 * cutoff)
    theirs.setUseDispersionCorrection(False)
    for _ in range(500):
        theirs.addParticle(0.0, SIGMA, EPSILON)
    nonbonded.addForce(theirs)

    ours = energies_of_a_run(spline, positions, platform)
    stock = energies_of_a_run(nonbonded, positions, platform)
    assert ours.mean() == pytest.approx(stock.mean(), rel=0.01)  # it is the same liquid
    drift, error, noise = drift_and_noise(ours)
    drift_0, error_0, noise_0 = drift_and_noise(stock)
    assert noise <= 1.2 * noise_0
    assert abs(drift) <= abs(drift_0) + 4 * np.hypot(error, error_0)
