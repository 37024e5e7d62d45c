"""Hold the main job's result against the potential that its target was made from.

openmm-diffsim refine examples/lennard_jones.toml
python examples/check_lennard_jones.py refined_lennard_jones
"""

import json
import sys
from pathlib import Path

import numpy as np
from lennard_jones_truth import EPSILON, truth

from openmm_diffsim import RDF, Curve
from openmm_diffsim.report.figures import Comparison, fit_figure, save_figure

folder = Path(sys.argv[1])
r, u, error = np.loadtxt(folder / "potential.csv", delimiter=",", skiprows=1).T
r_g, target, model, model_error = np.loadtxt(folder / "rdf_0.csv", delimiter=",", skiprows=1).T
data = np.loadtxt(Path(__file__).parent / "data/lennard_jones_rdf.csv", delimiter=",", skiprows=1)
summary = json.loads((folder / "summary.json").read_text())

known = truth().energy(r)[0].detach().numpy()
seen = np.interp(r, r_g, target) > 0.1
deviation = (u - known)[seen]
potential_rms = np.sqrt(np.mean(deviation**2)) / EPSILON
rdf_rms = np.sqrt(np.mean((model - target) ** 2))
inside = np.mean(np.abs(deviation) < 2 * error[seen])

rdf = RDF(r_max=r_g[-1], bins=len(r_g))
measured = Curve(r_g, target, np.interp(r_g, *data[:, [0, 2]].T))
comparison = Comparison(rdf, RDF.rules.axis(r_g), measured, Curve(r_g, model, model_error))
title = f"potential within {potential_rms:.3f} epsilon rms, g(r) within {rdf_rms:.4f} rms"
figure = fit_figure(r, u, error, [comparison], summary["rounds"], (r, known), title)
save_figure(figure, folder / "figure_with_truth.png")

print(f"{title}; {inside:.0%} of the potential within two standard errors of the truth")
assert rdf_rms < 0.01
assert potential_rms < 0.05
assert inside > 0.9
