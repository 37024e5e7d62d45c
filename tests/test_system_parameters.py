"""Parameters of forces that are in a System already: features, values in OpenMM, averages."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pytest
import torch
from numpy.typing import NDArray
from openmm import unit
from systems import (
    BOXES,
    EPSILON,
    SIGMA,
    assert_parameter_gradient,
    context_of,
    empty_system,
    energy_and_forces,
    lattice,
    numerical_derivative,
    simulate,
)

import openmm_diffsim as diffsim
from openmm_diffsim.engine.adapters import attached, bonds_of
from openmm_diffsim.engine.recorder import (
    FrameRecorder,
    RestForces,
    configuration,
    describe_particles,
)
from openmm_diffsim.errors import AttachError, PotentialError, SamplingError
from openmm_diffsim.potentials import flat_parameters, set_flat_parameters
from openmm_diffsim.statistics.molecules import minimum_image, molecule_centres
from openmm_diffsim.statistics.scaling import scaled

Array = NDArray[np.float64]
Force = openmm.NonbondedForce

BOX = np.diag([2.3, 2.4, 2.6])
SITES = ((-0.6, 0.32, 0.7), (0.25, 0.24, 0.2), (0.25, 0.28, 0.0), (0.1, 0.3, 0.4))  # q, sigma, eps


METHODS = [Force.NoCutoff, Force.CutoffNonPeriodic, Force.CutoffPeriodic, Force.Ewald, Force.PME]


def molecules(n: int = 8, method: int = Force.PME, **settings: Any) -> tuple[Any, Array]:
    """Chains of four sites, with 1-2 and 1-3 exclusions and scaled 1-4 pairs."""
    system = empty_system(4 * n, BOX)
    force = Force()
    force.setNonbondedMethod(method)
    force.setCutoffDistance(0.9)
    for _ in range(n):
        for site in SITES:
            force.addParticle(*site)
    bonds = [(4 * m + k, 4 * m + k + 1) for m in range(n) for k in range(3)]
    springs = openmm.HarmonicBondForce()
    for i, j in bonds:
        springs.addBond(i, j, 0.15, 1000.0)
    force.createExceptionsFromBonds(bonds, 0.83, 0.5)
    for name, value in settings.items():
        getattr(force, name)(value)
    system.addForce(springs)
    system.addForce(force)
    rng = np.random.default_rng(3)
    centres = lattice(n, BOX, 0.05)
    steps = np.cumsum(rng.normal(size=(n, 4, 3)) * 0.09, axis=1)
    return system, (centres[:, None] + steps).reshape(-1, 3)


def features_of(potential: Any, context: openmm.Context) -> Array:
    recorder = attached(potential, context.getSystem()).recorder(
        context, describe_particles(context, bonds_of(context.getSystem())), None
    )
    state = context.getState(getPositions=True)
    box = np.array(state.getPeriodicBoxVectors(asNumpy=True)._value)
    return recorder.features(np.array(state.getPositions(asNumpy=True)._value), box)[0]


def check_features(potential: Any, system: Any, x: Array, tries: int = 100) -> None:
    """c . S + a constant is the energy at random parameters."""
    context = context_of(system, x, "Reference")
    adapter = attached(potential, system)
    found = features_of(potential, context)
    start, rng = flat_parameters(potential), np.random.default_rng(1)
    rest = []
    for _ in range(tries):
        change = torch.from_numpy(rng.normal(size=len(start)) * 0.2)
        set_flat_parameters(potential, start + change)
        adapter.update(context, None)
        learned = float(potential.coefficients().detach().numpy() @ found)
        energy = energy_and_forces(context)[0]
        rest.append((energy - learned, learned))
    left, learned = np.array(rest).T
    assert np.ptp(learned) > 10, "the energy does not depend on the parameters"
    size = np.median(np.abs(left) + np.abs(learned))
    assert np.abs(left - np.median(left)).max() < 1e-9 * size


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("switch", [False, True])
@pytest.mark.parametrize("dispersion", [False, True])
def test_features_of_lennard_jones_are_its_energy(
    method: int, switch: bool, dispersion: bool
) -> None:
    system, x = molecules(
        method=method,
        setUseSwitchingFunction=switch,
        setSwitchingDistance=0.7,
        setUseDispersionCorrection=dispersion,
    )
    potential = diffsim.SystemParameters(system)
    potential.lennard_jones({"A": np.arange(0, 32, 4), "B": np.arange(1, 32, 4)})
    check_features(potential, system, x)


@pytest.mark.parametrize("types", ["A", "AB", "ABD"])
def test_features_with_a_mesh_for_dispersion_are_the_energy(types: str) -> None:
    """LJPME: Lorentz-Berthelot within the cutoff, geometric beyond."""
    system, x = molecules(method=Force.LJPME)
    check_features(learn_both(system, types), system, x)
    system.getForce(1).setUseSwitchingFunction(True)
    with pytest.raises(AttachError, match="LJPME without a switching function"):
        learn_both(system, types)


def fluid(n: int = 64, side: float = 1.7, cutoff: float = 0.8) -> Any:
    """A Simulation of argon with a NonbondedForce that is not this package's, and its potential."""
    system = empty_system(n, np.eye(3) * side)
    force = Force()
    force.setNonbondedMethod(force.CutoffPeriodic)
    force.setCutoffDistance(cutoff)
    for _ in range(n):
        force.addParticle(0.0, SIGMA, EPSILON)
    system.addForce(force)
    potential = diffsim.SystemParameters(system)
    potential.lennard_jones()
    return simulate(system, lattice(n, np.eye(3) * side, 0.02)), potential


def test_samples_know_the_energy_at_any_parameters() -> None:
    simulation, potential = fluid()
    point = diffsim.StatePoint(simulation, potential)
    pressure = diffsim.Pressure()
    samples = point.sample(100, 20, [pressure])
    assert samples.features.shape == (5, 2)
    assert np.abs(samples.rest_energy).max() < 1e-9 * np.abs(samples.run_energies()).max()
    assert np.abs(samples.records[pressure][:, 1]).max() == 0  # all of the virial is learned
    set_flat_parameters(potential, flat_parameters(potential) + 0.01)
    assert "terms.lennard_jones.sigma.theta" in dict(potential.named_parameters())
    point.apply()
    sigma = simulation.system.getForce(0).getParticleParameters(3)[1]
    assert sigma._value == pytest.approx(SIGMA * np.exp(0.01))
    now = energy_and_forces(simulation.context)[0]
    assert samples.at().learned_energy[-1].item() == pytest.approx(now)


TYPES = {name: np.arange(k, 32, 4) for k, name in enumerate("ABCD")}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("types", ["ABCD", "AB", "BD"])
@pytest.mark.parametrize("neutral", [False, True])
def test_features_of_charges_are_the_energy(method: int, types: str, neutral: bool) -> None:
    system, x = molecules(method=method)
    potential = diffsim.SystemParameters(system)
    term = potential.charges({name: TYPES[name] for name in types}, neutral=neutral)
    assert len(term.free) == len(types) - neutral
    assert term.is_quadratic == (types == "ABCD")
    check_features(potential, system, x)


# Options of the force ----------------------------------------------------------------------------


def learn_both(system: Any, types: str = "AB") -> Any:
    potential = diffsim.SystemParameters(system)
    chosen = {name: TYPES[name] for name in types}
    potential.lennard_jones(chosen)
    potential.charges(chosen, neutral=False)
    return potential


@pytest.mark.parametrize("where", [0, 1, 2])
def test_offsets_of_the_force_are_kept(where: int) -> None:
    """Of the charge, sigma or epsilon of learned and of other particles, and of exceptions."""
    system, x = molecules(method=Force.CutoffPeriodic)
    force = system.getForce(1)
    force.addGlobalParameter("lambda", 0.7)
    shift = np.eye(3)[where] * 0.05
    for i in (0, 1, 2, 7, 8):
        force.addParticleParameterOffset("lambda", i, *shift)
    ones = [k for k in range(force.getNumExceptions()) if force.getExceptionParameters(k)[4]._value]
    force.addExceptionParameterOffset("lambda", ones[0], *shift)
    if where == 0:
        potential = learn_both(system)
    else:
        with pytest.warns(RuntimeWarning, match=r"1 of 8 exceptions .* stay as they are"):
            potential = learn_both(system)
    check_features(potential, system, x, 30)
    context = context_of(system, x, "Reference")
    context.setParameter("lambda", 0.6)
    if where:
        with pytest.raises(AttachError, match=r"'lambda'.* is 0.6 in the Context, expected .* 0.7"):
            features_of(potential, context)
    else:
        total = energy_and_forces(context)[0]
        set_flat_parameters(potential, 1.1 * flat_parameters(potential))
        before = potential.coefficients().detach().numpy() @ features_of(potential, context)
        assert np.isfinite(total - before)


def test_exceptions_that_do_not_follow_stay() -> None:
    system, x = molecules()
    force = system.getForce(1)
    ones = [k for k in range(force.getNumExceptions()) if force.getExceptionParameters(k)[4]._value]
    i, j, charge, sigma, epsilon = force.getExceptionParameters(ones[0])
    force.setExceptionParameters(ones[0], i, j, charge, 1.1 * sigma, epsilon)
    with pytest.warns(RuntimeWarning, match="1 of 8 exceptions"):
        potential = learn_both(system)
    check_features(potential, system, x, 30)
    assert force.getExceptionParameters(ones[0])[3:] == [1.1 * sigma, epsilon]
    assert force.getExceptionParameters(ones[1])[4] != epsilon


@pytest.mark.parametrize("shape", ["skewed", "dodecahedron"])
def test_features_in_a_triclinic_box_with_periodic_exceptions(shape: str) -> None:
    system, x = molecules(setExceptionsUsePeriodicBoundaryConditions=True)
    box = 1.2 * BOXES[shape]
    system.setDefaultPeriodicBoxVectors(*box)
    moved = x + np.arange(4 * 8)[:, None] % 4 // 2 * box[2]  # half of each molecule
    check_features(learn_both(system), system, moved, 20)


def test_features_of_many_charges_are_the_energy() -> None:
    system, x = molecules()
    potential = diffsim.SystemParameters(system)
    potential.charges({str(k): [k] for k in range(14)}, neutral=False)
    check_features(potential, system, x, 10)


def widest_gap(x: Array, box: Array, low: float, high: float) -> float:
    """A cutoff that no pair is near, so that scaling takes none across."""
    d = minimum_image(x[:, None] - x, box)[np.triu_indices(len(x), 1)]
    r = np.linalg.norm(d, axis=1)
    r = np.sort(r[(r > low) & (r < high)])
    k = int(np.argmax(np.diff(r)))
    assert r[k + 1] - r[k] > 3.5e-3
    return float(r[k : k + 2].mean())


@pytest.mark.parametrize("shape", ["rectangular", "skewed"])
@pytest.mark.parametrize("method", [Force.CutoffPeriodic, Force.PME, Force.LJPME])
def test_virials_are_slopes_of_the_features(method: int, shape: str) -> None:
    """-d/d ln L of each, with molecules moving whole."""
    system, x = molecules(8, method, setUseSwitchingFunction=method != Force.LJPME)
    box = BOX if shape == "rectangular" else 1.2 * BOXES[shape]
    system.setDefaultPeriodicBoxVectors(*box)
    cutoff = widest_gap(x, box, 0.6, 0.95)
    system.getForce(1).setCutoffDistance(cutoff)
    system.getForce(1).setSwitchingDistance(cutoff - 0.1)
    potential = learn_both(system)
    context = context_of(system, x, "Reference")
    particles = describe_particles(context, bonds_of(system))
    recorder = attached(potential, system).recorder(context, particles, None)
    _, virials = recorder.features(x, box)
    recorder.want_virial(False)
    centres = molecule_centres(x, particles.molecule_of)[particles.molecule_of]

    def scaled_features(h: float) -> Array:
        found: Array = recorder.features(*scaled(x, centres, box, 1 + h))[0]
        return found

    h = 1e-5
    expected = -(scaled_features(h) - scaled_features(-h)) / (2 * h)
    assert np.count_nonzero(expected) >= 10
    np.testing.assert_allclose(virials, expected, rtol=2e-7, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize("which", ["lennard_jones", "charges"])
def test_pairs_that_cross_the_cutoff_count_to_the_virial(which: str) -> None:
    """Two particles just within a cutoff at which the energy jumps."""
    system = empty_system(2, np.eye(3) * 3)
    force = Force()
    force.setNonbondedMethod(force.PME)
    force.setCutoffDistance(0.9)
    force.setPMEParameters(1.0, 24, 24, 24)
    for q in (1.0, -1.0):
        force.addParticle(q, 0.3, 1.0)
    system.addForce(force)
    x = np.array([[0, 0, 0], [0.8996, 0, 0]])
    potential = diffsim.SystemParameters(system)
    options = {"neutral": False} if which == "charges" else {}
    getattr(potential, which)({"A": [0], "B": [1]}, **options)
    context = context_of(system, x, "Reference")
    particles = describe_particles(context, bonds_of(system))
    found = (
        attached(potential, system).recorder(context, particles, None).features(x, np.eye(3) * 3)
    )
    c = potential.coefficients().detach().numpy()
    if which == "charges":
        force.setUseDispersionCorrection(False)
        for i in range(2):
            force.setParticleParameters(i, (1.0, -1.0)[i], 0.3, 0.0)
    else:
        for i in range(2):
            force.setParticleParameters(i, 0.0, 0.3, 1.0)
    context.reinitialize(preserveState=True)
    whole = RestForces([], context).virial(x, np.eye(3) * 3)
    assert abs(whole) > 2 * abs(c @ found[0])  # the jump is most of it
    assert c @ found[1] == pytest.approx(whole, rel=1e-4)


def test_nothing_is_left_of_forces_that_are_learned_as_a_whole() -> None:
    system, x = molecules()
    system.getForce(1).setNonbondedMethod(Force.PME)
    system.removeForce(0)
    potential = diffsim.SystemParameters(system)
    potential.lennard_jones()
    potential.charges(TYPES, neutral=False)
    context = context_of(system, x, "Reference")
    recorder = FrameRecorder(potential, context, [diffsim.Pressure()])
    assert not recorder.others.contribute
    recorder.add(x, BOX)
    c = potential.coefficients().detach()
    energy = energy_and_forces(context)[0]
    samples = recorder.samples(c.numpy(), 300.0, None, 1)
    assert samples.learned.energy(c).item() == pytest.approx(energy, rel=1e-9)
    assert samples.rest_energy[0] == 0


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
def test_virials_add_up(platform: str) -> None:
    """That of the learned part and of the rest to what the whole energy says; also in a sum."""
    system, x = molecules(n=27, setUseSwitchingFunction=True, setSwitchingDistance=0.7)
    water = learn_both(system)
    pressure = diffsim.Pressure()
    spline = diffsim.SplinePair(0.3, 0.8, 6, name="spline")
    set_flat_parameters(spline, torch.linspace(2.0, 0.1, len(flat_parameters(spline))))
    potential = water + spline
    potential.attach(system)
    simulation = simulate(system, x, platform=platform)
    context = simulation.context
    found = []
    for change in (0.0, 0.05):
        set_flat_parameters(water, flat_parameters(water) + change)
        diffsim.StatePoint(simulation, potential).apply()
        recorder = FrameRecorder(potential, context, [pressure])
        recorder.add(
            *configuration(context.getState(getPositions=True)), energy_and_forces(context)[0]
        )
        c = potential.coefficients().detach().numpy()
        samples = recorder.samples(c, 300.0, None, 1)
        whole = RestForces([], context).virial(*configuration(context.getState(getPositions=True)))
        rest = samples.records[pressure][0, 1]
        assert samples.learned.virial(torch.from_numpy(c)).item() + rest == pytest.approx(
            whole, rel=1e-4
        )
        found.append(rest)
    assert found[0] == found[1]  # nothing of it is learned


# Whole runs --------------------------------------------------------------------------------------


ARM, ANGLE = 0.09572, np.deg2rad(104.52)
ONE = ARM * np.array(
    [
        [0, 0, 0],
        [np.sin(ANGLE / 2), np.cos(ANGLE / 2), 0],
        [-np.sin(ANGLE / 2), np.cos(ANGLE / 2), 0],
    ]
)


def water_system(n: int, side: float | None) -> Any:
    """Rigid water of TIP3P's parameters, in a periodic box with PME, or by itself."""
    system = empty_system(0, np.eye(3) * (side or 2.0))
    force = Force()
    if side is not None:
        force.setNonbondedMethod(force.PME)
        force.setCutoffDistance(0.45)
    sites = ((15.999, -0.834, 0.315, 0.636), (1.008, 0.417, 1.0, 0.0), (1.008, 0.417, 1.0, 0.0))
    for m in range(n):
        o, *hydrogens = (3 * m, 3 * m + 1, 3 * m + 2)
        for mass, *site in sites:
            system.addParticle(mass)
            force.addParticle(*site)
        for h in hydrogens:
            system.addConstraint(o, h, ARM)
            force.addException(o, h, 0.0, 1.0, 0.0)
        system.addConstraint(*hydrogens, 2 * ARM * np.sin(ANGLE / 2))
        force.addException(*hydrogens, 0.0, 1.0, 0.0)
    system.addForce(force)
    return system


def learn_water(system: Any) -> Any:
    atoms = np.arange(system.getNumParticles()).reshape(-1, 3)
    water = diffsim.SystemParameters(system)
    water.lennard_jones(atoms=atoms[:, 0])
    water.charges({"O": atoms[:, 0], "H": atoms[:, 1:]}, neutral=True)
    return water


def bulk(n: int = 27, side: float = 0.95, barostat: bool = False) -> tuple[Any, Any]:
    """A Simulation of water, and what is learned of it."""
    system = water_system(n, side)
    if barostat:
        system.addForce(openmm.MonteCarloBarostat(1.0, 300.0, 10))
    potential = learn_water(system)
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.002)
    integrator.setRandomNumberSeed(1)
    centres = lattice(n, np.eye(3) * side)
    turns = np.linalg.qr(np.random.default_rng(1).normal(size=(n, 3, 3)))[0]
    x = (centres[:, None] + ONE @ turns).reshape(-1, 3)
    simulation = simulate(system, x, integrator)
    simulation.minimizeEnergy(maxIterations=50)
    simulation.context.setVelocitiesToTemperature(300.0, 1)
    return simulation, potential


def test_water_and_its_vapour_share_parameters() -> None:
    simulation, water = bulk(barostat=True)
    liquid = diffsim.StatePoint(simulation, water)
    assert water.numbers()["charges.q[O]"][0] == pytest.approx(-0.834)
    assert list(water.by_name()) == [
        "lennard_jones.sigma",
        "lennard_jones.epsilon",
        "charges.free",
    ]
    np.testing.assert_allclose(water.parameter_prior()[1], [0.03, 0.3, 0.1])
    vapour = water_system(1, None)
    alone = simulate(vapour, ONE, openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.002))
    with pytest.raises(AttachError, match=r"none that it was made for .* call attach\(system\)"):
        diffsim.StatePoint(alone, water)
    water.attach(vapour)
    gas = diffsim.StatePoint(alone, water)
    samples, single = liquid.sample(40, 10), gas.sample(40, 10)
    assert np.ptp(samples.volume) > 0
    assert samples.features.shape == single.features.shape == (4, 3)
    assert np.abs(samples.rest_energy).max() < 1e-6 * np.abs(samples.run_energies()).max()
    # One molecule: nothing acts within it.
    assert np.abs(single.features).max() < 1e-9
    set_flat_parameters(water, flat_parameters(water) + 0.02)
    for point in (liquid, gas):
        point.apply()
    o, h, _ = (vapour.getForce(0).getParticleParameters(i)[0]._value for i in range(3))
    assert h == pytest.approx(0.437)
    assert o == pytest.approx(-2 * h)
    now = energy_and_forces(simulation.context)[0]
    assert samples.at().learned_energy[-1].item() == pytest.approx(now, rel=1e-9)
    refined = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(simulation.system))
    assert refined.getForce(0).getParticleParameters(1)[0]._value == pytest.approx(0.437)


def test_a_system_that_cannot_be_matched_is_refused() -> None:
    system = water_system(2, 1.0)
    water = diffsim.SystemParameters(system)
    water.lennard_jones(atoms=[0])  # the second oxygen stays as it is
    with pytest.raises(AttachError, match="cannot be told"):
        water.attach(water_system(1, None))
    water = learn_water(system)
    other = water_system(1, None)
    other.getForce(0).setParticleParameters(0, -0.9, 0.315, 0.636)
    with pytest.raises(AttachError, match="no particle of this System"):
        diffsim.SystemParameters.attach(water, other)


def test_a_system_that_is_bonded_otherwise_is_another_one() -> None:
    """With the same particles: an isomer is not taken for the first System."""
    system, x = molecules()
    isomer, _ = molecules()
    isomer.getForce(0).setBondParameters(2, 0, 3, 0.15, 1000.0)
    potential = diffsim.SystemParameters(system)
    potential.bonds()
    with pytest.raises(AttachError, match="call attach"):
        diffsim.StatePoint(simulate(isomer, x), potential)
    potential.attach(isomer)
    check_features(potential, isomer, x, tries=5)


def test_other_parameters_are_not_replaced_silently() -> None:
    system, x = molecules()
    other, _ = molecules()
    potential = diffsim.SystemParameters(system)
    potential.bonds()
    other.getForce(0).setBondParameters(0, 0, 1, 0.2, 900.0)
    with pytest.raises(AttachError, match="holds other parameters"):
        potential.attach(other)
    system.getForce(0).setBondParameters(0, 0, 1, 0.2, 900.0)
    with pytest.warns(RuntimeWarning, match="are replaced"):
        diffsim.StatePoint(simulate(system, x), potential)


def test_identity_leaves_out_what_is_learned() -> None:
    simulation, water = bulk()
    point = diffsim.StatePoint(simulation, water)
    identity, form = point.identity(), water.form()
    set_flat_parameters(water, flat_parameters(water) + 0.02)
    point.apply()
    assert point.identity() == identity
    again = learn_water(simulation.system)  # from the refined System
    assert again.form() == form
    assert diffsim.StatePoint(simulation, again).identity() == identity
    simulation.system.getForce(0).setParticleParameters(1, 0.437, 1.0, 0.1)
    assert point.identity() != identity


def test_identity_leaves_out_what_two_potentials_learn_of_one_force() -> None:
    system, x = molecules()
    first, second = (diffsim.SystemParameters(system, name=name) for name in ("one", "two"))
    first.lennard_jones()
    second.charges(TYPES, neutral=False)
    point = diffsim.StatePoint(simulate(system, x), first + second)
    identity = point.identity()
    for potential in (first, second):
        set_flat_parameters(potential, flat_parameters(potential) + 0.02)
        point.apply()
        assert point.identity() == identity


def test_samples_go_through_files_and_other_processes(tmp_path: Path) -> None:
    simulation, water = bulk()
    point, pressure = diffsim.StatePoint(simulation, water), diffsim.Pressure()
    job = diffsim.SamplingJob.of(point, diffsim.Recording(20, 10, (pressure,)))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        result = pool.submit(job.run).result()
    here = point.sample(20, 10, [pressure])
    for name, array in here.arrays([pressure], Path()).items():
        np.testing.assert_array_equal(result.arrays[name], array)
    here.save(tmp_path / "water.npz")
    again = diffsim.Samples.load(tmp_path / "water.npz", water, [pressure])
    np.testing.assert_array_equal(again.features, here.features)


def test_gradients_are_differences() -> None:
    simulation, water = bulk()
    pressure = diffsim.Pressure()
    samples = diffsim.StatePoint(simulation, water).sample(200, 10, [pressure])
    assert_parameter_gradient(water, lambda: samples.average(pressure).sum(), step=2e-5)
    theta = flat_parameters(water)

    def energy(t: torch.Tensor) -> torch.Tensor:
        return samples.learned.energy(water.coefficients_at(t)).sum()

    hessian = torch.autograd.functional.hessian(energy, theta).numpy()

    def slope(t: Array) -> Array:
        leaf = torch.from_numpy(t).requires_grad_(True)
        return torch.autograd.grad(energy(leaf), leaf)[0].numpy()

    expected = numerical_derivative(slope, theta.numpy(), 1e-4)
    np.testing.assert_allclose(hessian, expected, rtol=1e-6, atol=1e-9 * np.abs(expected).max())


def test_lennard_jones_of_a_fluid_is_found_from_its_g() -> None:
    rdf = diffsim.RDF(0.8, 40)
    simulation, truth = fluid()
    point = diffsim.StatePoint(simulation, truth)
    point.sample(1000, 100)
    g = point.sample(20_000, 20, [rdf]).estimate(rdf)
    wrong = flat_parameters(truth) + torch.tensor([0.03, -0.2])
    exact = flat_parameters(truth)
    set_flat_parameters(truth, wrong)
    target = diffsim.Target(
        point, rdf, rdf.r, g.value, uncertainty=np.maximum(g.standard_error, 0.01)
    )
    fit = diffsim.Refinement(truth, [target])
    fit.run(rounds=4, steps=6000, every=20, progress=False)
    table = fit.parameter_table()
    error = np.maximum(table.standard_error, 1e-4)
    numbers = truth.numbers(table)
    assert list(numbers) == ["lennard_jones.sigma", "lennard_jones.epsilon"]
    assert numbers["lennard_jones.sigma"][0] == pytest.approx(SIGMA, rel=0.01)
    assert numbers["lennard_jones.epsilon"][1] == pytest.approx(
        table.standard_error[1] * numbers["lennard_jones.epsilon"][0]
    )
    deviation = (table.values - exact.numpy()) / error
    assert np.abs(deviation).max() < 4, f"{deviation} standard errors of {table.standard_error}"
    assert np.abs(table.values - exact.numpy()).max() < 0.1


# What is refused ---------------------------------------------------------------------------------


def test_slips_are_told() -> None:
    system, _ = molecules()
    potential = diffsim.SystemParameters(system)
    with pytest.raises(AttachError, match="nothing is learned yet"):
        attached(potential, system)
    with pytest.raises(PotentialError, match="expected one value of all its atoms"):
        potential.lennard_jones({"all": np.arange(8)})
    with pytest.raises(PotentialError, match=r"of the types \['A', 'B'\]"):
        potential.lennard_jones({"A": [0, 4], "B": [4]})
    with pytest.raises(PotentialError, match=r"atoms: got 0 .. 40, expected indices 0 .. 31"):
        potential.lennard_jones([0, 40])
    with pytest.raises(PotentialError, match=r"bounds: .*some of \('sigma', 'epsilon'\)"):
        potential.lennard_jones([0], bounds={"charge": (0, 1)})
    with pytest.raises(PotentialError, match=r"is 0.32 at the start, expected more than 0.4"):
        potential.lennard_jones({"A": TYPES["A"]}, bounds={"sigma": (0.4, 0.5)})
    with pytest.raises(PotentialError, match="none can change"):
        potential.charges({"A": TYPES["A"]}, neutral=True)
    many, _ = molecules(16)
    with pytest.raises(PotentialError, match="61 can change independently"):
        diffsim.SystemParameters(many).charges({str(k): [k] for k in range(61)}, neutral=False)
    with pytest.raises(AttachError, match=r"that is 'other', found 0 among {1: 'NonbondedForce'}"):
        potential.charges(force="other")
    potential.charges(TYPES)
    with pytest.raises(PotentialError, match="name all of them in one call"):
        potential.charges({"A": TYPES["A"]}, neutral=False, name="more")
    with pytest.raises(AttachError, match="its forces are in the System already"):
        potential.attach(system, backend="table")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda p: p.bonds(), lambda p: p.bonds()),
        (lambda p: p.charges({"a": [0], "b": [1]}), lambda p: p.charges({"c": [2], "d": [3]})),
        (lambda p: p.lennard_jones({"a": [0]}), lambda p: p.lennard_jones({"d": [3]})),
    ],
)
def test_what_has_to_do_with_each_other_is_not_shared_out_in_a_sum(one: Any, other: Any) -> None:
    system, x = molecules()
    first, second = (diffsim.SystemParameters(system, name=name) for name in ("one", "two"))
    one(first)
    other(second)
    with pytest.raises(PotentialError, match=r"learns (such )?parameters"):
        diffsim.StatePoint(simulate(system, x), first + second)
    with pytest.raises(PotentialError, match=r"learns (such )?parameters"):
        (first + second).attach(molecules()[0])


def test_nothing_to_learn_or_no_system_is_told() -> None:
    with pytest.raises(PotentialError, match=r"expected an openmm.System, got 'water'"):
        diffsim.SystemParameters("water")  # type: ignore[arg-type]
    with pytest.raises(PotentialError, match="learn: expected"):
        diffsim.SystemParameters(molecules()[0]).lennard_jones([0], learn=())


def solvent(charges: Any = None, kind: str = "") -> Any:
    """An implicit one of the ``molecules``, with their charges."""
    force = openmm.CustomNonbondedForce(kind) if kind else openmm.GBSAOBCForce()
    if kind:
        force.addPerParticleParameter("q")
    for k in range(32):
        q = SITES[k % 4][0] if charges is None else charges[k]
        force.addParticle(*([[q]] if kind else [q, 0.15, 0.8]))
    return force


def add_solvent(system: Any, kind: str) -> tuple[Any, Any]:
    """It and the NonbondedForce, whose exclusions it has."""
    own = next(f for f in system.getForces() if type(f) is Force)
    copy = solvent(kind=kind)
    for pair in range(own.getNumExceptions() if kind else 0):
        copy.addExclusion(*own.getExceptionParameters(pair)[:2])
    system.addForce(copy)
    return copy, own


@pytest.mark.parametrize("kind", ["", "50*q1*q2*exp(-r)"])
@pytest.mark.parametrize("types", ["AB", "ABCD"])
def test_charges_are_those_of_an_implicit_solvent_too(kind: str, types: str) -> None:
    system, x = molecules(method=Force.NoCutoff)
    copy, own = add_solvent(system, kind)
    potential = diffsim.SystemParameters(system)
    potential.charges({name: TYPES[name] for name in types})
    check_features(potential, system, x, tries=20)
    q = [number for number, _ in potential.numbers().values()]
    change = torch.linspace(0.1, 0.2, len(flat_parameters(potential)), dtype=torch.float64)
    set_flat_parameters(potential, flat_parameters(potential) + change)
    attached(potential, system).update(None, None)
    first = TYPES["A"][0]
    now, there = own.getParticleParameters(first)[0], copy.getParticleParameters(first)[0]
    assert now._value != q[0] and getattr(there, "_value", there) == now._value


def test_what_is_no_second_degree_of_charges_is_refused() -> None:
    system, x = molecules(method=Force.NoCutoff)
    add_solvent(system, "(q1*q2)^2/r")
    potential = diffsim.SystemParameters(system)
    potential.charges(TYPES)
    with pytest.raises(SamplingError, match="no polynomial of second degree"):
        features_of(potential, context_of(system, x, "Reference"))


def test_other_charges_of_an_implicit_solvent_stay_and_that_is_said() -> None:
    system, _ = molecules(method=Force.NoCutoff)
    system.addForce(solvent(charges=np.linspace(0.1, 0.2, 32)))
    with pytest.warns(RuntimeWarning, match="GBSAOBCForce.*which stay"):
        diffsim.SystemParameters(system).charges({"A": TYPES["A"], "D": TYPES["D"]})


def test_physical_numbers_say_the_parameters() -> None:
    system, _ = molecules()
    potential = diffsim.SystemParameters(system)
    potential.lennard_jones({"A": TYPES["A"]}, bounds={"epsilon": (0.1, 1.0)})
    potential.charges({"A": TYPES["A"], "B": TYPES["B"]})
    theta = flat_parameters(potential).numpy()
    told = {name: number for name, (number, _) in potential.numbers().items()}
    np.testing.assert_allclose(potential.parameters_of(told), theta, atol=1e-12)
    np.testing.assert_array_equal(potential.parameters_of({}), theta)
    q = told["charges.q[A]"] + told["charges.q[B]"]
    wanted = {"lennard_jones.sigma[A]": 0.33, "lennard_jones.epsilon[A]": 0.3}
    wanted |= {"charges.q[A]": -0.7}  # B follows
    for total in (potential, potential + diffsim.LennardJones(0.3, 1.0, 0.9)):
        prefix = "" if total is potential else f"{potential.name}."
        found = total.parameters_of({prefix + name: value for name, value in wanted.items()})
        set_flat_parameters(total, found)
        numbers = {name: number for name, (number, _) in potential.numbers().items()}
        assert {name: numbers[name] for name in wanted} == pytest.approx(wanted)
        assert numbers["charges.q[B]"] == pytest.approx(q + 0.7)
    as_quantity = potential.parameters_of({"lennard_jones.sigma[A]": 3.3 * unit.angstrom})
    np.testing.assert_allclose(as_quantity, flat_parameters(potential))


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"lennard_jones.sigma[A]": -0.3}, "A: is -0.3 as sigma, expected more than 0"),
        ({"lennard_jones.sigma[A]": np.nan}, r"sigma\[A\]: expected a number in nm"),
        ({"lennard_jones.sigma[A]": 300 * unit.kelvin}, r"sigma\[A\]: .* got 300 K"),
        ({"lennard_jones.sigma[A]": 0.3, "lennard_jones.sigma": -1.0}, "as well as numbers of it"),
        ({"lennard_jones.sigma[X]": 0.3}, "expected numbers for some of lennard_jones.sigma"),
        ({"charges.q[A]": -0.7}, "does not say what the others are; give those of"),
        ({"charges.q[A]": 1, "charges.q[B]": 1, "charges.q[C]": 1, "charges.q[D]": 1}, "add up"),
    ],
)
def test_physical_numbers_that_cannot_be_are_refused(numbers: Any, words: str) -> None:
    potential = diffsim.SystemParameters(molecules()[0])
    potential.lennard_jones({"A": TYPES["A"]})
    potential.charges(TYPES)
    with pytest.raises(PotentialError, match=words):
        potential.parameters_of(numbers)


def test_bounds_and_learn_say_what_moves() -> None:
    system, _ = molecules()
    potential = diffsim.SystemParameters(system)
    term = potential.lennard_jones(
        {"A": TYPES["A"]}, learn=("epsilon",), bounds={"epsilon": (0.1, 1.0)}
    )
    assert len(flat_parameters(potential)) == 1
    spread = potential.parameter_prior()[1]
    start = term.epsilon.numbers()[0]
    set_flat_parameters(potential, flat_parameters(potential) + 1e-3 * torch.from_numpy(spread))
    assert term.epsilon.numbers()[0] - start == pytest.approx(1e-3 * 0.3 * start, rel=1e-2)
    for value in (-50.0, 50.0):
        set_flat_parameters(potential, torch.tensor([value]))
        assert 0.1 <= term.epsilon.numbers()[0] <= 1.0
    assert term.sigma.numbers() == pytest.approx(0.32)
