"""A rigid three-site water refined against measurements, from TIP3P: sigma, epsilon and charges.

    python examples/11_water.py measured_g_of_r.csv --folder water

Measured are the O-O g(r), density, heat of vaporization and dielectric constant at 298 K and the
density at 338 K. Then the fit goes on without any of its frames, from another start, and what these
new ones say of the refined parameters is held against the prediction. What is done is kept in the
folder, and not done again; ``water.png`` there shows the outcome.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import openmm
from matplotlib.figure import Figure
from openmm import app

import openmm_diffsim as diffsim
from openmm_diffsim.potentials import flat_parameters, set_flat_parameters

FIELD = app.ForceField("tip3p.xml")
LABELS = ("g(r)", "density", "heat of vaporization", "dielectric constant", "density, 338 K")


def system_of(box):
    return FIELD.createSystem(box.topology, nonbondedMethod=app.PME, nonbondedCutoff=0.85)  # nm


def tip3p(molecules):
    """Molecules in a box, their oxygens, and what is learned of them."""
    box = app.Modeller(app.Topology(), [])
    box.addSolvent(FIELD, model="tip3p", numAdded=molecules)
    atoms = np.arange(3 * molecules).reshape(-1, 3)  # O, H, H
    water = diffsim.SystemParameters(system_of(box))
    water.lennard_jones(atoms[:, 0])
    water.charges({"O": atoms[:, 0], "H": atoms[:, 1:]})
    return box, atoms[:, 0], water


def liquid(water, box, kelvin, seed):
    """At 1 bar; rigid molecules bear a time step of 4 fs."""
    system = system_of(box)
    system.addForce(openmm.MonteCarloBarostat(1.0, kelvin, 25))
    water.attach(system)
    integrator = openmm.LangevinMiddleIntegrator(kelvin, 1.0, 0.004)
    integrator.setRandomNumberSeed(seed)
    platform = openmm.Platform.getPlatform("CPU")
    simulation = app.Simulation(box.topology, system, integrator, platform, {"Threads": "1"})
    simulation.context.setPositions(box.positions)
    simulation.minimizeEnergy(maxIterations=200)
    simulation.context.setVelocitiesToTemperature(kelvin, seed)
    return diffsim.StatePoint(simulation, water)


def targets_of(cold, hot, oxygens, file):
    """No three numbers fit g(r) to its error, which is nearer 0.02: it may be off by 0.1."""
    goo = diffsim.RDF(r_max=0.8, bins=200, atoms=oxygens)
    return [
        diffsim.Target.from_file(cold, goo, file, uncertainty=0.1, window=(0.24, 0.8)),
        diffsim.Target(cold, diffsim.Density(), 0.997, uncertainty=0.002),
        diffsim.Target(cold, diffsim.HeatOfVaporization(), 44.0, uncertainty=0.3),
        diffsim.Target(cold, diffsim.DielectricConstant(), 78.0, uncertainty=3.0),
        diffsim.Target(hot, diffsim.Density(), 0.981, uncertainty=0.002),
    ]


def run(water, targets, checkpoint, rounds, steps):
    """A fit that goes on where it was; both temperatures at once."""
    with ProcessPoolExecutor(2, get_context("spawn")) as executor:
        fit = diffsim.Refinement(water, targets, checkpoint=checkpoint, executor=executor)
        if checkpoint.exists():
            fit.resume(checkpoint)
        return fit.run(rounds=rounds, steps=steps, every=50)


def predictions(fit, theta):
    """Of each target at these parameters, with errors."""
    set_flat_parameters(fit.potential, theta)
    parts = [each for group in fit.comparisons() for each in group.each()]
    return [(each.prediction, each.own_error()) for each in parts]


def report(targets, rows):
    """Print the outcome; how far prediction and other run are apart, in their errors."""
    print(f"{'':22} {'measured':>9} {'TIP3P':>16} {'refined':>16} {'another run':>16}")
    off = []
    for label, target, *found in zip(LABELS, targets, *rows, strict=True):
        _, (model, error), (other, other_error) = found
        off.append(np.sqrt(np.mean((model - other) ** 2 / (error**2 + other_error**2))))
        if target.curve is None:
            told = [f"{target.values[0]:9.3f}", *(f"{v[0]:9.3f} +-{e[0]:5.2g}" for v, e in found)]
        else:
            rms = [np.sqrt(np.mean((v - target.values) ** 2)) for v, _ in found]
            told = [f"{'rms off':>9}", *(f"{each:16.3f}" for each in rms)]
        print(f"{label:22} {' '.join(told)}, {off[-1]:.1f} errors apart")
    return off


def draw(targets, rows, path):
    """Curves, and the other numbers by their distance from what was measured."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    curves, numbers = figure.subplots(1, 2, width_ratios=(1.4, 1))
    curves.plot(targets[0].x, targets[0].values, "o", ms=3, color="0.6", label="measured")
    looks = (("TIP3P", "C1", "--"), ("refined", "C0", "-"), ("another run", "k", ":"))
    for k, (row, (name, color, line)) in enumerate(zip(rows, looks, strict=True)):
        curves.plot(targets[0].x, row[0][0], line, color=color, label=name)
        for y, ((value, error), target) in enumerate(zip(row[1:], targets[1:], strict=True)):
            off, bar = (value - target.values) / target.uncertainty, 2 * error / target.uncertainty
            numbers.errorbar(off, [y + 0.2 * (k - 1)], xerr=bar, fmt="o", ms=4, color=color)
    curves.set(xlabel="r / nm", ylabel="O-O g(r), 298 K")
    curves.legend()
    numbers.axvspan(-2, 2, color="0.9", zorder=0)
    numbers.set_yticks(range(4), LABELS[1:])
    numbers.set(xlabel="off, in measured uncertainties", ylim=(3.5, -0.5))
    figure.savefig(path, dpi=100)


def main(arguments=None):
    """Fit, run again, report; how far each prediction is from the other run, in errors."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("file", help="r in nm and g(r) of the oxygens, at 298 K")
    options.add_argument("--steps", type=int, default=20_000, help="a round, at each temperature")
    options.add_argument("--rounds", type=int, default=5, help="at most")
    options.add_argument("--molecules", type=int, default=216)
    options.add_argument("--folder", type=Path, default=Path("water"))
    given = options.parse_args(arguments)
    given.folder.mkdir(exist_ok=True)

    box, oxygens, water = tip3p(given.molecules)
    start = flat_parameters(water)

    def targets(seed):
        cold, hot = liquid(water, box, 298.0, seed), liquid(water, box, 338.0, seed + 1)
        return targets_of(cold, hot, oxygens, given.file)

    fit = run(water, targets(1), given.folder / "fit.npz", given.rounds, given.steps)
    refined, table = flat_parameters(water), fit.parameter_table()
    print(table)
    for name, (value, error) in water.numbers(table).items():
        print(f"{name}: {value:.5f} +- {error:.5f}")
    print(fit.verdict().sentence(), f"{fit.md_steps} MD steps", *fit.agreement(), sep="\n")

    again = run(water, targets(3), given.folder / "again.npz", (given.rounds + 1) // 2, given.steps)
    rows = [predictions(*of) for of in ((fit, start), (fit, refined), (again, refined))]
    draw(fit.targets, rows, given.folder / "water.png")
    return report(fit.targets, rows)


if __name__ == "__main__":
    assert max(main()) < 3
