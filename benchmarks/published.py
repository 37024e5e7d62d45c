"""Fit published g(r) as they are, and judge what was found by the potentials behind them.

    python benchmarks/published.py --data ../shared/data/diffsim

The curves are those of the seed papers' code (github.com/torchmd/mdgrad): pairs counted in
Gaussians as wide as they are apart, about places from one end of the range to the other, divided by
as many equal shells between the same ends, and scaled so that the mean of g over the sphere is 1.
Each is fitted three times: as if it were exact (``plain``), knowing only that its resolution, the
zero of its axis, a drifting scale and an offset may be wrong (``unknown``), and with what its
authors did as the target's response (``known``); nothing is known of the potentials. Lengths in
sigma, energies in epsilon, where g > 0.1; ``within`` is the share of points within two reported
errors, ``missed`` the targets that the fit does not reach.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import openmm_diffsim as diffsim
from openmm_diffsim.fluid import Dynamics, fluid, start_disordered

Array = NDArray[np.float64]

KELVIN = 1000 / 8.314462618  # kJ/mol are epsilon, nm are sigma
CUTOFF, PARTICLES, KNOTS = 2.5, 256, 60
ERROR = 0.005  # of a point: what these runs of a few thousand frames are worth
UNKNOWN = {"broadening": 0.03, "shift": 0.01, "scale": (0.03, 1.0), "offset": 0.01}


@dataclass(frozen=True)
class Case:
    """One published liquid: its curves by pair of types, and m, n, sigma of each potential."""

    density: float
    temperature: float
    curves: tuple[str, ...]
    exponents: tuple[int, int] = (12, 6)
    sigmas: tuple[float, ...] = (1.0,)
    compositions: tuple[float, ...] = ()


CASES = {
    "Mie 12-10, 0.5": Case(0.5, 1.0, ("ljfamily_rdf_12_10.csv",), (12, 10)),
    "Mie 8-4, 0.5": Case(0.5, 1.0, ("ljfamily_rdf_8_4.csv",), (8, 4)),
    "LJ, 0.845": Case(0.845, 1.0, ("lj_rdf_rho0.845_T1.0.csv",)),
    "mixture, 0.8": Case(
        0.8,
        1.2,
        tuple(f"x{x}_rdf{pair}.csv" for x in (0.25, 0.75) for pair in (11, 12, 22)),
        sigmas=(0.9, 1.0, 1.1),
        compositions=(0.25, 0.75),
    ),
}


def as_published(r: Array) -> dict[str, Any]:
    """What the code that made the curves does to pairs at distances r."""
    return {
        "resolution": float(r[1] - r[0]),
        "smear": "counts",
        "shells": (float(r[0]), float(r[-1])),
        "normalisation": "unit integral",
    }


def truth(r: Array, m: int, n: int, sigma: float) -> Array:
    """4 ((sigma / r)^m - (sigma / r)^n), zero at the cutoff."""
    at = [4 * ((sigma / x) ** m - (sigma / x) ** n) for x in (r, np.array([CUTOFF]))]
    return np.asarray(at[0] - at[1])


def liquids(
    case: Case, folder: Path, pair: Any, seed: int
) -> Iterator[tuple[Any, list[tuple[Any, Array, Array]]]]:
    """State points, and the observable and the curve of each pair of types."""
    curves = [np.loadtxt(folder / name, delimiter=",") for name in case.curves]
    n_pairs = len(case.sigmas)
    for k, composition in enumerate(case.compositions or (None,)):
        topology, system = fluid(PARTICLES, case.density, 1.0)
        types = np.zeros(PARTICLES, dtype=int)
        if composition is not None:
            lines = (folder / f"x{composition}.xyz").read_text().splitlines()[2:]
            types = np.array([line.split()[0] != "H" for line in lines]).astype(int)
        pair.attach(system, types=types)
        kelvin = case.temperature * KELVIN
        dynamics = Dynamics(kelvin, 0.005, platform="CPU", threads=1)
        simulation = dynamics.simulation(topology, system, seed)
        start_disordered(simulation, kelvin, seed)
        members = [np.flatnonzero(types == t) for t in range(pair.n_types)]
        here = []
        for (a, b), (r, g) in zip(
            zip(*np.triu_indices(pair.n_types), strict=True),
            curves[k * n_pairs : (k + 1) * n_pairs],
            strict=True,
        ):
            reach = min(r[-1] + 0.1, 0.499 * (PARTICLES / case.density) ** (1 / 3))
            rdf = diffsim.RDF(reach, int(reach / 0.0255), members[a], members[b])
            here.append((rdf, r, g))
        yield diffsim.StatePoint(simulation, pair), here


def fitted(case: Case, folder: Path, how: str, arguments: argparse.Namespace) -> Any:
    """The fit, and the smallest r at which each pair of types is found."""
    n_types = 1 if len(case.sigmas) == 1 else 2
    pair = diffsim.SplinePair(0.6, CUTOFF, KNOTS, n_types=n_types)
    curves = [np.loadtxt(folder / name, delimiter=",") for name in case.curves]
    contacts = []
    for k in range(len(case.sigmas)):
        r, g = np.mean(curves[k :: len(case.sigmas)], axis=0)
        diffsim.boltzmann_inversion(pair, r, g, case.temperature * KELVIN, pair=k)
        contacts.append(float(r[np.argmax(g > 0.1)]))
    targets = []
    for point, measured in liquids(case, folder, pair, arguments.seed):
        for rdf, r, g in measured:
            options = {"plain": {}, "unknown": UNKNOWN, "known": as_published(r)}[how]
            targets.append(diffsim.Target(point, rdf, r, g, uncertainty=ERROR, **options))
    options = diffsim.GaussNewtonOptions(
        roughness=arguments.roughness, theory=not arguments.no_theory
    )
    fit = diffsim.Refinement(pair, targets, diffsim.GaussNewton(options))
    fit.run(arguments.rounds, arguments.steps, every=50, progress=False)
    return fit, contacts


def judged(case: Case, fit: Any, contacts: list[float]) -> dict[str, float]:
    """Errors of u(r), found and claimed."""
    r = np.linspace(0.7, CUTOFF, 361)
    u, error = fit.potential_table(r)
    off, claimed = [], []
    for k, sigma in enumerate(case.sigmas):
        seen = r >= contacts[k]
        off.append(u[k, seen] - truth(r[seen], *case.exponents, sigma))
        claimed.append(np.maximum(error[k, seen], 1e-12))
    found, errors = np.concatenate(off), np.concatenate(claimed)
    inside = np.abs(found) <= 2 * errors
    return {
        "misfit": fit.summary()["misfit"],
        "rms": float(np.sqrt(np.mean(found**2))),
        "claimed": float(np.sqrt(np.mean(errors**2))),
        "within": float(np.mean(inside[errors > 1e-9])),
    }


def main() -> None:
    """Print one line for each fit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/diffsim"))
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--how", nargs="*", default=["plain", "unknown", "known"])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4500)
    parser.add_argument("--roughness", type=float, default=2e5)
    parser.add_argument("--no-theory", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'':18s}{'':10s}{'misfit':>8s}{'rms u':>8s}{'claimed':>9s}{'within':>8s}  missed")
    for name in arguments.cases:
        for how in arguments.how:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fit, contacts = fitted(CASES[name], arguments.data, how, arguments)
            row = judged(CASES[name], fit, contacts)
            agreed = fit.agreement()
            missed = sum(not each.is_reached for each in agreed)
            print(
                f"{name:18s}{how:10s}{row['misfit']:8.2f}{row['rms']:8.3f}{row['claimed']:9.3f}"
                f"{row['within']:8.2f}  {missed} of {len(agreed)}"
                + f"  chi^2 {agreed[0].chi_squared:.0f} ({agreed[0].expected:.0f})",
                *(f"{n.name} {n.value:.2g}+-{n.error:.1g}" for n in agreed[0].nuisances),
                flush=True,
            )


if __name__ == "__main__":
    main()
