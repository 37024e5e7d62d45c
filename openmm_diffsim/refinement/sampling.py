"""What is sampled in a round, from where, and what of it a step is made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..engine.job import Recording
from ..errors import TargetError
from ..io.temporary import discard, sweep, temporary_path
from ..limits import checked_whole
from ..potentials import flat_parameters
from ..samples import Samples
from .schedule import Schedule
from .state import State
from .workers import Elsewhere, Here, Task


class Frames:
    """Where the frames of a network are kept: beside the checkpoint, in a folder of its name.

    Those of a round lie in a temporary folder there, until they belong to a checkpoint.
    """

    def __init__(self, checkpoint: Path) -> None:
        self.folder = checkpoint.with_name(f"{checkpoint.stem}_frames").resolve()
        sweep(self.folder)

    def place(self, index: int, replica: int, number: int) -> Path:
        """For the frames of a state point's replica in a round: nothing of this name is there."""
        name = f"state_{index}" + (f"_replica_{replica}" if replica else "") + f"_round_{number}"
        while any(self.folder.glob(f"{name}[._]*dcd")):  # of an interrupted round
            name += "_again"
        return temporary_path(self.folder / f"round_{number}") / f"{name}.dcd"

    def tidy(self, states: Sequence[State]) -> None:
        """The frames of these states stay; no others do that are in a temporary folder."""
        for state in states:
            if state.pool is not None:
                state.pool.learned.keep()
        discard(self.folder)


@dataclass(frozen=True)
class Fresh:
    """Frames of a state point that came in a round, all sampled with the same parameters."""

    state: State
    samples: Samples
    parameters: Tensor


class Sampling:
    """Samples all state points of a fit, round by round, each replica from where it was.

    Parameters
    ----------
    states : sequence of State
    replicas : sequence of int
        Of each.
    runner : Here or Elsewhere
    staleness : int
        Rounds that the parameters of a frame may be behind when it comes; 0: a round waits for all.
    frames : Frames, optional
        Where configurations are kept, of a potential that needs them.
    """

    def __init__(
        self,
        states: Sequence[State],
        replicas: Sequence[int],
        runner: Here | Elsewhere,
        staleness: int = 0,
        frames: Frames | None = None,
    ) -> None:
        self._states = states
        self._runner = runner
        self._staleness = staleness
        self._frames = frames
        self._done: list[Task] = []  # of this round
        self._places = [(i, k) for i, n in enumerate(replicas) for k in range(n)]
        for state, n in zip(states, replicas, strict=True):
            state.replicas.begin(n)

    def round(
        self, schedule: Schedule, number: int, count: Callable[[int], None], all_of_them: bool
    ) -> list[Fresh]:
        """What came of runs at the present parameters, and of those sent off before.

        ``accept`` or ``reject`` it afterwards.

        Parameters
        ----------
        number : int
            Rounds before this one.
        count : callable
            Called with the number of MD steps taken since the last call.
        all_of_them : bool
            Wait for all, whatever the staleness is.

        Raises
        ------
        SamplingError, EquilibrationError
            As ``StatePoint.sample``. All runs that go on are given up.
        StatePointError
            If a state point is at another temperature or pressure than when the fit was made.
        WorkerError
            If a run could not be done several times in a row.
        """
        for state in self._states:
            state.check_conditions()
        self._done = []
        busy = {task.place for task in self._runner.running}
        for place in self._places:
            if place not in busy:
                self._runner.start(self._task(place, schedule, number))
        while self._waits(number, all_of_them):
            self._done += self._runner.finished(count)
            self._raise_first()
        return self._together()

    def _task(self, place: tuple[int, int], schedule: Schedule, number: int) -> Task:
        index, replica = place
        state = self._states[index]
        path = None if self._frames is None else self._frames.place(index, replica, number)
        return Task(
            place,
            number,
            state.state_point,
            state.replicas.texts[replica],
            _recording(state, schedule, number, path),
            flat_parameters(state.state_point.potential),
        )

    def _waits(self, number: int, all_of_them: bool) -> bool:
        """For more, before a step is made?

        Not for those that were sent off in one of the last rounds, where half of all have come, and
        there are frames of each state point.
        """
        running = self._runner.running
        if not running or all_of_them or not self._staleness:
            return bool(running)
        if any(task.number <= number - self._staleness for task in running):
            return True
        come = {task.place[0] for task in self._done}
        unknown = any(s.pool is None and i not in come for i, s in enumerate(self._states))
        return unknown or 2 * len(self._done) < len(self._places)

    def _raise_first(self) -> None:
        """The error of the first run that failed, once none before it goes on.

        So it is the same wherever they run.
        """
        failed = [task for task in self._done if task.error is not None]
        if not failed:
            return
        first = min(failed, key=lambda task: task.place)
        if self._staleness or all(task.place > first.place for task in self._runner.running):
            assert first.error is not None
            self._runner.abandon()
            raise first.error

    def _together(self) -> list[Fresh]:
        found: dict[tuple[int, int], list[Task]] = {}
        for task in sorted(self._done, key=lambda task: task.place):
            found.setdefault((task.place[0], task.number), []).append(task)
        return [
            Fresh(self._states[index], _pooled(tasks), tasks[0].parameters)
            for (index, _), tasks in sorted(found.items())
        ]

    def accept(self) -> None:
        """All replicas go on from where the runs of this round ended."""
        for index, state in enumerate(self._states):
            texts = list(state.replicas.texts)
            for task in self._done:
                if task.place[0] == index:
                    texts[task.place[1]] = task.end
            state.replicas.go_on(texts)
        self._done = []

    def reject(self) -> None:
        """All go on from where they were, with other random numbers; no run goes on."""
        self._runner.abandon()
        self._done = []
        for state in self._states:
            state.replicas.again()


def replicas_of(given: Any, states: Sequence[State]) -> list[int]:
    """How many of each state point, from one number or a mapping from StatePoint.

    Raises
    ------
    TargetError
        If a number is none that can be, or a state point is not of this fit.
    """
    if not isinstance(given, Mapping):
        return [checked_whole("replicas", given, TargetError)] * len(states)
    points = [state.state_point for state in states]
    for point in given:
        if not any(point is known for known in points):
            raise TargetError(
                f"replicas: got {point!r}, expected state points of targets of this fit", got=point
            )
    return [checked_whole("replicas", given.get(point, 1), TargetError) for point in points]


def _pooled(tasks: Sequence[Task]) -> Samples:
    parts = [task.samples for task in tasks if task.samples is not None]
    return parts[0] if len(parts) == 1 else Samples.pool(parts)


def _recording(state: State, schedule: Schedule, number: int, trajectory: Path | None) -> Recording:
    return Recording(
        schedule.steps,
        schedule.every,
        tuple(state.recorded()),
        schedule.lead(number),
        discard_transient=True,
        trajectory=trajectory,
    )
