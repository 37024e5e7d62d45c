"""Liquid-state theory against covariances: how g(r) and the pressure answer to the potential.

    python benchmarks/response.py [--frames 4000]

At rho* 0.845, T* 1.0, N = 500, with the true potential: the Jacobian of g(r) from theory (fed with
100 frames, as in the first round of a fit) is held against the covariance of many frames, along
the eigenvectors of the misfit's Hessian, from the stiffest to the softest. slope is the projection
of theory on the covariance (1: right size), cosine their alignment (1: right shape).
"""

from __future__ import annotations

import argparse

import lennard_jones as lj
import numpy as np
import torch

import openmm_diffsim as diffsim
from openmm_diffsim.refinement.species import Species
from openmm_diffsim.refinement.theory import LiquidTheory

DIRECTIONS = (0, 1, 2, 4, 8, 12, 16, 20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=4000)
    frames = parser.parse_args().frames
    torch.set_num_threads(1)
    pair = diffsim.SplinePair(0.8 * lj.SIGMA, lj.CUTOFF, 60)
    pair.set_table(r := np.linspace(0.8 * lj.SIGMA, lj.CUTOFF, 400), lj.truth(r))
    liquid = lj.FastStatePoint(pair, 3)
    rdf, pressure = diffsim.RDF(lj.CUTOFF, lj.BINS), diffsim.Pressure()
    theory = LiquidTheory(liquid, Species(liquid), [rdf.r])
    record = [rdf, pressure, *theory.rdfs]
    few = liquid.sample(5000, 50, record, equilibration=5000)
    many = liquid.sample(50 * frames, 50, record)
    structure = theory.structure(few.at())
    c = pair.coefficients().detach().numpy()
    guess, _ = theory.jacobian(structure, [rdf, pressure], c)
    measured = np.concatenate([many.at().jacobian(o) for o in (rdf, pressure)])
    error = many.estimate(rdf).standard_error
    weighted = measured[:-1][error > 0] / error[error > 0][:, None]
    _, vectors = np.linalg.eigh(weighted.T @ weighted)
    vectors = vectors[:, ::-1]
    print(f"{frames} frames; direction, slope and cosine of the response of g(r)")
    for k in DIRECTIONS:
        a, b = guess[:-1] @ vectors[:, k], measured[:-1] @ vectors[:, k]
        print(f"{k:8d} {slope(a, b):7.2f} {cosine(a, b):7.3f}")
    a, b = guess[-1], measured[-1]
    print(f"pressure {slope(a, b):7.2f} {cosine(a, b):7.3f}")


def slope(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (b @ b))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


if __name__ == "__main__":
    main()
