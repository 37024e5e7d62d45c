"""One round's sampling of all state points, here or wherever an executor is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path

from ..engine.job import Recording, SamplingJob
from ..io.temporary import discard, sweep, temporary_path
from ..samples import Samples
from .schedule import Schedule
from .state import State


class Frames:
    """Where the frames of a network are kept: beside the checkpoint, in a folder of its name.

    Those of a round lie in a temporary folder there, until they belong to a checkpoint.
    """

    def __init__(self, checkpoint: Path) -> None:
        self.folder = checkpoint.with_name(f"{checkpoint.stem}_frames").resolve()
        sweep(self.folder)

    def place(self, index: int, number: int) -> Path:
        """For the frames of a state point in a round: nothing of this name is there."""
        name = f"state_{index}_round_{number}"
        while any(self.folder.glob(f"{name}[._]*dcd")):  # of an interrupted round
            name += "_again"
        return temporary_path(self.folder / f"round_{number}") / f"{name}.dcd"

    def tidy(self, states: Sequence[State]) -> None:
        """The frames of these states stay; no others do that are in a temporary folder."""
        for state in states:
            if state.pool is not None:
                state.pool.learned.keep()
        discard(self.folder)


def sample(
    states: Sequence[State],
    schedule: Schedule,
    number: int,
    count: Callable[[int], None],
    executor: Executor | None = None,
    frames: Frames | None = None,
) -> list[Samples]:
    """Of every state point, sampled here, one after the other, or wherever the executor is.

    Parameters
    ----------
    number : int
        Rounds before this one.
    count : callable
        Called with the number of MD steps taken since the last call.
    frames : Frames, optional
        Where configurations are kept, of a potential that needs them.

    Raises
    ------
    SamplingError, EquilibrationError
        As ``StatePoint.sample``.
    StatePointError
        If a state point is at another temperature or pressure than when the fit was made.
    """
    for state in states:
        state.check_conditions()
    pairs = []
    for index, state in enumerate(states):
        place = None if frames is None else frames.place(index, number)
        pairs.append((state.state_point, _recording(state, schedule, number, place)))
    if executor is None:
        found = [point.sample(**vars(plan), progress=count) for point, plan in pairs]
    else:
        jobs = [SamplingJob.of(*pair) for pair in pairs]
        running = [executor.submit(job.run) for job in jobs]
        found = []
        for pair, future in zip(pairs, running, strict=True):
            result = future.result()
            count(result.md_steps)
            found.append(result.take(*pair))
    return [replace(s, floor=min(s.floor, 0.5 * len(s))) for s in found]


def _recording(state: State, schedule: Schedule, number: int, trajectory: Path | None) -> Recording:
    return Recording(
        schedule.steps,
        schedule.every,
        tuple(state.recorded()),
        schedule.lead(number),
        discard_transient=True,
        trajectory=trajectory,
    )
