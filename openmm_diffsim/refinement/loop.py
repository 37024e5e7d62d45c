"""The loop: sample, compare, move the parameters, and know when to stop or to go back."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from tqdm import tqdm

from ..engine.statepoint import StatePoint
from ..errors import CheckpointError, EquilibrationError, SamplingError, TargetError
from ..observables import RDF, Observable
from ..potentials import (
    NetworkPotential,
    PairPotential,
    Potential,
    SplinePair,
    flat_parameters,
    parameter_chain,
    set_flat_parameters,
)
from ..samples import Samples
from ..samples.features import EvaluatedFrames
from ..units import MOLAR_GAS_CONSTANT
from .checkpoint import read_checkpoint, write_checkpoint
from .initial import boltzmann_inversion
from .methods.gauss_newton import (
    GaussNewtonOptions,
    StateView,
    view_state,
)
from .methods.methods import (
    METHODS,
    GaussNewton,
    Method,
    PairKnowledge,
    StateData,
    TorchOptimizer,
    is_free_form,
    nearest_distance,
)
from .target import Target
from .theory.state import LiquidTheory

Array = NDArray[np.float64]

_MOST_ROLLBACKS = 4  # in a row
_MOST_TRIES = 40  # at the length of a step
_MOST_NOISE = 0.5  # of the model over that of the targets, to call a fit converged
_LEAST_SHARE = 0.01  # of the weight: runs of a network that have less are not evaluated any more
_ENOUGH_FRAMES = 50.0  # effective ones, to go on without new MD (or half of a run, if shorter)


@dataclass(frozen=True)
class Round:
    """What one round of the fit found, at the parameters that it sampled with."""

    misfit: float  # rms of residual / combined uncertainty
    rdf_rms: float  # of all g(r) targets, pooled; NaN without one
    n_effective: float  # entropy form, least of all state points
    md_steps: int  # cumulative, equilibration included
    seconds: float  # cumulative
    largest_change: float  # kT, of u(r) where g > 0.1, in the update that followed
    event: str = ""  # why the round was rolled back, if it was


class Refinement:
    """Refines a potential until the simulation agrees with all targets.

        fit = Refinement(pair, [Target(liquid, rdf, r, g, uncertainty=error)])
        fit.run(rounds=15, steps=5_000, every=50)

    Each round samples every state point, compares, and moves the parameters. A round that
    explodes, freezes or gets far worse is rolled back and half the step is tried. The fit stops
    when the misfit is within the combined uncertainties of targets and averages.

    Parameters
    ----------
    potential : Potential
        Its present parameters are the first guess.
    targets : sequence of Target
        Any number, at any number of state points.
    method : str or Method
        "gauss-newton", "ibi", "relative-entropy", "adam", or an object such as
        ``TorchOptimizer(...)``.
    largest_step : float
        Most that u(r) of a pair potential may change per round where g > 0.1, in kT.
    checkpoint : path, optional
        Written after every round. The frames of a network lie beside it, in a folder of its name
        that ends in _frames.
    prior : "auto" or Tensor [pairs of types, coefficients]
        c_0 of the smoothness prior. "auto": the potential of mean force of the g(r) targets,
        where there is one for each pair of types, else the first guess.
    """

    def __init__(
        self,
        potential: Potential,
        targets: Sequence[Target],
        method: str | Method = "gauss-newton",
        *,
        largest_step: float = 1.0,
        checkpoint: str | Path | None = None,
        prior: Any = "auto",
    ) -> None:
        if not targets:
            raise TargetError("a refinement needs at least one target")
        for target in targets:
            if target.state_point.potential is not potential:
                raise TargetError("a target's state point holds another potential")
        if isinstance(method, str) and method not in METHODS:
            raise TargetError(f"method: expected one of {sorted(METHODS)}, got {method!r}")
        self.potential = potential
        self.targets = list(targets)
        self.method: Method = METHODS[method]() if isinstance(method, str) else method
        self.largest_step = largest_step
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.history: list[Round] = []
        self.converged = False
        self.md_steps = 0
        self._seconds = 0.0
        self._trust = 1.0
        self._rollbacks = 0
        self._best_rms = np.inf
        self._previous: Tensor | None = None  # parameters of the last accepted round
        self.states = [self._state(p, prior) for p in dict.fromkeys(t.state_point for t in targets)]

    def run(
        self,
        rounds: int,
        steps: int,
        every: int,
        equilibration: int | None = None,
        progress: bool = True,
    ) -> Refinement:
        """Run until ``rounds`` rounds are done in all, or the fit has converged. Returns self.

        Parameters
        ----------
        rounds : int
            Those before a resume count.
        steps, every : int
            MD steps recorded per round and state point, and between frames.
        equilibration : int, optional
            Steps before each round's recording. Default: a tenth of ``steps``, five times as
            much before the first.
        progress : bool
            Show a bar with round, misfit, n_effective and time left.

        Raises
        ------
        SamplingError
            If the first guess explodes, or several rounds in a row do.
        EquilibrationError
            If the first guess still drifts after its run was extended several times.
        CheckpointError
            If the checkpoint cannot be written. What was computed stays in memory.
        """
        leads = [
            equilibration if equilibration is not None else (steps // 10 if n else steps // 2)
            for n in range(rounds)
        ]
        left = leads[len(self.history) :]
        total = (len(left) * steps + sum(left)) * len(self.states)
        with tqdm(total=total, unit="step", disable=not progress) as bar:
            while len(self.history) < rounds and not self.converged:
                self._round(steps, every, leads[len(self.history)], bar)
                if self.checkpoint is not None:
                    self.save(self.checkpoint)
        if self.history:
            self.settle()
        for state in self.states:
            state.state_point.apply()
        return self

    def views(self) -> list[StateView]:
        """How every state point compares with its targets, at the present parameters.

        Raises
        ------
        OverlapError
            If the frames sampled so far do not reach the present parameters.
        """
        options = GaussNewtonOptions(theory=False)
        return [view_state(s.targets, s.frames, None, options, jacobian=False) for s in self.states]

    def summary(self) -> dict[str, float]:
        """Misfit, rdf_rms and n_effective of the present parameters, and the MD steps so far."""
        views = self.views()
        return {
            "misfit": _combined_misfit(views),
            "rdf_rms": rdf_rms(views),
            "n_effective": min(view.n_effective for view in views),
            "md_steps": self.md_steps,
            "seconds": self._seconds,
        }

    def potential_table(
        self, r: ArrayLike, temperature: float | None = None
    ) -> tuple[Array, Array]:
        """u(r) and its standard error, each [pairs of types, len(r)], kJ/mol, for r in nm.

        The error is that of the Gauss-Newton solution at the present parameters: noise of the
        targets and of the frames, and what the data leave to the prior.
        """
        kelvin = self.states[0].state_point.temperature if temperature is None else temperature
        return potential_with_error(self.pair_potential(), self.states, r, kelvin)

    def first_contact(self) -> float:
        """Where g(r) of the targets rises above 0.1, nm: below, the potential was not seen."""
        return min(self._first_contact(state) for state in self.states)

    def pair_potential(self) -> PairPotential:
        """The potential, where it is one of pairs.

        Raises
        ------
        TargetError
            If it is a network.
        """
        if not isinstance(self.potential, PairPotential):
            raise TargetError(f"{type(self.potential).__name__} is no function of a distance")
        return self.potential

    def _state(self, state_point: StatePoint, prior: Any) -> StateData:
        targets = [t for t in self.targets if t.state_point is state_point]
        if not isinstance(self.potential, PairPotential):
            return StateData(state_point, targets)
        widths = [
            float(np.diff(t.observable.edges)[0]) for t in targets if isinstance(t.observable, RDF)
        ]
        theory = LiquidTheory(state_point, min(widths, default=self.potential.basis.cutoff / 100))
        if isinstance(prior, str):
            mean = _mean_force(self.potential, state_point, targets, theory)
        else:
            mean = torch.as_tensor(prior).numpy()
        return StateData(state_point, targets, PairKnowledge(theory, mean))

    def _round(self, steps: int, every: int, equilibration: int, bar: Any) -> None:
        start = time.perf_counter()
        before = [s.state_point.snapshot() for s in self.states]
        try:
            fresh = [
                self._sample(index, steps, every, equilibration, bar)
                for index in range(len(self.states))
            ]
            problem = self._problem(fresh)
        except (SamplingError, EquilibrationError) as error:
            if not self.history:
                raise
            problem = str(error)
        if problem:
            self._roll_back(problem, before, start)
            return
        for state, samples in zip(self.states, fresh, strict=True):
            state.last = samples
            state.pool = samples if state.pool is None else Samples.pool([state.pool, samples])
            if isinstance(self.potential, NetworkPotential):
                state.pool = state.pool.relevant(_LEAST_SHARE)
        self._rollbacks = 0
        self._trust = min(1.0, 1.5 * self._trust)
        views = self.views()
        misfit = _combined_misfit(views)
        noise = max(view.noise_ratio() for view in views)
        self.converged = misfit <= 1 and noise <= _MOST_NOISE
        self._previous = flat_parameters(self.potential)
        # What was sampled and found to agree is kept, not moved once more.
        change = 0.0 if self.converged else self._update()
        self._seconds += time.perf_counter() - start
        effective = min(view.n_effective for view in views)
        self._record(misfit, rdf_rms(views), effective, change)
        bar.set_postfix_str(
            f"round {len(self.history)}, misfit {misfit:.2f}, n_effective {effective:.0f}"
        )

    def _sample(self, index: int, steps: int, every: int, equilibration: int, bar: Any) -> Samples:
        state = self.states[index]

        def count(n: int) -> None:
            self.md_steps += n
            bar.total = max(bar.total, bar.n + n)
            bar.update(n)

        samples = state.state_point.sample(
            steps,
            every,
            record=self._recorded(state),
            equilibration=equilibration,
            discard_transient=True,
            progress=count,
            trajectory=self._trajectory(index),
        )
        return replace(samples, floor=min(samples.floor, 0.5 * len(samples)))

    def _trajectory(self, index: int) -> Path | None:
        """Where this round's frames of a network go."""
        if self.checkpoint is None or isinstance(self.potential, PairPotential):
            return None
        folder = self.checkpoint.with_name(f"{self.checkpoint.stem}_frames")
        path = folder / f"state_{index}_round_{len(self.history)}.dcd"
        pool = self.states[index].pool
        if pool is not None and isinstance(pool.learned, EvaluatedFrames):
            while path in pool.learned.files:  # a round that was interrupted after its MD
                path = path.with_stem(f"{path.stem}_again")
        return path

    def _problem(self, fresh: Sequence[Samples]) -> str:
        """Why this round cannot be trusted, or an empty string."""
        residuals = []
        for state, samples in zip(self.states, fresh, strict=True):
            for target in state.targets:
                if target.observable.is_structure:
                    with torch.no_grad():
                        own = samples.average(target.observable).numpy()
                    residuals.append(target.operator @ own - target.values)
        if not residuals:
            return ""
        rms = float(np.sqrt(np.mean(np.concatenate(residuals) ** 2)))
        best = self._best_rms
        self._best_rms = min(best, rms)
        for state, samples in zip(self.states, fresh, strict=True):
            moved = samples.runs[0].rms_displacement
            if moved < 0.25 * nearest_distance(state) and rms > max(2 * best, best + 0.05):
                return (
                    f"the fluid froze: particles moved {moved:.3f} nm in the whole round, and the "
                    f"rms of g(r) went from {best:.3f} to {rms:.3f}"
                )
        if rms > max(3 * best, best + 0.15):
            return f"g(r) got far worse: its rms went from {best:.3f} to {rms:.3f}"
        return ""

    def _roll_back(self, problem: str, before: Sequence[Any], start: float) -> None:
        """Back to the positions before the round, and half the step that led to it."""
        assert self._previous is not None
        self._rollbacks += 1
        self._trust *= 0.5
        for state, snapshot in zip(self.states, before, strict=True):
            state.state_point.restore(snapshot)
        bad = flat_parameters(self.potential)
        set_flat_parameters(self.potential, self._previous + 0.5 * (bad - self._previous))
        if self._rollbacks >= _MOST_ROLLBACKS:
            raise SamplingError(
                f"{self._rollbacks} rounds in a row could not be trusted; the last: {problem}",
                reason="rollbacks",
            )
        self._seconds += time.perf_counter() - start
        tqdm.write(f"round {len(self.history) + 1} rolled back: {problem}")
        last = self.history[-1]
        self._record(last.misfit, last.rdf_rms, last.n_effective, 0.0, problem)

    def _record(
        self, misfit: float, rms: float, effective: float, change: float, event: str = ""
    ) -> None:
        self.history.append(
            Round(misfit, rms, effective, self.md_steps, self._seconds, change, event)
        )

    def _update(self) -> float:
        """One update by the method, bounded; returns the largest change of u(r) in kT.

        Too long a step is shortened along its direction, which for a potential that is not
        linear in its parameters takes more than one try. The step of a network is bounded by the
        overlap of the frames, in kT of all particles together; see ``TorchOptimizer``.
        """
        old = flat_parameters(self.potential)
        if not isinstance(self.potential, PairPotential):
            return self._update_network(old)
        u_old = self._energies()
        self.method.update(self.potential, self.states)
        step = flat_parameters(self.potential) - old
        limit = self._trust * self.largest_step
        for _ in range(_MOST_TRIES if bool(torch.isfinite(step).all()) else 0):
            change = float(np.abs(self._energies() - u_old).max())
            if change <= limit * (1 + 1e-6):
                return change
            step = step * (max(limit / change, 0.1) if np.isfinite(change) else 0.1)
            set_flat_parameters(self.potential, old + step)
        set_flat_parameters(self.potential, old)
        raise SamplingError(
            "the update gave parameters, or a potential, that are not finite", reason="update"
        )

    def _update_network(self, old: Tensor) -> float:
        """One update by the method, shortened after a rollback.

        Returns the largest spread, over the frames, of the change of U/kT.
        """
        before = [state.frames.reduced_energies() for state in self.states]
        self.method.update(self.potential, self.states)
        step = flat_parameters(self.potential) - old
        if not bool(torch.isfinite(step).all()):
            set_flat_parameters(self.potential, old)
            raise SamplingError("the update gave parameters that are not finite", reason="update")
        if self._trust < 1:
            set_flat_parameters(self.potential, old + self._trust * step)
        after = [state.frames.reduced_energies() for state in self.states]
        return max(float(np.std(b - a)) for a, b in zip(before, after, strict=True))

    def _energies(self) -> Array:
        """u(r)/kT where pairs are found, for all pairs and state points, flat."""
        potential = self.pair_potential()
        parts = []
        for state in self.states:
            kelvin = state.state_point.temperature
            r = np.linspace(self._first_contact(state), potential.basis.cutoff, 200)
            u = potential.energy(r, kelvin).detach().numpy()
            parts.append(u.ravel() / (MOLAR_GAS_CONSTANT * kelvin))
        return np.concatenate(parts)

    def _first_contact(self, state: StateData) -> float:
        """Smallest r where a target's g exceeds 0.1, nm, else r_min."""
        rises = [t.observable.contact(t.curve, 0.1) for t in state.targets if t.curve is not None]
        found = [rise for rise in rises if rise is not None]
        basis = self.pair_potential().basis
        return min(max(found, default=basis.r_min), 0.9 * basis.cutoff)

    def settle(self) -> None:
        """Go back toward the parameters last sampled, until the frames reach the present ones."""
        for _ in range(10):
            if self._previous is None or self._reach():
                return
            now = flat_parameters(self.potential)
            set_flat_parameters(self.potential, 0.5 * (now + self._previous))

    def _reach(self) -> bool:
        """Are the averages at the present parameters worth having?"""
        return all(
            state.frames.n_effective() >= min(_ENOUGH_FRAMES, 0.5 * state.frames.runs[-1].n_frames)
            for state in self.states
        )

    def save(self, path: str | Path) -> None:
        """Write a checkpoint: everything ``resume`` needs to go on as if nothing had happened.

        Raises
        ------
        CheckpointError
            If it cannot be written, or the frames of a network are in temporary files: those of a
            fit that was made without ``checkpoint``.
        """
        for state in self.states:
            if isinstance(state.frames.learned, EvaluatedFrames) and any(
                run.is_temporary for run, _ in state.frames.learned.runs
            ):
                raise CheckpointError(
                    f"{path}: the frames of this network are in temporary files; make the "
                    "Refinement with checkpoint=, which keeps them beside it",
                    path=Path(path),
                    reason="frames",
                )
        meta = {
            "fingerprint": self._fingerprint(),
            "history": [asdict(r) for r in self.history],
            "converged": self.converged,
            "md_steps": self.md_steps,
            "seconds": self._seconds,
            "trust": self._trust,
            "rollbacks": self._rollbacks,
            "best_rms": self._best_rms,
            "states": [s.state_point.serialize() for s in self.states],
        }
        arrays: dict[str, NDArray[Any]] = {"theta": flat_parameters(self.potential).numpy()}
        if self._previous is not None:
            arrays["previous"] = self._previous.numpy()
        for name, buffer in self.potential.named_buffers():
            arrays[f"buffer/{name}"] = buffer.numpy(force=True)
        for key, value in self.method.state_dict().items():
            arrays[f"method/{key}"] = np.asarray(value)
        for index, state in enumerate(self.states):
            packed = state.frames.arrays(self._recorded(state), Path(path).parent)
            arrays |= {f"state/{index}/{name}": array for name, array in packed.items()}
        write_checkpoint(Path(path), meta, arrays)

    def resume(self, path: str | Path) -> Refinement:
        """Go on from a checkpoint of the same fit. Returns self.

        Raises
        ------
        CheckpointError
            If it is missing, damaged, or of another fit (other targets, potential or method);
            nothing is changed then.
        FramesError
            If frames of a network, which lie beside it, are gone or overwritten. Nothing is
            changed.
        """
        meta, arrays = read_checkpoint(Path(path))
        mine = self._fingerprint()
        different = [k for k in mine if meta["fingerprint"].get(k) != mine[k]]
        if different:
            raise CheckpointError(
                f"{path} belongs to another fit: it differs in {', '.join(different)}; use another "
                "output folder, or the original input",
                path=Path(path),
                reason="foreign",
            )
        try:
            theta = torch.from_numpy(arrays["theta"])
            buffers = [
                (buffer, torch.from_numpy(arrays[f"buffer/{name}"]))
                for name, buffer in self.potential.named_buffers()
            ]
            history = [Round(**r) for r in meta["history"]]
            names = ("converged", "md_steps", "seconds", "trust", "rollbacks", "best_rms", "states")
            rest = {name: meta[name] for name in names}
            pools = [
                self._unpack(f"state/{index}/", state, arrays, Path(path).parent)
                for index, state in enumerate(self.states)
            ]
        except (LookupError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{path} was written by another version of openmm_diffsim: {error!r}",
                path=Path(path),
                reason="version",
            ) from error
        set_flat_parameters(self.potential, theta)
        for buffer, value in buffers:
            buffer.copy_(value)
        self._previous = torch.from_numpy(arrays["previous"]) if "previous" in arrays else None
        prefix = "method/"
        self.method.load_state_dict(
            {k[len(prefix) :]: v for k, v in arrays.items() if k.startswith(prefix)}
        )
        self.history = history
        self.converged = rest["converged"]
        self.md_steps = rest["md_steps"]
        self._seconds = rest["seconds"]
        self._trust = rest["trust"]
        self._rollbacks = rest["rollbacks"]
        self._best_rms = rest["best_rms"]
        for state, pool, context in zip(self.states, pools, rest["states"], strict=True):
            state.pool = pool
            state.last = pool.last_run()
            state.state_point.apply()
            state.state_point.deserialize(context)
        return self

    def _unpack(
        self, prefix: str, state: StateData, arrays: dict[str, NDArray[Any]], folder: Path
    ) -> Samples:
        own = {k[len(prefix) :]: a for k, a in arrays.items() if k.startswith(prefix)}
        samples = Samples.from_arrays(self.potential, self._recorded(state), own, folder)
        last = samples.runs[-1].n_frames
        return replace(samples, floor=min(Samples.floor, 0.5 * last))

    @staticmethod
    def _recorded(state: StateData) -> list[Observable]:
        observables = [t.observable for t in state.targets]
        if state.knowledge is not None:
            observables += state.knowledge.theory.rdfs
        return list(dict.fromkeys(observables))

    def _fingerprint(self) -> dict[str, Any]:
        digest = hashlib.sha256()
        for target in self.targets:
            digest.update(json.dumps(target.identity(), sort_keys=True).encode())
        return {
            "potential": (
                repr(self.potential.basis)
                if isinstance(self.potential, PairPotential)
                else f"{self.potential} {[tuple(b.shape) for b in self.potential.buffers()]}"
            )
            + str(self.potential.n_types),
            "parameters": [
                f"{n} {tuple(p.shape)}" + ("" if p.requires_grad else f" = {p.tolist()}")
                for n, p in self.potential.named_parameters()
            ],
            "method": type(self.method).__name__
            + (f" {self.method.name()}" if isinstance(self.method, TorchOptimizer) else ""),
            "targets": digest.hexdigest(),
            "state points": [
                [s.state_point.temperature, s.state_point.pressure, s.state_point.n_particles]
                for s in self.states
            ],
        }


def potential_with_error(
    potential: PairPotential, states: Sequence[StateData], r: ArrayLike, temperature: float
) -> tuple[Array, Array]:
    """u(r) and its standard error from a Gauss-Newton solution that is not applied."""
    theta = flat_parameters(potential)
    estimator = GaussNewton()
    try:
        estimator.update(potential, states)
    finally:
        set_flat_parameters(potential, theta)
    assert estimator.covariance is not None
    chain = parameter_chain(potential, temperature)
    covariance = chain @ estimator.covariance @ chain.T
    values = potential.basis.values(r)
    n = potential.basis.n_coefficients
    errors = []
    for pair in range(potential.n_pairs):
        block = covariance[pair * n : (pair + 1) * n, pair * n : (pair + 1) * n]
        errors.append(np.sqrt(np.maximum(np.einsum("ri,ij,rj->r", values, block, values), 0)))
    return potential.energy(r, temperature).detach().numpy(), np.array(errors)


def rdf_rms(views: Sequence[StateView]) -> float:
    """Root mean square deviation of all g(r) targets; NaN without one."""
    squares, start = [], 0
    for view in views:
        start = 0
        for target in view.targets:
            part = view.residual[start : start + len(target.values)]
            start += len(target.values)
            if target.observable.is_structure:
                squares.append(part**2)
    return float(np.sqrt(np.mean(np.concatenate(squares)))) if squares else float("nan")


def _combined_misfit(views: Sequence[StateView]) -> float:
    sizes = [len(view.residual) for view in views]
    return float(np.sqrt(np.average([view.misfit() ** 2 for view in views], weights=sizes)))


def _mean_force(
    potential: PairPotential, point: StatePoint, targets: Sequence[Target], theory: LiquidTheory
) -> Array:
    """Potential of mean force of the targets, or the present coefficients where they lack it."""
    present = potential.coefficients(point.temperature).detach().numpy().copy()
    if not is_free_form(potential):
        return present
    basis = potential.basis
    scratch = SplinePair(basis.r_min, basis.cutoff, basis.knots, potential.n_types)
    covered = set()
    for target in targets:
        shares = theory.shares(target.observable)
        if target.x is not None and shares is not None and shares.max() > 1 - 1e-9:
            pair = int(shares.argmax())
            covered.add(pair)
            boltzmann_inversion(scratch, target.x, target.values, point.temperature, pair)
    mean_force = scratch.coefficients().detach().numpy()
    for pair in range(potential.n_pairs):
        if pair in covered:
            present[pair] = mean_force[pair]
    return present
