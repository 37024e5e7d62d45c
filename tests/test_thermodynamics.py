"""Thermodynamic observables against exact values, finite differences and their own error bars."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import openmm
import pytest
import torch
from numpy.typing import NDArray
from openmm import app, unit
from scipy.stats import gamma, norm
from systems import (
    FreePair,
    assert_parameter_gradient,
    empty_system,
    lattice,
    simulate,
    topology,
)
from test_averages import autoregressive
from torch import Tensor

import openmm_diffsim as diffsim
from openmm_diffsim import (
    Covariance,
    Density,
    DielectricConstant,
    Enthalpy,
    HeatCapacity,
    HeatOfVaporization,
    IsothermalCompressibility,
    Observable,
    PotentialEnergy,
    Samples,
    Target,
    ThermalExpansion,
    Volume,
)
from openmm_diffsim.errors import ObservableError, TargetError
from openmm_diffsim.observables.base import Charges, Frame, Particles
from openmm_diffsim.potentials import SplineBasis
from openmm_diffsim.refinement.averages import Sight
from openmm_diffsim.refinement.comparison import Comparison, compare
from openmm_diffsim.samples import Features, Run
from openmm_diffsim.units import BAR, GRAM_PER_CM3, MOLAR_GAS_CONSTANT

Array = NDArray[np.float64]

N, TEMPERATURE, PRESSURE, MASS = 40, 300.0, 50.0, 20.0
KT = MOLAR_GAS_CONSTANT * TEMPERATURE
BASIS = SplineBasis(0.2, 0.7, 6)
ATOMS = Particles(N, np.arange(N), np.full(N, MASS))
R = 1e3 * MOLAR_GAS_CONSTANT  # J/mol/K


def point(pressure: float | None = PRESSURE, temperature: float = TEMPERATURE) -> Any:
    """A state point, as far as a target asks for one."""
    return SimpleNamespace(
        temperature=temperature,
        pressure=pressure,
        timestep=0.002,
        check_observable=lambda o: None,
        n_particles=N,
        place=lambda: None,
    )


def recorded(
    potential: FreePair,
    record: Sequence[Observable],
    energy: Array,
    volume: Array,
    sums: Array | None = None,
    pressure: float | None = PRESSURE,
    particles: Particles = ATOMS,
) -> Samples:
    """Frames of one run: energies of other forces, volumes, and features, zero by default."""
    n = len(volume)
    features = np.zeros((n, BASIS.n_coefficients)) if sums is None else sums
    frame = Frame(np.zeros((N, 3)), np.eye(3), 1.0, 0.0)
    same = {o: o.recorder(particles).record(frame, []) for o in record}  # in every frame
    c = potential.coefficients().detach().numpy().ravel().copy()
    return Samples(
        potential=potential,
        runs=(Run(c, TEMPERATURE, pressure, n, every=1),),
        learned=Features(features, np.zeros_like(features)),
        volume=volume,
        rest_energy=energy,
        records={o: np.tile(numbers, (n, 1)) for o, numbers in same.items()},
        temperature=TEMPERATURE,
        pressure=pressure,
    )


def terms_of(observable: Observable, pressure: float | None = PRESSURE) -> list[Observable]:
    return [o for _, o in observable.terms([point(pressure)])]


def compared(observable: Observable, samples: Samples) -> Comparison:
    """Its value from these frames, with its error."""
    place = point(samples.pressure)
    target = Target(place, observable, 1.0, uncertainty=1.0, as_it_is=True)
    return compare([target], [Sight(place, samples.at())], jacobian=False)


def of_ideal_gas(observable: Observable, n: int = 4000, seed: int = 1) -> tuple[float, float]:
    """Value and error from frames of an ideal gas: p(V) ~ V^N exp(-p V / kT)."""
    random = np.random.default_rng(seed)
    volume = random.gamma(N + 1, KT * BAR / PRESSURE, n)
    record = terms_of(observable)
    found = compared(observable, recorded(FreePair(BASIS), record, np.zeros(n), volume))
    return float(found.prediction[0]), float(found.own_error()[0])


GAS = {
    "density": (Density(), N * MASS * PRESSURE / BAR / KT / N / GRAM_PER_CM3),
    "compressibility": (IsothermalCompressibility(), 1 / PRESSURE),
    "thermal expansion": (ThermalExpansion(), 1 / TEMPERATURE),
    # p V has N + 1 factors kT and the variance (N + 1) (kT)^2.
    "heat capacity": (HeatCapacity(), R * (1.5 + (N + 1) / N)),
    "enthalpy": (Enthalpy(), KT * (1.5 + (N + 1) / N)),
}


@pytest.mark.parametrize("name", GAS)
def test_an_ideal_gas_has_its_exact_values(name: str) -> None:
    observable, exact = GAS[name]
    value, error = of_ideal_gas(observable)
    assert abs(value - exact) < 4 * error, f"{value} +- {error}, expected {exact}"
    assert error < 0.05 * exact


def einstein_crystal(observable: Observable, n: int = 4000, seed: int = 1) -> tuple[float, float]:
    """From frames of N atoms, each in a harmonic well: U ~ Gamma(3 N / 2) kT."""
    energy = np.random.default_rng(seed).gamma(1.5 * N, KT, n)
    samples = recorded(FreePair(BASIS), [observable], energy, np.full(n, 8.0), pressure=None)
    found = compared(observable, samples)
    return float(found.prediction[0]), float(found.own_error()[0])


@pytest.mark.parametrize(
    ("observable", "exact"), [(HeatCapacity("volume"), 3 * R), (PotentialEnergy(), 1.5 * KT)]
)
def test_a_harmonic_crystal_has_its_exact_values(observable: Observable, exact: float) -> None:
    value, error = einstein_crystal(observable)
    assert abs(value - exact) < 4 * error < 0.2 * exact, f"{value} +- {error}, expected {exact}"


# Runs of OpenMM -----------------------------------------------------------------------------------


def run(
    force: openmm.Force | None, pressure: float | None, record: Sequence[Observable], steps: int
) -> Samples:
    """Of N atoms without interaction, in a box of about 3 nm."""
    box = np.eye(3) * (N * KT * BAR / PRESSURE) ** (1 / 3)
    system = empty_system(N, box, MASS)
    potential = diffsim.LennardJones(0.3, 0.0, 0.6, knots=8)
    potential.attach(system)
    if force is not None:
        system.addForce(force)
    if pressure is not None:
        barostat = openmm.MonteCarloBarostat(pressure, TEMPERATURE, 1)
        barostat.setRandomNumberSeed(4)
        system.addForce(barostat)
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 20.0, 0.004)
    integrator.setRandomNumberSeed(2)
    platform = openmm.Platform.getPlatform("Reference")
    simulation = app.Simulation(topology(N), system, integrator, platform)
    simulation.context.setPositions(lattice(N, box))
    simulation.context.setVelocitiesToTemperature(TEMPERATURE, 3)
    return diffsim.StatePoint(simulation, potential).sample(steps, 5, record, 500)


def test_a_run_of_an_ideal_gas_under_a_barostat() -> None:
    names = ["density", "compressibility", "thermal expansion", "heat capacity"]
    record = [o for name in names for o in terms_of(GAS[name][0])]
    samples = run(None, PRESSURE, record, 4000)
    for name in names:
        observable, exact = GAS[name]
        found = compared(observable, samples)
        value, error = found.prediction[0], found.own_error()[0]
        assert abs(value - exact) < 4 * error < exact, f"{name}: {value} +- {error}, {exact}"


def test_a_run_of_harmonic_oscillators() -> None:
    wells = openmm.CustomExternalForce("1000*periodicdistance(x, y, z, x0, y0, z0)^2")
    for name in ("x0", "y0", "z0"):
        wells.addPerParticleParameter(name)
    box = np.eye(3) * (N * KT * BAR / PRESSURE) ** (1 / 3)
    for index, position in enumerate(lattice(N, box)):
        wells.addParticle(index, position)
    record = [HeatCapacity("volume"), PotentialEnergy(n=1)]
    samples = run(wells, None, record, 4000)
    for observable, exact in zip(record, (3 * R, 1.5 * N * KT), strict=True):
        found = samples.estimate(observable)
        # LangevinMiddle samples positions of a harmonic well exactly.
        assert abs(found.value[0] - exact) < 4 * found.standard_error[0] < 0.3 * exact


# Gradients ----------------------------------------------------------------------------------------

MADE: list[Observable] = [
    Density(),
    PotentialEnergy(),
    PotentialEnergy(n=3),
    Enthalpy(),
    HeatCapacity(),
    HeatCapacity(n=7),
    IsothermalCompressibility(),
    ThermalExpansion(),
    Covariance(Density(), PotentialEnergy(), over="RT"),
]


def pool_of(record: Sequence[Observable], pressure: float | None) -> tuple[FreePair, Samples]:
    """Two runs at different coefficients, seen at a third set."""
    random = np.random.default_rng(5)
    potential, parts = FreePair(BASIS, seed=3), []
    potential.c.data.mul_(0.2)
    for _ in range(2):
        n = 60
        volume = 8 + random.normal(0, 0.3, n)
        sums = random.normal(0, 1.5, (n, BASIS.n_coefficients)) + volume[:, None]
        energy = random.normal(-100, 5, n)
        parts.append(recorded(potential, record, energy, volume, sums, pressure))
        potential.c.data.add_(0.05 * torch.from_numpy(random.normal(size=potential.c.shape)))
    return potential, Samples.pool(parts)


def value_of(observable: Observable, samples: Samples) -> Tensor:
    return observable.combine(*map(samples.average, terms_of(observable, samples.pressure)))[0]


@pytest.mark.parametrize("observable", MADE, ids=lambda o: type(o).__name__)
@pytest.mark.parametrize("at", [TEMPERATURE, 310.0])
def test_gradient_over_recorded_frames_equals_finite_differences(
    observable: Observable, at: float
) -> None:
    potential, pool = pool_of(terms_of(observable), PRESSURE)
    samples = pool.reweight(at, PRESSURE)
    assert_parameter_gradient(potential, lambda: value_of(observable, samples))


@pytest.mark.parametrize("observable", MADE, ids=lambda o: type(o).__name__)
def test_the_jacobian_of_a_fit_is_that_gradient(observable: Observable) -> None:
    potential, samples = pool_of(terms_of(observable), PRESSURE)
    (whole,) = torch.autograd.grad(value_of(observable, samples), list(potential.parameters()))
    place = point()
    target = Target(place, observable, 1.0, uncertainty=1.0, as_it_is=True)
    found = compare([target], [Sight(place, samples.at())])
    np.testing.assert_allclose(found.jacobian[0], whole.ravel(), rtol=1e-8)


def test_the_second_derivative_of_a_variance_is_exact() -> None:
    observable = HeatCapacity("volume")
    potential, samples = pool_of([observable], None)

    def value(c: Tensor) -> Tensor:
        return samples.at(c).average(observable)[0]

    c = potential.c.detach().ravel()
    hessian = torch.autograd.functional.hessian(value, c)
    step = 1e-4
    for k in (0, 2):
        ends = [
            torch.autograd.functional.jacobian(value, c + sign * step * torch.eye(len(c))[k])
            for sign in (1, -1)
        ]
        difference = (ends[0] - ends[1]) / (2 * step)
        atol = 1e-6 * float(hessian.abs().max())
        np.testing.assert_allclose(hessian[k], difference, rtol=1e-5, atol=atol)


def test_values_are_those_of_the_formulas() -> None:
    """Written down once more, from the frames and their weights."""
    kappa, alpha = IsothermalCompressibility(), ThermalExpansion()
    capacity, enthalpy = HeatCapacity(n=2), Enthalpy(n=2)
    record = [*terms_of(kappa), *terms_of(alpha), capacity, enthalpy]
    _, samples = pool_of(record, PRESSURE)
    w = samples.weights().detach().numpy()
    learned = samples.learned.energy(samples.potential.coefficients()).detach().numpy()
    v, h = samples.volume, learned + samples.rest_energy + PRESSURE / BAR * samples.volume

    def covariance(a: Array, b: Array) -> float:
        return float(w @ (a * b) - (w @ a) * (w @ b))

    expected = {
        kappa: covariance(v, v) / (KT * w @ v) / BAR,
        alpha: covariance(v, h) / (KT * TEMPERATURE * w @ v),
        capacity: (1.5 * N * R + 1e3 * covariance(h, h) / (KT * TEMPERATURE)) / 2,
        enthalpy: (w @ h + 1.5 * N * KT) / 2,
    }
    for observable, exact in expected.items():
        assert value_of(observable, samples).item() == pytest.approx(exact, rel=1e-9)


# Heat of vaporization -----------------------------------------------------------------------------


def rigid(n: int, constraints: int = 3) -> Particles:
    """Molecules of three sites, held by so many constraints each."""
    pairs = [(0, 1), (0, 2), (1, 2)][:constraints]
    held = np.array([(3 * k + i, 3 * k + j) for k in range(n) for i, j in pairs], dtype=np.int64)
    none = np.zeros((0, 2), dtype=np.int64)
    masses = np.tile([16.0, 1.0, 1.0], n)
    return Particles(3 * n, np.repeat(np.arange(n), 3), masses, none, held.reshape(-1, 2))


def test_heat_of_vaporization_of_two_state_points() -> None:
    heat = HeatOfVaporization(n=5, correction=-1.0)
    liquid, gas = point(), point(None)
    terms = [o for _, o in heat.terms([liquid, gas])]
    potential, both = FreePair(BASIS, seed=3), []
    random = np.random.default_rng(1)
    for term, energy, pressure in zip(terms, (-200.0, 7.0), (PRESSURE, None), strict=True):
        sums = random.normal(0, 0.5, (50, BASIS.n_coefficients))
        e = random.normal(energy, 3.0, 50)
        one = Particles(3, np.zeros(3, dtype=np.int64), np.ones(3))
        places = ATOMS if pressure else one
        both.append(recorded(potential, [term], e, np.full(50, 8.0), sums, pressure, places))

    def value() -> Tensor:
        return heat.combine(*(s.average(o) for s, o in zip(both, terms, strict=True)))[0]

    energies = []
    for samples in both:
        learned = samples.learned.energy(potential.coefficients()).detach().numpy()
        energies.append(np.mean(learned + samples.rest_energy))
    assert value().item() == pytest.approx(energies[1] - energies[0] / 5 + KT - 1.0, rel=1e-10)
    assert_parameter_gradient(potential, value)
    target = Target([liquid, gas], heat, 44.0 * unit.kilojoule_per_mole, uncertainty=0.5)
    sights = [Sight(p, s.at()) for p, s in zip((liquid, gas), both, strict=True)]
    found = compare([target], sights)
    assert found.prediction[0] == pytest.approx(value().item())
    own = [s.estimate(o).standard_error[0] for s, o in zip(both, terms, strict=True)]
    assert found.own_error()[0] == pytest.approx(np.hypot(*own), rel=0.3)


def test_heat_of_vaporization_of_a_rigid_liquid_alone() -> None:
    heat = HeatOfVaporization(correction=-5.22)
    (term,) = terms_of(heat)
    potential, energy = FreePair(BASIS), np.random.default_rng(1).normal(-400.0, 5.0, 50)
    samples = recorded(potential, [term], energy, np.full(50, 8.0), particles=rigid(10))
    assert value_of(heat, samples).item() == pytest.approx(KT - energy.mean() / 10 - 5.22)


@pytest.mark.parametrize(
    ("particles", "expected"),
    [
        (ATOMS, True),
        (rigid(4), True),
        (rigid(4, 2), False),
        (Particles(2, np.zeros(2, dtype=np.int64), np.ones(2)), False),
        (
            Particles(2, np.zeros(2, dtype=np.int64), np.ones(2), constraints=np.array([[0, 1]])),
            True,
        ),
        (Particles(2, np.zeros(2, dtype=np.int64), np.array([1.0, 0.0])), True),  # a virtual site
    ],
    ids=["atoms", "rigid", "a free angle", "a free bond", "a rod", "virtual site"],
)
def test_which_molecules_are_rigid(particles: Particles, expected: bool) -> None:
    assert particles.are_rigid == expected
    (term,) = terms_of(HeatOfVaporization())
    if expected:
        term.recorder(particles)
    else:
        with pytest.raises(ObservableError, match=r"expected rigid molecules.*\[liquid, gas\]"):
            term.recorder(particles)


def test_frames_of_two_state_points_are_one_estimate() -> None:
    """With the errors of both, which are independent, and all of one point's together."""
    rng, potential = np.random.default_rng(2), FreePair(BASIS)
    heat, kappa = HeatOfVaporization(n=4, n_gas=1), IsothermalCompressibility()
    parts = [*heat.observables, *terms_of(kappa)]
    liquid, gas = (
        recorded(potential, parts, rng.normal(-m, 3, 200), 27 + rng.normal(0, 0.3, 200))
        for m in (160, 0)
    )
    found = diffsim.estimate(heat, [liquid, gas])
    own = [s.estimate(o) for s, o in zip((liquid, gas), heat.observables, strict=True)]
    assert found.value == pytest.approx(own[1].value - own[0].value)
    both = np.hypot(own[0].standard_error, own[1].standard_error)
    np.testing.assert_allclose(found.standard_error, both)
    alone = diffsim.estimate(kappa, liquid)
    np.testing.assert_allclose(alone.value, liquid.estimate(kappa).value)
    np.testing.assert_allclose(
        alone.standard_error, liquid.estimate(kappa).standard_error, rtol=0.05
    )
    for wrong in (None, "liquid", [liquid, None], [liquid, gas, gas]):
        with pytest.raises(ObservableError, match=r"samples: got|got 3 state points"):
            diffsim.estimate(heat, wrong)  # type: ignore[arg-type]


def test_degrees_of_freedom_make_the_kinetic_part() -> None:
    assert list(rigid(3).freedom) == [6, 6, 6] and list(ATOMS.freedom[:2]) == [3, 3]
    capacity = HeatCapacity("volume")
    energy = np.full(20, -4.0)
    samples = recorded(FreePair(BASIS), [capacity], energy, np.full(20, 8.0), None, None, rigid(4))
    assert samples.average(capacity).item() == pytest.approx(3 * R)
    per_gram = diffsim.SpecificHeatCapacity("volume")
    samples = recorded(FreePair(BASIS), [per_gram], energy, np.full(20, 8.0), None, None, rigid(4))
    molar_mass = rigid(4).masses.sum() / 4
    assert samples.average(per_gram).item() == pytest.approx(3 * R / molar_mass)


# What is refused ----------------------------------------------------------------------------------

UNBOUND = Frame(np.zeros((N, 3)), None, float("nan"), 0.0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Target(point(None), Density(), 1.0, uncertainty=0.1), "Density: expected a state"),
        (
            lambda: Target(point(None), IsothermalCompressibility(), 1e-5, uncertainty=1e-6),
            "at constant pressure, got one at constant volume; add a barostat",
        ),
        (
            lambda: Target(point(None), HeatCapacity(), 75.0, uncertainty=1.0),
            r"at constant pressure, got .* constant volume.*HeatCapacity\('volume'\)",
        ),
        (
            lambda: Target(point(), HeatCapacity("volume"), 75.0, uncertainty=1.0),
            r"HeatCapacity\('pressure'\) or remove the barostat",
        ),
        (lambda: HeatCapacity("entropy"), "at: expected 'pressure' or 'volume', got 'entropy'"),
        (lambda: PotentialEnergy(n=0), "n: expected a whole number >= 1, got 0"),
        (lambda: Covariance("x"), "expected an Observable, got 'x'"),  # type: ignore[arg-type]
        (lambda: Covariance(Volume(), kind="bogus"), "kind: expected one of length, area"),
        (lambda: Covariance(Volume(), over="kT"), "over: expected one of"),
        (lambda: Covariance(Volume(), diffsim.RDF(0.5, 3)), "expected one value of b or as many"),
        (lambda: Covariance(diffsim.VACF(3)), "expected values of frames"),
        (
            lambda: HeatOfVaporization().terms([point(), point(None, 320.0)]),
            "at one temperature, got 300 K and 320 K",
        ),
        (lambda: HeatOfVaporization().terms([point()] * 3), "got 3 state points"),
        (
            lambda: (
                Density().recorder(ATOMS).record(Frame(np.zeros((1, 3)), None, np.nan, 0.0), [])
            ),
            "Density: needs a periodic box",
        ),
    ],
)
def test_refusals_say_what_to_do(make: Any, words: str) -> None:
    with pytest.raises(ObservableError, match=words):
        make()


def neon(*forces: Any, box: bool = True) -> diffsim.StatePoint:
    """Eight atoms, four of them bonded by pairs without constraints."""
    system, potential = empty_system(8, 2 * np.eye(3)), FreePair(BASIS)
    bonds = openmm.HarmonicBondForce()
    for i in (0, 2):
        bonds.addBond(i, i + 1, 0.3, 1000)
    for force in (bonds, *forces):
        system.addForce(force)
    potential.attach(system, periodic=box, exclusions=[])
    return diffsim.StatePoint(simulate(system, lattice(8, 2 * np.eye(3))), potential)


def with_charges(*charges: float) -> openmm.NonbondedForce:
    force = openmm.NonbondedForce()
    for charge in charges:
        force.addParticle(charge, 0.3, 0.0)
    force.setNonbondedMethod(force.PME)
    force.setCutoffDistance(0.9)
    return force


@pytest.mark.parametrize(
    ("make", "observable", "words"),
    [
        (neon, DielectricConstant(), r"expected charges of all particles, .*\[8\], got none"),
        (neon, DielectricConstant(charges=[0.1] * 7), r"\[8\], got 7"),
        (lambda: neon(with_charges(*[0.0] * 8)), DielectricConstant(), "got none"),
        (neon, DielectricConstant(charges=[0.0] * 8), "all of them are zero"),
        (lambda: neon(with_charges(*[0.1] * 8)), DielectricConstant(), "ions conduct"),
        (neon, HeatOfVaporization(), "expected rigid molecules, got some that bend"),
        (neon, diffsim.RDF(0.5, 10, atoms=[0, 8]), "0 .. 7, got"),
        (lambda: neon(box=False), Volume(), "Volume: needs a periodic box"),
        (lambda: neon(box=False), diffsim.Pressure(), "Pressure: needs a periodic box"),
        (neon, diffsim.DihedralDistribution(), "make none; give them, quadruples="),
    ],
)
def test_what_cannot_be_recorded_is_refused_before_any_run(
    make: Any, observable: Observable, words: str
) -> None:
    data = [1.0] if observable.rules is None else [[0.1, 0.2, 0.3], [1.0, 1.0, 1.0]]
    with pytest.raises(ObservableError, match=words):
        Target(make(), observable, *data, uncertainty=0.1, as_it_is=True)


@pytest.mark.parametrize(
    "observable",
    [Density(), Enthalpy(), HeatCapacity(), IsothermalCompressibility(), ThermalExpansion()],
    ids=lambda observable: observable.label,
)
def test_frames_of_one_volume_say_nothing_at_a_pressure(observable: Observable) -> None:
    record, potential = terms_of(observable), FreePair(BASIS)
    energy = np.random.default_rng(1).normal(size=100)
    samples = recorded(potential, record, energy, np.full(100, 27.0))
    with pytest.raises(ObservableError, match=r"at 50 bar, got 27 nm\^3 in all 100 frames: they"):
        compared(observable, samples)
    free = recorded(potential, record, energy, 27.0 + 0.1 * energy)
    assert np.isfinite(compared(observable, free).prediction).all()


@pytest.mark.parametrize(
    ("observable", "value"),
    [
        (Density(), 997.0),
        (Density(), -1.0),
        (IsothermalCompressibility(), 4.5e-10),
        (HeatCapacity(), 0.075),
        (HeatOfVaporization(), 44000.0),
        (HeatOfVaporization(), -44.0),
        (DielectricConstant(background=1.8), 1.5),
    ],
)
def test_a_unit_that_was_forgotten_is_noticed(observable: Observable, value: float) -> None:
    with pytest.raises(TargetError, match=rf"{observable.label}: got {value:g}, expected .* to "):
        Target(point(), observable, value, uncertainty=abs(value))
    taken = Target(point(), observable, value, uncertainty=abs(value), as_it_is=True)
    assert taken.values[0] == value


def test_value_and_uncertainty_have_one_unit() -> None:
    kg = unit.kilogram / unit.meter**3
    with pytest.raises(TargetError, match="got 1 without a unit beside a value in kilogram"):
        Target(point(), Density(), 997 * kg, uncertainty=1)
    assert Target(point(), Density(), 997 * kg, uncertainty=1 * kg).uncertainty[0] == 1e-3
    bar = Target(point(), diffsim.Pressure(), 1 * unit.bar, uncertainty=50)
    assert bar.uncertainty[0] == 50


def test_liquid_and_gas_in_the_wrong_order_are_refused() -> None:
    liquid, gas = point(), point(None)
    gas.n_particles = 3
    with pytest.raises(ObservableError, match=r"expected \[liquid, gas\], got a first .* of 3"):
        Target([gas, liquid], HeatOfVaporization(), 44.0, uncertainty=1.0)
    Target([liquid, gas], HeatOfVaporization(), 44.0, uncertainty=1.0)
    with pytest.raises(ObservableError, match="charges: expected finite numbers"):
        DielectricConstant(charges=[np.nan] * N)


PER_VOLUME = diffsim.FunctionOfAverages(torch.div, [Enthalpy(), Volume()], symbol="h / V")


@pytest.mark.parametrize(
    "observable",
    [IsothermalCompressibility(), ThermalExpansion(), PER_VOLUME],
    ids=lambda observable: observable.label,
)
def test_samples_give_what_a_fit_gives_of_a_function_of_averages(observable: Observable) -> None:
    """Value, error and slope, where the noise of <A> and <B> hangs together."""
    potential, samples = pool_of(observable.parts(), PRESSURE)
    estimate, found = samples.estimate(observable), compared(observable, samples)
    np.testing.assert_allclose(estimate.value, found.prediction, rtol=1e-10)
    averages = [samples.average(o) for o in observable.parts()]
    np.testing.assert_allclose(samples.average(observable).detach(), estimate.value, rtol=1e-12)
    assert estimate.standard_error[0] == pytest.approx(found.own_error()[0], rel=0.5)
    slope = samples.at().jacobian(observable)
    (by_torch,) = torch.autograd.grad(observable.combine(*averages).sum(), potential.c)
    scale = np.abs(slope).max()
    np.testing.assert_allclose(slope.ravel(), by_torch.ravel(), atol=1e-9 * scale + 1e-15)


def test_the_error_of_a_function_is_that_of_its_spread_over_runs() -> None:
    """Compressibility of an ideal gas, 60 runs: reduced chi-square 1 +- 4 standard errors."""
    observable, runs = IsothermalCompressibility(), []
    for seed in range(60):
        volume = np.random.default_rng(seed).gamma(N + 1, KT * BAR / PRESSURE, 500)
        samples = recorded(FreePair(BASIS), observable.parts(), np.zeros(500), volume)
        runs.append(samples.estimate(observable))
    off = [(e.value[0] - (N + 1) / N / PRESSURE * N / (N + 1)) / e.standard_error[0] for e in runs]
    assert np.mean(np.square(off)) == pytest.approx(1.0, abs=4 * (2 / 60) ** 0.5)


def test_a_run_records_what_functions_of_averages_need() -> None:
    kappa, density = IsothermalCompressibility(), Density()
    system = empty_system(27, 2 * np.eye(3))
    system.addForce(openmm.MonteCarloBarostat(50.0, 120.0, 2))
    potential = FreePair(BASIS)
    potential.attach(system)
    liquid = diffsim.StatePoint(simulate(system, lattice(27, 2 * np.eye(3))), potential)
    samples = liquid.sample(200, 4, [kappa, density])
    assert set(samples.records) == {*kappa.observables, density}
    assert samples.estimate(kappa).standard_error[0] > 0
    with pytest.raises(ObservableError, match="was not recorded"):
        samples.estimate(ThermalExpansion())
    for record, words in (
        (["density"], "expected an Observable, got 'density', such as"),
        ([Density], r"got the class Density; make one of it, Density\(\.\.\.\)"),
    ):
        with pytest.raises(ObservableError, match=words):
            liquid.sample(20, 10, record)  # type: ignore[arg-type]
        with pytest.raises(ObservableError, match=words):
            Target(liquid, record[0], 1.0, uncertainty=1.0)  # type: ignore[arg-type]


def test_a_covariance_takes_any_observable_of_frames() -> None:
    """Of a g(r) with the volume: both records, and the histogram, are kept apart."""
    observable = Covariance(diffsim.RDF(0.5, 4), Volume())
    recorder = observable.recorder(ATOMS)
    assert len(recorder.histograms) == 1 and observable.n_values == 4
    frames = [Frame(np.zeros((N, 3)), np.eye(3) * e, e**3, 0.0) for e in (2.0, 2.1, 2.3)]
    counts = np.array([[0, 4, 9, 20], [1, 3, 8, 15], [0, 2, 8, 11]])
    records = [recorder.record(f, [c]) for f, c in zip(frames, counts, strict=True)]
    samples = recorded(FreePair(BASIS), [], np.zeros(3), np.array([f.volume for f in frames]))
    samples.records[observable] = np.array(records)  # type: ignore[index]
    rdf = diffsim.RDF(0.5, 4)
    plain = rdf.recorder(ATOMS)
    samples.records[rdf] = np.array(  # type: ignore[index]
        [plain.record(f, [c]) for f, c in zip(frames, counts, strict=True)]
    )
    g, v = samples.at().values(rdf).detach().numpy(), samples.volume
    expected = np.mean((g - g.mean(axis=0)) * (v - v.mean())[:, None], axis=0)
    np.testing.assert_allclose(samples.average(observable).detach(), expected, rtol=1e-10)


# Coverage -----------------------------------------------------------------------------------------


def correlated_gas(seed: int, n: int, phi: float) -> tuple[Array, Array]:
    """Energies of a crystal and volumes of an ideal gas, each a slow series, [n] each.

    Gaussian series become Gamma ones by their quantiles, so the averages are exact.
    """
    random = np.random.default_rng(seed)
    uniform = [norm.cdf(autoregressive(random, n, phi)) for _ in range(2)]
    energy = gamma.ppf(uniform[0], 1.5 * N, scale=KT)
    return energy, gamma.ppf(uniform[1], N + 1, scale=KT * BAR / PRESSURE)


COVERED = {
    "density": (Density(), GAS["density"][1], PRESSURE),
    "compressibility": (IsothermalCompressibility(), 1 / PRESSURE, PRESSURE),
    "thermal expansion": (ThermalExpansion(), 1 / TEMPERATURE, PRESSURE),
    "heat capacity": (HeatCapacity(), R * (3.0 + (N + 1) / N), PRESSURE),
    "heat capacity at constant volume": (HeatCapacity("volume"), 3 * R, None),
    "energy": (PotentialEnergy(), 1.5 * KT, None),
}


@pytest.mark.parametrize("name", COVERED)
@pytest.mark.parametrize("phi", [0.0, 0.8])
def test_two_standard_errors_hold_the_exact_value(name: str, phi: float) -> None:
    """In 95 of 100 repeats; of 200, 90 % is three standard errors off."""
    observable, exact, pressure = COVERED[name]
    inside = []
    for seed in range(200):
        energy, volume = correlated_gas(seed, 1000, phi)
        if pressure is None:
            volume = np.full(len(volume), 8.0)
        record = terms_of(observable, pressure)
        found = compared(
            observable, recorded(FreePair(BASIS), record, energy, volume, None, pressure)
        )
        inside.append(abs(found.prediction[0] - exact) < 2 * found.own_error()[0])
    assert 0.90 <= np.mean(inside) <= 0.99, np.mean(inside)


@pytest.mark.parametrize("observable", [*MADE, HeatOfVaporization(5), DielectricConstant(2.0)])
def test_another_process_can_have_it(observable: Observable) -> None:
    copy = pickle.loads(pickle.dumps(observable))
    assert copy.identity() == observable.identity() and copy.name == observable.name
    if len(terms_of(observable)) == 2:
        averages = torch.tensor([[3.0], [2.0]], dtype=torch.float64)
        assert copy.combine(*averages) == observable.combine(*averages)


# Dielectric constant ------------------------------------------------------------------------------

RODS = Particles(
    2 * N,
    np.repeat(np.arange(N), 2),
    np.ones(2 * N),
    charges=Charges(np.tile([0.4, -0.4], N), np.zeros((2 * N, 0))),
)
LENGTH, SIDE = 0.2, 3.0  # nm


def of_rods(seed: int, n: int, particles: Particles = RODS, **options: Any) -> Comparison:
    """N dipoles that turn freely and do not act on each other, in n frames."""
    random = np.random.default_rng(seed)
    observable = DielectricConstant(**options)
    dipoles, volume = terms_of(observable, None)
    samples = recorded(FreePair(BASIS), [volume], np.zeros(n), np.full(n, SIDE**3), pressure=None)
    recorder = dipoles.recorder(particles)
    records = []
    for _ in range(n):
        turned = random.normal(size=(N, 3))
        turned *= LENGTH / np.linalg.norm(turned, axis=1, keepdims=True)
        ends = random.uniform(0, SIDE, (N, 1, 3)) + np.stack([0.5 * turned, -0.5 * turned], axis=1)
        records.append(
            recorder.record(Frame(ends.reshape(-1, 3), np.eye(3) * SIDE, SIDE**3, 0.0), [])
        )
    samples.records[dipoles] = np.array(records)  # type: ignore[index]
    return compared(observable, samples)


def test_point_dipoles_without_interaction() -> None:
    """epsilon - 1 = 3 y, what Clausius and Mossotti have, and Kirkwood, without a local field."""
    moment = 0.4 * LENGTH * 1.602176634e-19 * 1e-9  # C m
    density = N / SIDE**3 * 1e27  # 1/m^3
    y = density * moment**2 / (9 * 8.8541878128e-12 * 1.380649e-23 * TEMPERATURE)
    inside = []
    for seed in range(40):
        found = of_rods(seed, 300)
        off = (found.prediction[0] - 1 - 3 * y) / found.own_error()[0]
        inside.append(abs(off) < 2)
    assert found.own_error()[0] < 0.15 * 3 * y
    assert np.mean(inside) >= 0.85  # 95 % of 40 are expected, 85 % is three standard errors off


def test_charges_may_be_given_and_a_background_is_added() -> None:
    own = of_rods(1, 50).prediction[0]
    bare = Particles(2 * N, RODS.molecule_of, RODS.masses)
    charges = 2 * RODS.charges.fixed * unit.elementary_charge  # type: ignore[union-attr]
    found = of_rods(1, 50, bare, charges=charges, background=2.0).prediction[0]
    assert found == pytest.approx(2 + 4 * (own - 1))


@pytest.mark.parametrize(
    ("charges", "words"),
    [
        (None, "expected charges of all particles"),
        (Charges(np.ones(3), np.zeros((3, 0))), "got 3"),
        (
            Charges(np.tile([0.4, -0.3], N), np.zeros((2 * N, 0))),
            "without a charge, got one of 0.1 e",
        ),
        (Charges(np.zeros(2 * N), np.ones((2 * N, 1))), "learned with neutral=True"),
    ],
)
def test_a_dielectric_constant_needs_neutral_molecules(charges: Any, words: str) -> None:
    particles = Particles(2 * N, RODS.molecule_of, RODS.masses, charges=charges)
    with pytest.raises(ObservableError, match=words):
        terms_of(DielectricConstant(), None)[0].recorder(particles)


def polar(others: bool) -> tuple[app.Simulation, diffsim.SystemParameters]:
    """Molecules of three charges of which two are learned, and perhaps a third one that stays."""
    n = 16
    box = np.eye(3) * 1.8
    system = empty_system(3 * n, box, MASS)
    force = openmm.NonbondedForce()
    force.setNonbondedMethod(force.PME)
    force.setCutoffDistance(0.8)
    springs = openmm.HarmonicBondForce()
    springs.setUsesPeriodicBoundaryConditions(True)
    for m in range(n):
        for q in (-0.7, 0.3, 0.4) if others else (-0.8, 0.4, 0.4):
            force.addParticle(q, 0.25, 0.4)
        for k in (1, 2):
            springs.addBond(3 * m, 3 * m + k, 0.12, 5e4)
    force.createExceptionsFromBonds(
        [(3 * m, 3 * m + k) for m in range(n) for k in (1, 2)], 1.0, 1.0
    )
    system.addForce(force)
    system.addForce(springs)
    potential = diffsim.SystemParameters(system)
    names = {"O": np.arange(0, 3 * n, 3), "H": np.arange(1, 3 * n, 3)}
    if not others:
        names["H"] = np.flatnonzero(np.arange(3 * n) % 3)
    potential.charges(names)
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 5.0, 0.001)
    integrator.setRandomNumberSeed(2)
    platform = openmm.Platform.getPlatform("Reference")
    simulation = app.Simulation(topology(3 * n, "OHH"), system, integrator, platform)
    centres = lattice(n, box)
    sites = np.array([[0, 0, 0], [0.12, 0, 0], [0, 0.12, 0]])
    x = (centres[:, None] + sites).reshape(-1, 3)
    x[0] += box[0]  # one molecule is cut
    simulation.context.setPositions(x)
    simulation.context.setVelocitiesToTemperature(TEMPERATURE, 3)
    return simulation, potential


class Filming:
    """A reporter that keeps positions as they are."""

    def __init__(self, interval: int, film: list[Array]) -> None:
        self.interval, self.film = interval, film

    def describeNextReport(self, simulation: Any) -> dict[str, Any]:
        steps = self.interval - simulation.currentStep % self.interval
        return {"steps": steps, "periodic": False, "include": ["positions"]}

    def report(self, simulation: Any, state: openmm.State) -> None:
        self.film.append(np.array(state.getPositions(asNumpy=True)._value))


@pytest.mark.parametrize("others", [False, True], ids=["all learned", "one stays"])
def test_the_dielectric_constant_follows_the_learned_charges(others: bool) -> None:
    """Its value at any charges by hand, and its gradient by differences, on the same frames."""
    simulation, potential = polar(others)
    observable = DielectricConstant()
    liquid = diffsim.StatePoint(simulation, potential)
    record = [o for _, o in observable.terms([liquid])]
    film: list[Array] = []
    simulation.reporters.append(Filming(5, film))
    samples = liquid.sample(150, 5, record)

    def value() -> Tensor:
        return observable.combine(*map(samples.average, record))[0]

    assert_parameter_gradient(potential, value)
    parameters = list(potential.parameters())
    parameters[0].data.mul_(0.97)
    force = simulation.system.getForce(0)
    liquid.apply()
    q = np.array([force.getParticleParameters(i)[0]._value for i in range(len(film[0]))])
    w = samples.weights().detach().numpy()
    x = np.array(film)
    reference = np.repeat(x[:, ::3], 3, axis=1)
    x = x - 1.8 * np.round((x - reference) / 1.8)
    m = np.einsum("i,fik->fk", q, x)
    variance = w @ (m**2).sum(axis=1) - ((w @ m) ** 2).sum()
    expected = 1 + 4 * np.pi * 138.93545764 * variance / (3 * KT * 1.8**3)
    assert value().item() == pytest.approx(expected, rel=1e-9)
