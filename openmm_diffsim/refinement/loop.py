"""The loop: sample, compare, move the parameters, and know when to stop or to go back."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from tqdm import tqdm

from ..errors import EquilibrationError, SamplingError, TargetError
from ..io.archive import checksum_of
from ..limits import LIMITS, checked_number, checked_whole
from ..potentials import Potential, flat_parameters, prior_of
from ..samples import Samples, bars
from . import caveats
from . import checkpoint as files
from .convergence import Verdict, judge, largest_mode
from .identity import identity as identity_of
from .methods import Method, Step, largest_step_of, method_of, unused_targets
from .offline import ENOUGH_FRAMES, Reach, follow_frames, sampled_with
from .position import Position
from .progress import Progress
from .result import Results
from .sampling import Frames, Sampling, replicas_of
from .schedule import Schedule
from .state import FitView, State, check_targets, compared, make_states
from .target import Target
from .trust import Trust
from .workers import check_executor, opened

_STEP = replace(LIMITS["largest_step"], most=np.inf)  # a Python user may leave it unbound
_UNCONFIRMED = "a round that waits for all runs has to confirm it"
_LEAST_SHARE = 0.01  # of the weight: runs of a network that have less are not evaluated any more


class Refinement(Results):
    """Refines a potential until the simulation agrees with all targets.

        fit = Refinement(pair, [Target(liquid, rdf, r, g, uncertainty=error)])
        fit.run(rounds=15, steps=5_000, every=50)

    Each round samples every state point, compares, and moves the parameters. A round that
    explodes, freezes or gets far worse is rolled back and half the step is tried. The fit stops
    when every target agrees within its own error and the next step is small: see ``verdict``.

    Parameters
    ----------
    potential : Potential
        Its present parameters are the first guess.
    targets : sequence of Target
        Any number, at any number of state points.
    method : str or Method
        "gauss-newton", "ibi", "relative-entropy", "adam", or an object such as
        ``TorchOptimizer(...)``.
    largest_step : float, optional
        Most that u(r) of a pair potential may change per round where g > 0.1, in kT. Default: 4 for
        Gauss-Newton, which bounds its steps itself by what the linear model is good for; else, and
        beside a network, 1.
    checkpoint : path, optional
        Written after every round; never in place of one that this fit neither wrote nor resumed.
        A file of its name that ends in .lock keeps other processes from it during ``run``. The
        frames of a network lie beside it, in a folder of its name that ends in _frames.
    prior : "auto" or Tensor of the potential's coefficients
        c_0 of the potential's smoothness prior; that of parameters is the potential's, see
        ``Potential.set_prior``. "auto": the potential of mean force of the g(r) targets,
        where there is one for a pair of types; no correction, of a spline beside another force
        between the same particles; else the first guess. A fit that is resumed keeps
        the one that it began with.
    executor : "here", "processes", str, Dask Client or concurrent.futures.Executor
        Where state points and their replicas are sampled: here, in the Simulations themselves, one
        after the other; in processes of this machine (see ``Processes``); by the workers of the
        Dask scheduler at an address such as "tcp://host:8786"; or by those of any executor, such as
        ``mpi4py.futures.MPIPoolExecutor``. A run is decided by where it begins: on Reference it is
        the same everywhere, bit for bit, and on a CPU too with one thread. One whose worker is lost
        is done again. Elsewhere, reporters of the user's Simulations see nothing of it, and a
        network needs ``checkpoint``, so that its frames have a place, which all workers must reach.
    workers : int, optional
        How many processes. Default: as many as there are cores.
    replicas : int or mapping from StatePoint to int
        Independent runs of each state point in every round, which begin at the same positions with
        velocities and random numbers of their own: the equilibration before the first round must be
        long enough to part them.
    staleness : int
        How many rounds the parameters of a frame may be behind when it comes. 0: a round waits for
        all its runs. Else a step is made as soon as half of them have come, of each state point at
        least one, and the others follow later; the last round, and one that confirms that the fit
        has converged, wait for all. What comes when is then a matter of chance.

    Attributes
    ----------
    unused_targets : list of Target
        Those that the method does not use, which is warned of: they only count in the misfit.

    Raises
    ------
    TargetError
        If a target is of another potential, the method is not for this potential or these targets,
        or an argument cannot be what it is.
    """

    def __init__(
        self,
        potential: Potential,
        targets: Sequence[Target],
        method: str | Method = "gauss-newton",
        *,
        largest_step: float | None = None,
        checkpoint: str | Path | None = None,
        prior: Any = "auto",
        executor: Any = "here",
        workers: int | None = None,
        replicas: int | Mapping[Any, int] = 1,
        staleness: int = 0,
    ) -> None:
        check_targets(potential, targets)
        check_executor(executor, workers)
        elsewhere = not (isinstance(executor, str) and executor == "here")
        if elsewhere and checkpoint is None and not potential.energy_is_linear:
            raise TargetError(
                f"the frames of {type(potential).__name__}, sampled elsewhere, need a place: give "
                "checkpoint=, beside which they are kept"
            )
        self.potential = potential
        self.targets = list(targets)
        self.method = method_of(method)
        if largest_step is None:
            largest_step = largest_step_of(self.method, potential)
        self.largest_step = checked_number("largest_step", largest_step, TargetError, _STEP)
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.executor, self.workers = executor, workers
        self.staleness = checked_whole("staleness", staleness, TargetError)
        self.states = make_states(potential, self.targets, prior, self._options.theory)
        self.replicas = replicas_of(replicas, self.states)
        self._prior = prior_of(potential)
        self.last_step: Step | None = None
        self._progress = Progress([], Trust())
        self._position = Position(potential)
        self._memory: Any = {}
        self._written: set[str] = set()  # checksums of the checkpoints that are this fit's own
        self._holds = False  # the checkpoint
        self._confirms = False  # the next round waits for all
        self.unused_targets = unused_targets(self.method, self.view())
        for text in self.warnings():
            warnings.warn(text, stacklevel=2)

    def run(
        self,
        rounds: int,
        steps: int,
        every: int,
        equilibration: int | None = None,
        progress: bool = True,
        on_round: Callable[[Refinement], Any] | None = None,
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
        on_round : callable, optional
            Called with this fit after every round, once its checkpoint is written.

        Raises
        ------
        SamplingError
            If the first guess explodes, or several rounds in a row do.
        EquilibrationError
            If the first guess still drifts after its run was extended several times.
        CheckpointError
            If the checkpoint cannot be written. What was computed stays in memory.
        TakenError
            If the checkpoint is in use by another process, or there already and neither written
            nor resumed by this fit.
        ObservableError
            If an observable or a method for which there is to be a checkpoint does not say what it
            is.
        """
        schedule = Schedule(rounds, steps, every, equilibration)
        self._position.unsettle()
        total = schedule.steps_after(len(self.history)) * sum(self.replicas)
        with bars(progress):
            with (
                self.holding_checkpoint(),
                tqdm(total=total, unit="step", disable=not progress) as bar,
                opened(self.executor, self.workers) as runner,
            ):
                where = self.states, self.replicas, runner, self.staleness
                sampling = Sampling(*where, self._frames)
                while len(self.history) < rounds and not self.converged:
                    self._round(schedule, sampling, bar)
                    if self.checkpoint is not None:
                        self.save(self.checkpoint)
                    if on_round is not None:
                        on_round(self)
            if self.history:
                self.settle()
        for state in self.states:
            state.state_point.apply()
        return self

    def read(
        self,
        state_point: Any,
        trajectory: Any,
        parameters: Any = None,
        *,
        temperature: Any = None,
        pressure: Any = None,
    ) -> Samples:
        """Take the frames of a stored trajectory, to ``reweight`` or to ``run`` from; returns them.

            fit.read(liquid, ["a.xtc", "b.dcd"])  # of the present parameters
            fit.read(liquid, "hot.trr", {"sigma": 0.33}, temperature=320)
            print(fit.reweight().sentence())

        Parameters
        ----------
        state_point : StatePoint
            Of a target, with the System that the trajectory came from: all forces but what is
            learned have to be those that it was run with.
        trajectory : path, paths, mdtraj.Trajectory, or iterable of mdtraj.Trajectory
            See ``sample_trajectory``.
        parameters : Tensor [parameters], or mapping, optional
            What it was sampled with; by name for some, see ``Potential.by_name``. Of
            SystemParameters physical numbers by the names of its ``numbers()``,
            ``{"lennard_jones.sigma[O]": 0.33}`` in nm, or by ``by_name()`` the parameters
            themselves, which are logarithms of what is positive. Default: the present ones.
        temperature, pressure : float or Quantity, optional
            K and bar that it was sampled at. Default: the state point's.

        Raises
        ------
        TargetError
            If the state point is not of this fit, or there are no such parameters.
        SamplingError, ConfigurationError, FramesError, ObservableError
            As ``sample_trajectory``.
        """
        points = [id(state.state_point) for state in self.states]
        if id(state_point) not in points:
            raise TargetError(
                f"read: got {state_point!r}, expected the state point of a target of this fit",
                got=state_point,
            )
        index = points.index(id(state_point))
        state, frames = self.states[index], self._frames
        place = None if frames is None else frames.place(index, 0, len(self.history))
        theta = sampled_with(self.potential, parameters)
        samples = state.read(trajectory, theta, temperature, pressure, place)
        state.add(samples)
        return samples

    def reweight(self) -> Reach:
        """Fit the frames that are there, as far as they reach, without MD; counts as a round.

        Steps of the method, on the same frames, until the next one is small against its standard
        error, or too few frames would be effective. The result is a fit like any other: its
        verdict, tables, errors and checkpoint. What the verdict lacks is a run that nothing was
        fitted to; ``run`` goes on with one where the fit has not converged.

        Returns
        -------
        Reach
            How far the frames reach, whether the optimum lies beyond, and what to do.

        Raises
        ------
        StatePointError
            If there are no frames: see ``read``.
        SamplingError
            If they are fewer than ten at a state point, or do not reach the present parameters.
        CheckpointError, TakenError
            As ``run``.
        """
        start = time.perf_counter()
        self._position.unsettle()
        with self.holding_checkpoint():
            parts = (self._options, self._progress.trust, self.largest_step)
            began = self._progress.began or flat_parameters(self.potential).tolist()
            view, step, reach = follow_frames(self.view(), self.method, *parts, began)
            self._progress.began = began
            self._position.move(view.parameters.detach())
            self._position.believe()
            self._memory, self.last_step = {}, step
            verdict = self._judged(self.states)
            if reach.is_beyond:
                verdict = replace(verdict, missed=(*verdict.missed, reach.sentence()))
            self._progress.seconds += time.perf_counter() - start
            self._progress.record(self.result.numbers(), 0.0, verdict)
            if self.checkpoint is not None:
                self.save(self.checkpoint)
        for state in self.states:
            state.state_point.apply()
        return reach

    @contextmanager
    def holding_checkpoint(self) -> Iterator[None]:
        """Keep all other processes from the checkpoint, as ``run`` does; also for several runs.

        Raises
        ------
        TakenError, CheckpointError
            As ``run``.
        """
        if self._holds or self.checkpoint is None:
            yield
            return
        files.check_identity(self.identity)
        with files.held(self.checkpoint, self._written):
            self._holds = True
            try:
                yield
            finally:
                self._holds = False
                if self._frames is not None:
                    self._frames.tidy(self.states)

    def view(self) -> FitView:
        """The fit at the present parameters, as a method is given it."""
        theta = flat_parameters(self.potential)
        return FitView(self.potential, tuple(self.states), theta, self._memory, prior=self._prior)

    def warnings(self) -> list[str]:
        """What has to be known of this fit besides its verdict, a sentence each.

        Targets that the method does not use; pairs below ``r_min``; and once frames are there,
        where u(r) is not determined (a standard error above kT/2 where g > 0.5), or does not fade
        toward its cutoff, and targets that are not reached within their errors. The first two are
        warned of when the fit is made.
        """
        found = caveats.before_sampling(self.potential, self.states)
        if self.unused_targets:
            names = " and ".join(f"the target {t.observable.label}" for t in self.unused_targets)
            found.append(
                f"{type(self.method).__name__} does not use {names}: the fit will not meet what it "
                "says, take the default method for that"
            )
        if self._prior is not None and not getattr(self.method, "uses_prior", False):
            found.append(
                f"{type(self.method).__name__} does not use what is known of the parameters "
                "beforehand (set_prior), which only its error bars do: take the default method"
            )
        if self.history:
            found += self.result.remarks
        return found

    def _round(self, schedule: Schedule, sampling: Sampling, bar: Any) -> None:
        start = time.perf_counter()
        waits = self._confirms or len(self.history) + 1 >= schedule.rounds
        problem = self._sampled(schedule, sampling, waits, bar)
        while not problem and self.staleness and not self._reaches_all():
            problem = self._sampled(schedule, sampling, True, bar)
        if problem:
            self._roll_back(problem, start)
            return
        if not self.potential.energy_is_linear:
            for state in self.states:
                assert state.last is not None
                state.pool = state.frames.relevant(_LEAST_SHARE, len(state.last.runs))
        self._progress.trust.accept()
        theta, size = self._proposed()
        numbers = self.result.numbers()
        verdict = self._confirmed(self._judged())
        # What was sampled and found to agree is kept, not moved once more.
        change = 0.0 if verdict.converged else self._move(theta, size)
        self._progress.seconds += time.perf_counter() - start
        self._progress.record(numbers, change, verdict)
        self._tell_stall()
        worst = verdict.worst
        bar.set_postfix_str(
            f"round {len(self.history)}, misfit {numbers['misfit']:.2f}, worst {worst.name} "
            f"{worst.misfit:.2f} of {worst.limit:.2f}, n_effective {numbers['n_effective']:.0f}"
        )

    def _reaches_all(self) -> bool:
        """Are enough frames effective at the present parameters, of each state point?"""
        return all(s.frames.n_effective() >= s.frames.least_effective for s in self.states)

    def _confirmed(self, verdict: Verdict) -> Verdict:
        """That of a round which did not wait for all is no last one: the next one waits."""
        alone = self._confirms
        self._confirms = verdict.converged and not alone and self.staleness > 0
        if not self._confirms:
            return verdict
        return replace(verdict, missed=(*verdict.missed, _UNCONFIRMED))

    def _judged(self, last: Sequence[State] | None = None) -> Verdict:
        """By all frames, and by the ``last`` alone, by default those of the last round."""
        step = self.last_step
        assert step is not None
        if last is None:
            last = [replace(state, pool=self._last_of(state)) for state in self.states]
        alone = compared(replace(self.view(), states=tuple(last)), self._options)
        size = largest_mode(step.change, step.covariance)
        moved = min(map(State.moved, self.states))
        verdict = judge(self.targets, self.comparisons(), alone, size, moved, self.unused_targets)
        if not verdict.converged:
            return verdict
        missed = [str(each) for each in self.agreement() if not each.is_reached]
        return replace(verdict, missed=tuple(missed))

    def _last_of(self, state: State) -> Samples | None:
        """The frames that came last; all, where these no longer reach the present parameters."""
        last = state.last
        if self.staleness and last is not None and last.n_effective() < last.least_effective:
            return state.pool
        return last

    def _tell_stall(self) -> None:
        """Mark the round, and say so once, where the fit no longer comes nearer."""
        is_new = not any(entry.has_stalled for entry in self.history)
        if self._progress.mark_stall() and is_new:
            tqdm.write(f"round {len(self.history)} {self.history[-1].event}", file=sys.stderr)

    def _sampled(self, schedule: Schedule, sampling: Sampling, waits: bool, bar: Any) -> str:
        """What is wrong with the frames of a round, or an empty string: then they are added."""

        def count(n: int) -> None:
            self._progress.md_steps += n
            bar.total = max(bar.total, bar.n + n)
            bar.update(n)

        try:
            fresh = sampling.round(schedule, len(self.history), count, waits)
        except (SamplingError, EquilibrationError) as error:
            if not self.history:
                raise
            sampling.reject()
            return str(error)
        parts = zip(*((f.state, f.samples, f.parameters) for f in fresh), strict=True)
        problem = self._progress.trust.problem(*map(list, parts))
        if problem:
            sampling.reject()
            return problem
        sampling.accept()
        self._result = None  # else all frames are there twice
        for each in fresh:
            each.state.add(each.samples)
        self._position.believe(fresh[-1].parameters)
        return ""

    def _roll_back(self, problem: str, start: float) -> None:
        """Half the step that led to the round; what runs go on from is that before it."""
        self._position.go_back_half()
        self._progress.trust.reject(problem)
        self._progress.seconds += time.perf_counter() - start
        tqdm.write(f"round {len(self.history) + 1} rolled back: {problem}", file=sys.stderr)
        self._progress.record_rollback(problem)

    def _proposed(self) -> tuple[Tensor, float]:
        """One step of the method, bounded: where it leads, and its size in kT."""
        view = self.result.view
        step = self.method.propose(view)
        found = self._progress.trust.follow(view, step, self.largest_step)
        self.last_step = step
        return found

    def _move(self, theta: Tensor, size: float) -> float:
        """Follow the last step as far as that."""
        assert self.last_step is not None
        self._position.move(theta)
        self._memory = self.last_step.memory
        return size

    def settle(self) -> None:
        """Go back toward the parameters last sampled, until the frames reach the present ones.

        A fit that goes on, by ``run``, does so from where it was before.
        """
        self._position.settle(self._reach)

    def _reach(self) -> bool:
        """Are the averages at the present parameters worth having?"""
        return all(
            state.frames.n_effective() >= min(ENOUGH_FRAMES, 0.5 * state.frames.runs[-1].n_frames)
            for state in self.states
        )

    @property
    def _frames(self) -> Frames | None:
        """Where frames are kept, of a potential that needs them."""
        if self.checkpoint is None or self.potential.energy_is_linear:
            return None
        return Frames(self.checkpoint)

    def save(self, path: str | Path) -> None:
        """Write a checkpoint: everything ``resume`` needs to go on as if nothing had happened.

        Raises
        ------
        CheckpointError
            If it cannot be written, or the frames of a network are in temporary files: those of a
            fit that was made without ``checkpoint``.
        TakenError
            If there is a file of this name that is no checkpoint.
        """
        for state, n in zip(self.states, self.replicas, strict=True):
            state.frames.learned.keep()
            state.replicas.begin(n)
        kept = files.Kept(
            self.identity,
            self._progress,
            self._position.going_on_from(),
            self._position.believed,
            self._memory,
            tuple(buffer for _, buffer in self.potential.named_buffers()),
            tuple(state.prior_mean for state in self.states),
            self._prior,
        )
        self._written.add(files.save(Path(path), kept, self.potential, self.states))

    def resume(self, path: str | Path) -> Refinement:
        """Go on from a checkpoint of the same fit. Returns self.

        The result is that of an uninterrupted fit, bit for bit, on the same platform and hardware,
        on one thread; but not under a CustomIntegrator that draws random numbers.

        Raises
        ------
        CheckpointError
            If it is missing, damaged, or of another fit: what differs is named. Nothing is changed
            then.
        FramesError
            If frames of a network, which lie beside it, are gone or are others. Nothing is
            changed.
        """
        kept, pools, contexts = files.load(Path(path), self.identity, self.potential, self.states)
        files.restore(kept, self.potential, self.states, pools, contexts)
        self._progress, self._memory = kept.progress, kept.memory
        self._position = Position(self.potential, kept.previous)
        self._prior = kept.prior
        self._written.add(checksum_of(Path(path)))
        return self

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Which fit this is, as plain data: two with the same are the same fit."""
        return identity_of(self.view(), self.method, self.targets)
