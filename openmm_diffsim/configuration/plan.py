"""What a configuration would do, what that costs, and what looks suspicious, before it runs."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DiffsimError, one_line
from ..refinement import Refinement
from ..refinement.schedule import Schedule
from .toml import Configuration

_TRIAL = 5  # frames that are timed
_FEW_FRAMES = 40  # a round, of each state point
_LONG = 3600.0  # seconds
_MUCH = 2**31  # bytes
_BEYOND = 1.05  # of the range of what was measured, that a potential may reach


@dataclass(frozen=True)
class StatePlan:
    """What would be sampled at a state point."""

    name: str
    particles: int
    temperature: float  # K
    pressure: float | None  # bar
    platform: str
    why_no_theory: str
    replicas: int = 1
    seconds_per_step: float = float("nan")  # recording included
    bytes_per_frame: float = float("nan")
    trouble: str = ""
    """What ended a trial."""

    def __str__(self) -> str:
        at = "constant volume" if self.pressure is None else f"{self.pressure:g} bar"
        speed = f", {1 / self.seconds_per_step:.0f} steps/s" if self.seconds_per_step > 0 else ""
        several = f", {self.replicas} replicas" if self.replicas > 1 else ""
        return (
            f"{self.name}: {self.particles} particles, {self.temperature:g} K, {at}, "
            f"{self.platform}{several}{speed}"
        )


@dataclass(frozen=True)
class Plan:
    """Of a whole configuration."""

    states: tuple[StatePlan, ...]
    parameters: int
    potential: str
    targets: tuple[str, ...]
    schedule: Schedule
    method: str
    workers: int
    output: Path
    remarks: tuple[str, ...]
    """What is suspicious, a sentence each."""

    @property
    def md_steps(self) -> int:
        """Of all state points, at most: a fit ends when it has converged."""
        return self.schedule.steps_after(0) * sum(s.replicas for s in self.states)

    @property
    def frames(self) -> int:
        """Of all state points, at most."""
        return self._frames_of_one * sum(s.replicas for s in self.states)

    @property
    def _frames_of_one(self) -> int:
        return self.schedule.rounds * (self.schedule.steps // self.schedule.every)

    @property
    def bytes(self) -> float:
        """That all frames take in memory, and about what a checkpoint takes; NaN: not tried."""
        return self._frames_of_one * sum(s.replicas * s.bytes_per_frame for s in self.states)

    @property
    def seconds(self) -> float:
        """Of MD, at most; NaN: not tried."""
        runs = sum(s.replicas for s in self.states)
        of_all = sum(s.replicas * s.seconds_per_step for s in self.states)
        return self.schedule.steps_after(0) * of_all / min(self.workers, runs)

    def text(self) -> str:
        """For a terminal."""
        lines = ["State points"]
        lines += [f"  {state}" for state in self.states]
        lines += ["Learned", f"  {self.potential}: {self.parameters} parameters", "Targets"]
        lines += [f"  {target}" for target in self.targets]
        s = self.schedule
        lines += [
            "Fit",
            f"  {self.method}, at most {s.rounds} rounds of {s.steps} steps, a frame every "
            f"{s.every}: {self.md_steps} MD steps, {self.frames} frames",
            f"  {self._cost()}, results in {self.output}",
        ]
        lines += ["Suspicious", *(f"  - {text}" for text in self.remarks)] if self.remarks else []
        return "\n".join(lines)

    def _cost(self) -> str:
        if np.isnan(self.seconds):
            return "time and memory not tried"
        return f"at most {_duration(self.seconds)} of MD, {_size(self.bytes)} of frames"


def plan(
    configuration: Configuration, fit: Refinement, notes: Sequence[str], trial: bool = True
) -> Plan:
    """What ``fit``, built from the configuration, would do; ``notes`` were told while building.

    With a trial, a few frames of each state point are sampled, and timed.
    """
    section = configuration.refine
    schedule = Schedule(section.rounds, section.steps, section.every, section.equilibration)
    pairs = zip(fit.states, fit.replicas, strict=True)
    states = tuple(_state_plan(state, replicas, schedule, trial) for state, replicas in pairs)
    made = Plan(
        states,
        len(fit.view().parameters),
        " + ".join(term.name for term in fit.potential.addends()),
        tuple(_target_line(target) for target in fit.targets),
        schedule,
        section.method,
        (section.workers or os.cpu_count() or 1) if section.executor != "here" else 1,
        section.output,
        (),
    )
    remarks = [*notes, *_suspicious(configuration, fit, made)]
    told = dict.fromkeys(text.removeprefix("warning: ") for text in remarks)
    return Plan(**{**vars(made), "remarks": tuple(told)})


def _state_plan(state: Any, replicas: int, schedule: Schedule, trial: bool) -> StatePlan:
    point = state.state_point
    made = {
        "name": point.name,
        "particles": point.simulation.system.getNumParticles(),
        "temperature": state.temperature,
        "pressure": state.pressure,
        "platform": point.simulation.context.getPlatform().getName(),
        "why_no_theory": state.why_no_theory,
        "replicas": replicas,
    }
    return StatePlan(**made, **(_tried(state, schedule) if trial else {}))


def _tried(state: Any, schedule: Schedule) -> dict[str, Any]:
    """Time and memory of a frame; or what went wrong. Compiling counts for nothing."""
    point, record, every = state.state_point, state.recorded(), schedule.every
    try:
        point.sample(every, every, record)
        start = time.perf_counter()
        samples = point.sample(_TRIAL * every, every, record)
        seconds = time.perf_counter() - start
    except DiffsimError as error:
        return {"trouble": one_line(str(error))}
    arrays = samples.arrays(record, Path())
    size = sum(a.nbytes for a in arrays.values() if a.ndim and len(a) == _TRIAL) / _TRIAL
    return {"seconds_per_step": seconds / (_TRIAL * every), "bytes_per_frame": size}


def _target_line(target: Any) -> str:
    where = ", ".join(dict.fromkeys(point.name for point in target.state_points))
    if target.x is None:
        values = ", ".join(f"{value:g}" for value in target.values)
        error = ", ".join(f"{value:.2g}" for value in target.uncertainty)
        what = f"{values} +/- {error} {target.observable.unit}".rstrip()
    else:
        what = (
            f"{len(target.values)} points from {target.x[0]:.3g} to {target.x[-1]:.3g}, "
            f"uncertainty {np.median(target.uncertainty):.2g}"
        )
    path = getattr(target.curve, "path", None)
    source = "" if path is None else f", {Path(path).name}"
    return f"{target.observable.label} of {where}: {what}{source}"


def _suspicious(configuration: Configuration, fit: Refinement, made: Plan) -> list[str]:
    found = fit.warnings()
    found += [f"{s.name}: a trial ended: {s.trouble}" for s in made.states if s.trouble]
    sampled = {state.state_point.name for state in fit.states}
    sampled |= {name for entry in configuration.targets for name in entry.states}
    found += [
        f"{state.name} has no target: it will not be sampled"
        for state in configuration.states
        if state.name not in sampled
    ]
    per_round = made.schedule.steps // made.schedule.every
    if per_round < _FEW_FRAMES:
        found.append(
            f"refine.steps and refine.every: {per_round} frames a round tell little of noise; "
            f"take {_FEW_FRAMES} or more"
        )
    found += [
        f"{s.name}: the Reference platform is slow; take CPU, OpenCL or CUDA"
        for s in made.states
        if s.platform == "Reference"
    ]
    return found + _ranges(fit) + _too_much(made)


def _ranges(fit: Refinement) -> list[str]:
    """Where a potential reaches beyond what is measured: there the prior decides."""
    ends = [t.x[-1] for t in fit.targets if t.observable.is_structure and t.x is not None]
    if not ends:
        return []
    return [
        f"{pair.name} reaches to {pair.basis.cutoff:.3g} nm, but g(r) is given to {max(ends):.3g} "
        "nm: beyond, only other targets and the prior say something; take a shorter cutoff"
        for _, pair in fit.potential.pairs()
        if pair.basis.cutoff > _BEYOND * max(ends)
    ]


def _too_much(made: Plan) -> list[str]:
    found = []
    if made.seconds > _LONG:
        found.append(f"it may take {_duration(made.seconds)}: it can be interrupted and resumed")
    if made.bytes > _MUCH:
        found.append(f"frames may take {_size(made.bytes)}: fewer rounds, or a larger every")
    return found


def _duration(seconds: float) -> str:
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds > 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _size(n: float) -> str:
    for size, unit in ((2**30, "GB"), (2**20, "MB"), (2**10, "kB")):
        if n > size:
            return f"{n / size:.1f} {unit}"
    return f"{n:.0f} bytes"
