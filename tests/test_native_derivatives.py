"""The native force: energy, forces and derivatives, on every platform that is here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import openmm
import pytest
from native_systems import (
    CASES,
    CPU,
    REFERENCE,
    Case,
    Live,
    Quantities,
    Where,
    assert_close,
    case,
    live,
    pair,
    why_missing,
)
from systems import Array, numerical_derivative

Contexts = Callable[[str], Live]

pytestmark = pytest.mark.skipif(
    why_missing(REFERENCE) is not None, reason=str(why_missing(REFERENCE))
)

_references: dict[str, Live] = {}


def reference(name: str) -> Live:
    """The Context of a case on the Reference platform."""
    if name not in _references:
        _references[name] = live(case(name), REFERENCE)
    return _references[name].reset()


def unit_coefficients(shape: tuple[int, ...]) -> list[Array]:
    """Coefficients of which one is 1 and all others are 0, for each of them."""
    return list(np.eye(int(np.prod(shape))).reshape(-1, *shape))


def knots_crossed(c: Case, positions: Array) -> int:
    """Number of pairs that are between other knots than they were."""
    cells = []
    for x in (c.positions, positions):
        _, _, delta = replace(c, positions=x).pairs
        r = np.linalg.norm(delta, axis=1)
        cells.append(np.floor((r - c.basis.r_min) / c.basis.spacing))
    return int(np.sum(cells[0] != cells[1])) if len(cells[0]) == len(cells[1]) else 10**6


# Against the definition --------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_reference_is_what_the_definition_says(name: str) -> None:
    c = case(name)
    assert {0, 1, 2} <= set(c.types) and -1 in c.types
    assert_close(reference(name).quantities(), c.expected, c.tolerance(REFERENCE))


@pytest.mark.parametrize("name", CASES)
def test_platform_agrees_with_reference(where: Where, contexts: Contexts, name: str) -> None:
    expected = reference(name).quantities()
    assert_close(contexts(name).quantities(), expected, case(name).tolerance(where))


@pytest.mark.parametrize("name", CASES)
def test_cpu_without_avx2(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("OPENMM_DIFFSIM_PORTABLE", "1")  # looked at when a Context is made
    found = live(case(name), CPU).quantities()
    assert_close(found, reference(name).quantities(), case(name).tolerance(CPU))


@pytest.mark.parametrize("name", ["narrow", "many"])
@pytest.mark.parametrize("field", Quantities._fields)
def test_the_comparison_would_notice_a_wrong_number(where: Where, name: str, field: str) -> None:
    """The largest entry off by 2e-3 in single precision, by 1e-9 in double."""
    expected = case(name).expected
    wrong = np.array(getattr(expected, field))
    wrong.flat[np.abs(wrong).argmax()] *= 1 + (1e-9 if where.precision == "double" else 2e-3)
    with pytest.raises(AssertionError, match=field):
        assert_close(expected._replace(**{field: wrong}), expected, case(name).tolerance(where))


@pytest.mark.parametrize("name", ["narrow", "many"])
def test_the_comparison_would_notice_a_missing_pair(where: Where, name: str) -> None:
    c = case(name)
    i, j, delta = c.pairs
    nearest = np.argmin(np.abs(np.linalg.norm(delta, axis=1) - 0.45))  # an ordinary pair
    fewer = replace(c, exclusions=[*c.exclusions, (int(i[nearest]), int(j[nearest]))])
    for field in Quantities._fields:
        with pytest.raises(AssertionError, match=field):
            assert_close(
                c.expected._replace(**{field: getattr(fewer.expected, field)}),
                c.expected,
                c.tolerance(where),
            )


# Against differences -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cubic", "narrow", "molecules", "nonperiodic"])
def test_forces_are_differences_of_the_energy(name: str) -> None:
    """To 1e-8 of the largest force.

    At a knot the third derivative of u jumps, by some 12 c/h^3. A five-point difference over
    steps s that straddles one is off by at most s^2/50 of the jump, relative to a force of c/h by
    0.24 (s/h)^2: with s = 2e-6 nm (5e-6 for images that are far away) and h = 0.044 nm, 3e-9.
    """
    at = reference(name)

    def energy(x: Array) -> float:
        at.place(x.reshape(-1, 3))
        return at.energy()

    forces = at.forces()
    start = at.case.positions.ravel()
    some = np.arange(0, len(start), 3 if len(start) > 100 else 1)

    def of_some(x: Array) -> float:
        moved = start.copy()
        moved[some] = x
        return energy(moved)

    expected = -numerical_derivative(of_some, start[some], step=1e-6)
    largest = np.abs(forces).max()
    np.testing.assert_allclose(forces.ravel()[some], expected, rtol=0, atol=1e-8 * largest)


@pytest.mark.parametrize("name", ["cubic", "narrow", "nonperiodic"])
def test_hessian_product_is_the_change_of_the_forces(name: str) -> None:
    """To 1e-8 of the largest; steps so small that no pair crosses a knot, where u''' jumps."""
    at = reference(name)
    start, v, step = at.case.positions, at.case.vectors, 1e-7
    assert knots_crossed(at.case, start + 2 * step * v) == 0
    assert knots_crossed(at.case, start - 2 * step * v) == 0
    found = at.force.computeHessianVectorProduct(at.context, v)

    def forces(step: float) -> Array:
        at.place(start + step * v)
        return at.forces()

    near, far = forces(step) - forces(-step), forces(2 * step) - forces(-2 * step)
    expected = -(8 * near - far) / (12 * step)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8 * np.abs(found).max())


def test_hessian_is_symmetric() -> None:
    at = reference("narrow")
    u, v = np.random.default_rng(3).normal(size=(2, *at.case.positions.shape))
    left = np.sum(u * at.force.computeHessianVectorProduct(at.context, v))
    right = np.sum(v * at.force.computeHessianVectorProduct(at.context, u))
    assert left == pytest.approx(right, rel=1e-12)


@pytest.mark.parametrize("name", ["octahedron", "nonperiodic"])
def test_sums_and_parameter_product_are_exact_derivatives(name: str) -> None:
    """Energy and forces are linear in the coefficients: a difference is exact but for rounding."""
    at = reference(name)
    s = at.force.computeBasisSums(at.context)
    product = at.force.computeForceParameterProduct(at.context, at.case.vectors)
    shape = at.case.coefficients.shape
    for k, c in enumerate(unit_coefficients(shape)):
        at.force.setCoefficients(c)
        at.force.updateParametersInContext(at.context)
        assert at.energy() == pytest.approx(s.flat[k], rel=1e-13, abs=1e-13)
        along = np.sum(at.case.vectors * at.forces())
        assert along == pytest.approx(product.flat[k], rel=1e-11, abs=1e-11)


def test_sums_give_the_energy(where: Where, contexts: Contexts) -> None:
    at = contexts("many")
    energy = np.sum(at.case.coefficients * at.force.computeBasisSums(at.context))
    allowed = 2 * at.case.tolerance(where).energy
    assert energy == pytest.approx(at.energy(), rel=0, abs=allowed)


def scaled(at: Live, factor: float) -> tuple[Array, Array]:
    """Positions and box when centres of molecules and box vectors grow by a factor."""
    c = at.case
    assert c.box is not None
    return c.positions + (factor - 1) * c.centers, factor * c.box


@pytest.mark.parametrize("name", ["cubic", "narrow", "molecules"])
def test_virial_is_the_change_of_the_energy_with_the_volume(name: str) -> None:
    """W = -3 V dU/dV = -dU/d ln(length); to 1e-8, with steps as for the forces."""
    at = reference(name)
    virial, sums = at.force.computeVirial(at.context)

    def energy(x: Array) -> float:
        at.place(*scaled(at, float(np.exp(x[0]))))
        return at.energy()

    expected = -numerical_derivative(energy, np.zeros(1), step=1e-4)[0]
    assert virial == pytest.approx(expected, rel=1e-8)
    assert virial == pytest.approx(np.sum(at.case.coefficients * sums), rel=1e-14)


@pytest.mark.parametrize("name", ["cubic", "molecules"])
def test_virial_is_that_of_openmm_barostat(name: str) -> None:
    """The pressure of particles at rest: OpenMM's number, and W/(3V) by the same difference.

    OpenMM scales lengths by 1 +- 1e-3; how far that is from the derivative is another matter.
    """
    at = reference(name)
    c = at.case
    force = c.force()
    system = c.system(force)
    barostat = openmm.MonteCarloBarostat(1.0, 300.0)
    system.addForce(barostat)
    context = openmm.Context(
        system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference")
    )
    context.setPositions(c.positions)
    context.setVelocities(np.zeros_like(c.positions))
    pressure = barostat.computeCurrentPressure(context)
    energies, volumes = [], []
    for factor in (1 - 1e-3, 1 + 1e-3):
        positions, box = scaled(at, factor)
        at.place(positions, box)
        energies.append(at.energy())
        volumes.append(np.linalg.det(box))
    bar = 16.6053906717  # kJ/mol/nm^3 in bar
    slope = -bar * (energies[1] - energies[0]) / (volumes[1] - volumes[0])
    found = float(getattr(pressure, "_value", pressure))
    assert found == pytest.approx(slope, rel=1e-9)
    virial, _ = at.reset().force.computeVirial(at.context)
    assert found == pytest.approx(bar * virial / (3 * np.linalg.det(at.box())), rel=2e-3)


# The shape of the potential ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def two(where: Where) -> Live:
    """Two particles."""
    return live(pair(), where)


def at_distance(two: Live, r: float) -> tuple[float, float]:
    """Energy, and the force that drives the particles apart."""
    # One at the origin: the distance of what single precision stores is r to its rounding.
    two.place(np.array([[0.0, 0.0, 0.0], [0.0, 0.0, r]]))
    forces = two.forces()
    np.testing.assert_array_equal(forces[0], -forces[1])
    np.testing.assert_array_equal(forces[:, :2], 0)
    return two.energy(), float(forces[1, 2])


def rounding(where: Where, scale: float) -> float:
    """What eight roundings of a number leave, with the fixed point of GPU platforms."""
    return 8 * where.epsilon * scale + (2.0**-31 if where.has_precisions else 0)


def test_edge_of_the_cutoff(two: Live, where: Where) -> None:
    """Just below the cutoff u = c_last (d/h)^3/6, d being what is missing to it; beyond, nothing.

    Rounding of r, 8 eps cutoff, moves d.
    """
    b, last = two.case.basis, float(two.case.coefficients[0, -1])
    h = b.spacing
    for d in (0.3 * h, 1e-2 * h, 1e-3 * h, 1e-6 * h):
        energy, force = at_distance(two, b.cutoff - d)
        moved = 8 * where.epsilon * b.cutoff
        fixed = 2.0**-31 if where.has_precisions else 0.0
        # At t near 1 the terms of a polynomial of order one cancel, but for some eps of them.
        allowed = abs(last) * (moved * (d + moved) ** 2 / h**3 + 8 * where.epsilon) + fixed
        assert energy == pytest.approx(last * (d / h) ** 3 / 6, rel=0, abs=allowed)
        allowed = abs(last) * (moved * (d + moved) / h**3 + 8 * where.epsilon / h) + fixed
        assert force == pytest.approx(last * (d / h) ** 2 / (2 * h), rel=0, abs=allowed)
    for r in (b.cutoff, b.cutoff * (1 + 1e-6), 1.05 * b.cutoff, 10.0):
        energy, force = at_distance(two, r)
        assert abs(energy) <= 8 * where.epsilon * abs(last)
        assert abs(force) <= 8 * where.epsilon * abs(last) / h
    for r in (b.cutoff * (1 + 1e-6), 1.05 * b.cutoff):
        assert at_distance(two, r) == (0, 0)


def test_line_below_r_min(two: Live, where: Where) -> None:
    c, b = two.case.coefficients[0], two.case.basis
    slope = float(c[1] - c[0]) / b.spacing
    scale = float(np.abs(c).max()) * (1 + b.r_min / b.spacing)
    for r in (b.r_min, 0.9 * b.r_min, 0.3 * b.r_min, 1e-3, 1e-6):
        energy, force = at_distance(two, r)
        expected = float(c[0]) + slope * (r - b.r_min)
        assert energy == pytest.approx(expected, rel=0, abs=rounding(where, scale))
        assert force == pytest.approx(
            -slope, rel=0, abs=rounding(where, abs(slope) + 2 / b.spacing)
        )


def test_at_distance_zero_all_is_finite_and_no_force(two: Live, where: Where) -> None:
    c, b = two.case.coefficients[0], two.case.basis
    two.place(np.full((2, 3), 0.25))
    x = -b.r_min / b.spacing
    expected = np.zeros_like(two.case.coefficients)
    expected[0, :2] = 1 - x, x
    scale = 1 + b.r_min / b.spacing
    energy, forces, basis, virial, hessian_product, parameter_product = two.quantities()
    allowed = rounding(where, scale)
    np.testing.assert_allclose(basis, expected, rtol=0, atol=allowed)
    assert energy == pytest.approx(np.sum(expected * c), rel=0, abs=allowed * np.abs(c).max())
    np.testing.assert_allclose(virial, 0, rtol=0, atol=allowed)  # -u'(r) r, r = r_min + h x
    for zero in (forces, hessian_product, parameter_product):
        np.testing.assert_array_equal(zero, 0)


def test_box_hardly_wider_than_twice_the_cutoff(where: Where) -> None:
    """Two images of the other particle are at about the cutoff: one inside, one outside."""
    c = replace(
        pair(),
        positions=np.array([[0.1, 0.2, 0.3], [0.69, 0.2, 0.3]]),
        box=np.diag([1.201, 1.3, 1.4]),
    )
    assert_close(live(c, where).quantities(), c.expected, c.tolerance(where))


def test_one_particle_alone(where: Where) -> None:
    if where.platform == "OpenCL":
        pytest.skip("OpenMM 8.6.1 itself crashes on a CPU's OpenCL with a single particle")
    c = replace(
        pair(),
        positions=np.array([[0.1, 0.2, 0.3]]),
        box=np.diag([1.3, 1.4, 1.5]),
        types=np.zeros(1, dtype=int),
    )
    for zero in live(c, where).quantities():
        np.testing.assert_array_equal(zero, 0)


# Types, exclusions and coefficients in a live Context --------------------------------------------


def test_zero_coefficients(contexts: Contexts, where: Where) -> None:
    at = contexts("cubic")
    at.force.setCoefficients(np.zeros_like(at.case.coefficients))
    at.force.updateParametersInContext(at.context)
    found, expected = at.quantities(), at.case.expected
    zero = np.zeros_like(expected.forces)
    assert_close(
        found,
        expected._replace(energy=0, forces=zero, hessian_product=zero),
        at.case.tolerance(where)._replace(energy=0, forces=0, hessian_product=0),
    )


def test_particles_that_do_not_interact(contexts: Contexts) -> None:
    at = contexts("cubic")
    for i in range(len(at.case.types)):
        at.force.setParticleType(i, -1)
    at.force.updateParametersInContext(at.context)
    for zero in at.quantities():
        np.testing.assert_array_equal(zero, 0)


def test_type_without_particles(contexts: Contexts, where: Where) -> None:
    at = contexts("cubic")
    types = np.where(at.case.types == 1, 2, at.case.types)
    for i, t in enumerate(types):
        at.force.setParticleType(i, int(t))
    at.force.updateParametersInContext(at.context)
    c = replace(at.case, types=types)
    found = at.quantities()
    np.testing.assert_array_equal(found.basis[[1, 3, 4]], 0)
    assert_close(found, c.expected, c.tolerance(where))


def test_coefficients_and_types_are_updated(contexts: Contexts, where: Where) -> None:
    at = contexts("many")
    rng = np.random.default_rng(5)
    c = replace(
        at.case,
        coefficients=rng.normal(size=at.case.coefficients.shape),
        types=rng.permutation(at.case.types),
    )
    at.force.setCoefficients(c.coefficients)
    for i, t in enumerate(c.types):
        at.force.setParticleType(i, int(t))
    before = at.energy()
    assert before == pytest.approx(at.case.expected.energy, rel=0, abs=at.case.tolerance(where)[0])
    at.force.updateParametersInContext(at.context)
    assert_close(at.quantities(), c.expected, c.tolerance(where))


# Stored frames, and a Context that moves on ------------------------------------------------------


def frames_of(c: Case) -> tuple[Array, Array | None]:
    """Three configurations, far from one another, and their boxes."""
    rng = np.random.default_rng(11)
    moves = rng.uniform(-0.3, 0.3, (3, *c.positions.shape))
    boxes = None if c.box is None else c.box * np.array([1.0, 1.05, 1.2])[:, None, None]
    return c.positions + moves, boxes


@pytest.mark.parametrize("name", ["narrow", "molecules", "nonperiodic"])
def test_frames_are_those_of_single_calls(contexts: Contexts, where: Where, name: str) -> None:
    at = contexts(name)
    x, boxes = frames_of(at.case)
    v = np.random.default_rng(12).uniform(-1, 1, x.shape)
    sums = at.force.computeSums(at.context, x, boxes, virial=True)
    products = at.force.computeProducts(at.context, v, x, boxes)
    assert at.energy() == pytest.approx(
        at.case.expected.energy, rel=0, abs=at.case.tolerance(where).energy
    )
    for m in range(len(x)):
        c = replace(at.case, positions=x[m], box=None if boxes is None else boxes[m])
        c.__dict__["vectors"] = v[m]
        found = Quantities(
            c.expected.energy, c.expected.forces, sums.basis[m], sums.virial[m],
            products[0][m], products[1][m],
        )  # fmt: skip
        assert_close(found, c.expected, c.tolerance(where))
        single = at.force.computeSums(
            at.context, x[m : m + 1], None if boxes is None else boxes[m], virial=True
        )
        # Sums in another order differ by their rounding at most.
        allowed = c.tolerance(where)
        np.testing.assert_allclose(single.basis[0], sums.basis[m], rtol=0, atol=allowed.basis)
        np.testing.assert_allclose(single.virial[0], sums.virial[m], rtol=0, atol=allowed.virial)
        if where == REFERENCE:
            np.testing.assert_array_equal(single.basis[0], sums.basis[m])
            np.testing.assert_array_equal(single.virial[0], sums.virial[m])


def test_given_positions_leave_the_context_alone(contexts: Contexts, where: Where) -> None:
    """Nor do they disturb the run: the next steps are those of a Context that was not asked."""
    c = case("cubic")
    asked, left_alone = live(c, where), live(c, where)
    x, boxes = frames_of(c)
    for at in (asked, left_alone):
        at.context.getIntegrator().step(5)
    before = asked.positions()
    asked.force.computeSums(asked.context, x, boxes, virial=True)
    asked.force.computeProducts(asked.context, x, x, boxes)
    np.testing.assert_array_equal(asked.positions(), before)
    np.testing.assert_array_equal(asked.box(), c.box)
    for at in (asked, left_alone):
        at.context.getIntegrator().step(5)
    moved = np.abs(asked.positions() - c.positions).max()
    assert moved > 1e-3
    allowed = 0 if where == REFERENCE else 1e4 * where.epsilon * moved
    np.testing.assert_allclose(asked.positions(), left_alone.positions(), rtol=0, atol=allowed)


def test_derivatives_are_those_of_the_present_positions(contexts: Contexts, where: Where) -> None:
    """After setPositions, a change of the box and steps, without an energy in between.

    The box alone is not changed on GPU platforms: OpenMM 8.6.1 builds its list of neighbours anew
    only once particles have moved, for its own forces as well. A barostat moves them.
    """
    at = contexts("many")
    assert at.case.box is not None
    at.energy()
    x, boxes = frames_of(at.case)
    assert boxes is not None
    stages = [
        lambda: at.place(x[0]),
        lambda: where.has_precisions or at.context.setPeriodicBoxVectors(*boxes[2]),
        lambda: at.place(1.1 * x[0], 1.1 * boxes[0]),
        lambda: at.place(x[1], boxes[1]),
        lambda: at.place(at.case.positions, at.case.box),
        lambda: at.context.getIntegrator().step(10),
    ]
    for stage in stages:
        stage()
        # Not by at.quantities: the order of calls differs from stage to stage on purpose.
        products = at.force.computeProducts(at.context, at.case.vectors)
        sums = at.force.computeSums(at.context, virial=True)
        c = replace(at.case, positions=at.positions(), box=at.box())
        c.__dict__["vectors"] = at.case.vectors
        found = Quantities(at.energy(), at.forces(), sums.basis[0], sums.virial[0], *products)
        assert_close(found, c.expected, c.tolerance(where))
