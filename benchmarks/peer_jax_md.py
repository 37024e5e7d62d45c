"""The segment of ``segments.py`` by jax-md, with a checkpoint for each step.

    python -m venv VENV && VENV/bin/pip install jax-md==0.2.29
    python benchmarks/segments.py --peer-python VENV/bin/python

Runs in an environment of its own, started by ``segments.py``. Reads the name of a loss from each
line of its input, and answers with its value and gradient and what they cost, as a line of JSON.
The defaults of the options are the fastest of those tried.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
from jax_md import partition, simulate, smap, space

SPREAD = 6  # widths to either side that a Gaussian is spread over, as in SmoothRDF


class Peer:
    """Losses of a segment of velocity Verlet, as functions of sigma, epsilon, x(0) and v(0)."""

    def __init__(self, task: Any, options: argparse.Namespace) -> None:
        self.box, self.cutoff, self.mass, self.dt = (
            float(task[key]) for key in ("box", "cutoff", "mass", "dt")
        )
        self.steps, self.every, self.refresh = (
            int(task["steps"]),
            int(task["every"]),
            options.refresh,
        )
        self.edges, self.scale = jnp.asarray(task["edges"]), jnp.asarray(task["scale"])
        self.start = {key: jnp.asarray(task[key]) for key in ("sigma", "epsilon", "x", "v")}
        displacement, shift = space.periodic(self.box, wrapped=False)
        self.distance = space.canonicalize_displacement_or_metric(displacement)
        neighbors = partition.neighbor_list(
            displacement,
            self.box,
            self.cutoff,
            dr_threshold=options.skin * float(task["sigma"]),
            capacity_multiplier=1.15,
            disable_cell_list=not options.cells,
            format=getattr(partition, options.format),
        )
        self.neighbors = neighbors.allocate(self._wrap(self.start["x"]))
        energy = smap.pair_neighbor_list(self._pair_energy, self.distance, sigma=1.0, epsilon=1.0)
        self.begin, self.apply = simulate.nve(energy, shift, self.dt)
        self.losses = {
            name: jax.jit(jax.value_and_grad(loss, has_aux=True))
            for name, loss in (("correlation", self.correlation), ("rdf", self.rdf))
        }

    def correlation(self, p: dict[str, Any]) -> tuple[Any, Any]:
        """Sum over particles of v(0).v(T) + |x(T) - x(0)|^2."""
        x, v, _, overflow = self._run(p, with_frames=False)
        return jnp.sum(p["v"] * v) + jnp.sum((x - p["x"]) ** 2), overflow

    def rdf(self, p: dict[str, Any]) -> tuple[Any, Any]:
        """Mean over bins of (g - 1)^2, with g of every few frames, smeared."""
        _, _, counts, overflow = self._run(p, with_frames=True)
        return jnp.mean((counts * self.scale - 1) ** 2), overflow

    def _run(self, p: dict[str, Any], with_frames: bool) -> tuple[Any, Any, Any, Any]:
        """Last positions and velocities, mean counts [bins], and whether a list overflowed."""
        parameters = {"sigma": p["sigma"], "epsilon": p["epsilon"]}
        count = jax.checkpoint(self._count)
        momenta = self.mass * p["v"]
        first = self.neighbors
        state = self.begin(
            jax.random.PRNGKey(0), p["x"], 1.0, mass=self.mass, momenta=momenta, neighbor=first,
            **parameters,
        )  # fmt: skip

        @jax.checkpoint
        def step(carry: Any, _: None) -> tuple[Any, None]:
            state, neighbors = carry
            state = self.apply(state, neighbor=neighbors, **parameters)
            if self.refresh == "step":
                neighbors = self._update(neighbors, state)
            return (state, neighbors), None

        def stretch(carry: Any, _: None) -> tuple[Any, Any]:
            carry, _ = jax.lax.scan(step, carry, None, length=self.every)
            state, neighbors = carry
            if self.refresh == "frame":
                neighbors = self._update(neighbors, state)
            counts = count(state.position, neighbors.idx) if with_frames else None
            return (state, neighbors), counts

        (state, neighbors), counts = jax.lax.scan(
            stretch, (state, first), None, length=self.steps // self.every
        )
        if with_frames:
            counts = (count(p["x"], first.idx) + counts.sum(0)) / (len(counts) + 1)
        return state.position, state.momentum / state.mass, counts, neighbors.did_buffer_overflow

    def _wrap(self, x: Any) -> Any:
        return jax.lax.stop_gradient(x) % self.box  # cells are of wrapped positions

    def _update(self, neighbors: Any, state: Any) -> Any:
        return neighbors.update(self._wrap(state.position))

    def _pair_energy(self, r: Any, sigma: Any, epsilon: Any, **_: Any) -> Any:
        """Lennard-Jones, switched to zero over the last tenth of the cutoff."""
        inside = (r > 0) & (r < self.cutoff)  # r = 0: what fills the list up
        r = jnp.where(inside, r, self.cutoff)
        x = (sigma / r) ** 6
        t = jnp.maximum(0.0, 10 * r / self.cutoff - 9)
        return 4 * epsilon * (x * x - x) * (1 - t**3 * (10 - 15 * t + 6 * t * t))

    def _count(self, x: Any, pairs: Any) -> Any:
        """What falls into each bin, of pairs each of which is a Gaussian as wide as a bin."""
        i, j = pairs
        r = space.map_bond(self.distance)(x[i], x[j])
        width = self.edges[1]
        lowest = jnp.floor(jax.lax.stop_gradient(r) / width).astype(jnp.int32) - SPREAD
        edge = lowest[:, None] + jnp.arange(2 * SPREAD + 2)
        below = jax.scipy.special.erf((edge * width - r[:, None]) / (2**0.5 * width))
        parts = 0.5 * jnp.diff(below, axis=1) * (i < len(x))[:, None]
        weight = 1.0 if self.neighbors.format is partition.OrderedSparse else 0.5
        return jnp.zeros(len(self.scale)).at[edge[:, :-1]].add(weight * parts, mode="drop")


def timed(run: Callable[..., Any], start: dict[str, Any]) -> dict[str, Any]:
    before = time.process_time()
    (value, overflow), gradient = jax.block_until_ready(run(start))
    seconds = time.process_time() - before
    if overflow:
        raise RuntimeError("a neighbor list overflowed: give it more capacity")
    by_parameter = [float(gradient[key]) for key in ("sigma", "epsilon")]
    return {
        "seconds": seconds,
        "value": float(value),
        "gradient": by_parameter,
        "mb": most_memory(),
    }


def most_memory() -> float:
    """Most memory this process has had so far, MB; Linux.

    Not ru_maxrss, which a new process inherits from the one that started it.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("task", help="what segments.py wrote, .npz")
    parser.add_argument("--precision", choices=["32", "64"], default="32")
    parser.add_argument(
        "--format", choices=["OrderedSparse", "Sparse", "Dense"], default="OrderedSparse"
    )
    parser.add_argument("--skin", type=float, default=0.4, help="of the neighbor list, sigma")
    parser.add_argument("--refresh", choices=["step", "frame"], default="frame")
    parser.add_argument("--cells", action="store_true", help="find neighbors by cells")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", options.precision == "64")
    peer = Peer(np.load(options.task), options)
    before = most_memory()
    for line in sys.stdin:
        answer = timed(peer.losses[line.strip()], peer.start)
        print(json.dumps({**answer, "mb": answer["mb"] - before}), flush=True)


if __name__ == "__main__":
    main()
