"""What each ingredient of the default fit buys: one left out at a time.

    python benchmarks/ablation.py [--seeds 0 5]

The problem is that of ``recover_lennard_jones.py``, with the small compiled MD of
``lennard_jones.py`` in place of OpenMM's, so that many fits fit into an hour. Printed: medians over
the seeds, and the worst; energies in epsilon.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
from recover_lennard_jones import judge, load_target, refine

import openmm_diffsim as diffsim
from openmm_diffsim.errors import DiffsimError
from openmm_diffsim.refinement import FitView, Step


class LastRoundOnly(diffsim.GaussNewton):
    """Gauss-Newton on the frames of the last round: nothing is pooled."""

    def propose(self, view: FitView) -> Step:
        states = tuple(replace(state, pool=state.last) for state in view.states)
        return super().propose(replace(view, states=states))


def options(**changes: object) -> Callable[[], diffsim.GaussNewton]:
    return lambda: diffsim.GaussNewton(diffsim.GaussNewtonOptions(**changes))


VARIANTS: dict[str, tuple[Callable[[], object], str]] = {
    "default": (options(), "auto"),
    "noise taken as independent": (options(), "independent"),
    "no liquid-state theory": (options(theory=False), "auto"),
    "theory trusted as 150 frames": (options(prior_frames=150.0), "auto"),
    "theory alone": (options(prior_frames=1e9), "auto"),
    "no pooling": (LastRoundOnly, "auto"),
    "no smoothness prior": (options(roughness=1e9), "auto"),
    "relative entropy": (diffsim.RelativeEntropy, "auto"),
    "iterative Boltzmann inversion": (diffsim.IterativeBoltzmannInversion, "auto"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 5), metavar=("FIRST", "END"))
    parser.add_argument("--targets", type=Path, default=Path("benchmarks/targets"))
    parser.add_argument("--only", choices=list(VARIANTS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("variant | targets | g(r) rms | u(r) rms, median and worst | within 2 errors | failed")
    for name, (method, noise) in VARIANTS.items():
        if arguments.only not in (None, name):
            continue
        for use_pressure in (False, True):
            results, failed = [], 0
            for seed in range(*arguments.seeds):
                data = load_target(seed, arguments.targets)
                try:
                    fit, *_ = refine(data, seed, use_pressure, "fast", method=method(), noise=noise)
                    results.append(judge(fit, data, seed, fresh=False))
                except (DiffsimError, np.linalg.LinAlgError):
                    failed += 1
            report(name, use_pressure, results, failed)


def report(name: str, use_pressure: bool, results: list[dict[str, float]], failed: int) -> None:
    targets = "g(r), P" if use_pressure else "g(r)"
    if not results:
        print(f"{name} | {targets} | | | | {failed}", flush=True)
        return
    column = {key: [result[key] for result in results] for key in results[0]}
    print(
        f"{name} | {targets} | {median(column['pooled_rdf_rms']):.4f} | "
        f"{median(column['potential_rms']):.3f}, {max(column['potential_rms']):.3f} | "
        f"{median(column['within_two_errors']):.2f} | {failed}",
        flush=True,
    )


if __name__ == "__main__":
    main()
