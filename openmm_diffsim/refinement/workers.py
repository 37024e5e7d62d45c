"""Where runs are done: here, or wherever an executor has its workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ..engine.baths import conditions
from ..engine.job import Recording, SamplingJob, SamplingResult
from ..engine.processes import Processes
from ..errors import DiffsimError, TargetError, WorkerError, one_line
from ..limits import checked_whole
from ..samples import Samples

_MOST_FAILURES = 8  # of one run, in a row
_CONNECT = 30.0  # seconds


@dataclass(eq=False)
class Task:
    """One run of one replica, and what became of it."""

    place: tuple[int, int]  # state point, replica
    number: int  # of the round that it was sent off in
    state_point: Any
    text: Any  # where it begins
    recording: Recording
    parameters: Tensor
    failures: int = 0
    samples: Samples | None = None
    end: Any = None  # the text that it ended at
    md_steps: int = 0
    error: DiffsimError | None = None
    """Why the run itself, not the worker, failed."""

    def done(self, samples: Samples, end: Any) -> None:
        """It went well."""
        self.samples, self.end = replace(samples, floor=min(samples.floor, 0.5 * len(samples))), end

    def __str__(self) -> str:
        index, replica = self.place
        where = conditions(self.state_point.temperature, self.state_point.pressure)
        return f"state point {index} at {where}" + (f", replica {replica}" if replica else "")


class Here:
    """Does runs one after the other, in the Simulations themselves."""

    def __init__(self) -> None:
        self.running: list[Task] = []

    def start(self, task: Task) -> None:
        """Do it when ``finished`` is called."""
        self.running.append(task)

    def finished(self, count: Callable[[int], None]) -> list[Task]:
        """The next one, which is done now; ``count`` is told its steps."""
        task = self.running.pop(0)
        point = task.state_point
        point.apply()
        point.deserialize(task.text)
        try:
            samples = point.sample(**vars(task.recording), progress=count)
        except DiffsimError as error:
            task.error = error
        else:
            task.done(samples, point.serialize())
        return [task]

    def abandon(self) -> None:
        """Do none of the others."""
        self.running = []


class Elsewhere:
    """Has runs done by an executor, and again, from where they began, when a worker was lost."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._futures: dict[Future[Any], Task] = {}
        self._known: set[str] = set()  # keys of blueprints that some worker has

    @property
    def running(self) -> list[Task]:
        """What is not finished."""
        return list(self._futures.values())

    def start(self, task: Task, whole: bool | None = None) -> None:
        """Send it off; ``whole``: with the blueprint, by default where no worker has it."""
        job = SamplingJob.of(task.state_point, self._recording(task), task.text, whole=False)
        if whole or (whole is None and job.key not in self._known):
            job = job.with_blueprint(task.state_point)
            self._known.add(job.key)
        try:
            self._futures[self._executor.submit(job.run)] = task
        except Exception as error:
            self._again(task, error)

    def finished(self, count: Callable[[int], None]) -> list[Task]:
        """Those that finished since, at least one; ``count`` is told their steps.

        Raises
        ------
        WorkerError
            If a run could not be done several times in a row.
        """
        found: list[Task] = []
        while self._futures and not found:
            done, _ = wait(self._futures, return_when=FIRST_COMPLETED)
            for future in sorted(done, key=lambda each: self._futures[each].place):
                task = self._futures.pop(future)
                if self._received(future, task):
                    count(task.md_steps)
                    found.append(task)
        return found

    def _received(self, future: Future[Any], task: Task) -> bool:
        """Take what came; False where it has to be done again."""
        try:
            result: SamplingResult | None = future.result()
        except DiffsimError as error:
            task.error = error
            return True
        except (Exception, CancelledError) as error:
            self._again(task, error)
            return False
        if result is None:  # one that has not the Context
            self.start(task, whole=True)
            return False
        task.done(result.samples(task.state_point, task.recording), result.state)
        task.md_steps = result.md_steps
        return True

    def _again(self, task: Task, error: BaseException) -> None:
        task.failures += 1
        if task.failures >= _MOST_FAILURES:
            raise WorkerError(
                f"{task}: {task.failures} workers in a row did not finish its run; the last: "
                f"{type(error).__name__}: {error}. Look at what the workers wrote; do they have "
                "memory enough, the platform, and all that your script imports? A script that uses "
                'processes has to begin its work under `if __name__ == "__main__":`',
                place=task.place,
                failures=task.failures,
            ) from error
        self.start(task, whole=True)

    def _recording(self, task: Task) -> Recording:
        """What to sample; where a lost worker may still write frames, no other attempt does."""
        path = task.recording.trajectory
        if path is not None and task.failures:
            path = path.with_name(f"{path.stem}_attempt_{task.failures + 1}{path.suffix}")
            task.recording = replace(task.recording, trajectory=path)
        return task.recording

    def abandon(self) -> None:
        """Wait for none of them any more."""
        for future in self._futures:
            future.cancel()
        self._futures = {}


def check_executor(given: Any, workers: int | None) -> None:
    """TargetError where it is nothing that has workers, or has no number of them."""
    if workers is not None:
        checked_whole("workers", workers, TargetError)
        if given != "processes":
            raise TargetError(
                f'workers = {workers}: only executor = "processes" has a number of workers, got '
                f"executor = {given!r}",
                got=workers,
            )
    if isinstance(given, str):
        is_known = given in ("here", "processes") or "://" in given
    else:
        is_known = callable(getattr(given, "submit", None))
    if not is_known:
        raise TargetError(
            f'executor: expected "here", "processes", the address of a Dask scheduler such as '
            f'"tcp://host:8786", a Dask Client or a concurrent.futures.Executor, got {given!r}',
            got=given,
        )


@contextmanager
def opened(given: Any, workers: int | None) -> Iterator[Here | Elsewhere]:
    """Where runs are done meanwhile; what was made for that ends afterwards, however that is.

    Raises
    ------
    TargetError
        If nobody answers at an address.
    """
    with ExitStack() as stack:
        if isinstance(given, str) and given == "here":
            yield Here()
            return
        if isinstance(given, str) and given == "processes":
            given = Processes(workers)
            stack.callback(given.shutdown, cancel_futures=True)
        elif isinstance(given, str):
            given = stack.enter_context(_connected(given))
        if callable(getattr(given, "get_executor", None)):  # a Dask Client
            given = given.get_executor(pure=False, retries=0)
        runner = Elsewhere(given)
        stack.callback(runner.abandon)
        yield runner


def _connected(address: str) -> Any:
    """A Dask Client."""
    try:
        from distributed import Client
    except ImportError as error:
        raise TargetError(
            f"executor: {address} is the address of a Dask scheduler, but there is no "
            "distributed here: pip install 'openmm-diffsim[workers]'",
            got=address,
        ) from error
    try:
        return Client(address, timeout=_CONNECT, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise TargetError(
            f"executor: no Dask scheduler answers at {address} ({one_line(str(error), 200)}); is "
            "it running, and can it be reached from here?",
            got=address,
        ) from error
