"""Runs that workers do: none is lost, and what comes of them does not depend on who did them."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import killed
import liquids
import numpy as np
import openmm
import pytest
import torch
from fake_statepoint import FakeStatePoint
from killed import Murderous
from test_executor import Here, everything, pair_fit, run, where_it_is
from test_loop import KELVIN, LENGTH, parameters, target_of, wrong

from openmm_diffsim import Processes, Refinement, StatePoint, configure_worker
from openmm_diffsim.engine.job import Blueprint, Recording, SamplingJob
from openmm_diffsim.engine.worker import Device, kept
from openmm_diffsim.errors import StatePointError, TargetError, WorkerError
from openmm_diffsim.potentials import flat_parameters, set_flat_parameters
from openmm_diffsim.refinement import loop
from openmm_diffsim.refinement.checkpoint import read_checkpoint
from openmm_diffsim.refinement.workers import Here as InTurn
from openmm_diffsim.refinement.workers import Task


@pytest.fixture(scope="module")
def workers() -> Iterator[Processes]:
    with Processes(2, start="forkserver") as pool:
        yield pool


@pytest.fixture(scope="module")
def here() -> list[Any]:
    """Two state points, two replicas of each, one after the other in their Simulations."""
    return everything(run(pair_fit(1.5, 2.5, replicas=2)))


# The same wherever --------------------------------------------------------------------------------


def test_processes_give_what_one_does(workers: Processes, here: list[Any]) -> None:
    assert everything(run(pair_fit(1.5, 2.5, replicas=2, executor=workers))) == here


def test_processes_of_its_own_end_with_the_run(here: list[Any]) -> None:
    fit = run(pair_fit(1.5, 2.5, replicas=2, executor="processes", workers=2))
    assert everything(fit) == here
    assert not [child for child in children(os.getpid()) if b"spawn_main" in command(child)]


def test_workers_of_dask_give_what_one_does(here: list[Any]) -> None:
    distributed = pytest.importorskip("distributed", reason="Dask is not installed")
    options = {"processes": True, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(n_workers=2, **options) as cluster:
        address = cluster.scheduler_address
        assert everything(run(pair_fit(1.5, 2.5, replicas=2, executor=address))) == here
        with distributed.Client(cluster) as client:
            fit = pair_fit(1.5, 2.5, replicas=2, executor=client)
            assert everything(run(fit)) == here
            assert client.run(os.getpid)  # it is the caller's, and still open


def test_threads_do_one_run_at_a_time(here: list[Any]) -> None:
    """All Contexts of a process that are on Reference share their random numbers."""
    with ThreadPoolExecutor(4) as pool:
        assert everything(run(pair_fit(1.5, 2.5, replicas=2, executor=pool))) == here


def pressurized(**options: Any) -> Refinement:
    """Under a barostat, on the CPU platform with one thread."""
    pair = liquids.lennard_jones(epsilon=0.7 * liquids.EPSILON, knots=30)

    def squeeze(system: openmm.System) -> None:
        system.addForce(openmm.MonteCarloBarostat(400.0, liquids.kelvin(2.0), 10))

    point = StatePoint(liquids.simulation(pair, 100, 0.3, 2.0, prepare=squeeze), pair)
    return Refinement(pair, [target_of(point)], **options)  # type: ignore[arg-type]


def test_so_do_they_under_a_barostat_on_a_cpu(workers: Processes) -> None:
    """It has random numbers and a step of its own, which are in no checkpoint."""
    first = pressurized(replicas=2)
    begin = first.states[0].state_point.serialize()
    second = pressurized(replicas=2, executor=workers)
    first.states[0].state_point.deserialize(begin)
    ours = everything(run(first, 2))
    second.states[0].state_point.deserialize(begin)
    assert everything(run(second, 2)) == ours
    volumes = first.states[0].frames.volume
    assert np.ptp(volumes) > 1e-3 * volumes.mean()


# What a worker keeps ------------------------------------------------------------------------------


class Watching(Here):
    """Does everything at once, as if it came by wire, and remembers how much that was."""

    def __init__(self) -> None:
        self.sizes: list[tuple[bool, int, int]] = []

    def submit(self, call: Any, /, *arguments: Any, **options: Any) -> Future[Any]:
        text = pickle.dumps(call)
        done = super().submit(pickle.loads(text), *arguments, **options)
        back = len(pickle.dumps(done.result()))
        self.sizes.append((call.__self__.blueprint is not None, len(text), back))
        return done


def test_after_the_first_run_parameters_and_a_state_are_enough(
    monkeypatch: pytest.MonkeyPatch, here: list[Any]
) -> None:
    made, build = [], Blueprint.build
    monkeypatch.setattr(Blueprint, "build", lambda *a: made.append(1) or build(*a))
    executor = Watching()
    fit = run(pair_fit(1.5, 2.5, replicas=2, executor=executor))
    assert everything(fit) == here
    assert len(made) == 2  # state points; replicas share a Context
    assert [whole for whole, _, _ in executor.sizes] == [True, False, True, False] + 8 * [False]
    state = len(fit.states[0].replicas.texts[0]["state"]) * 2
    assert max(size for whole, size, _ in executor.sizes if not whole) < state + 8000


def test_a_worker_that_lost_its_contexts_is_told_again(here: list[Any]) -> None:
    class Forgetful(Watching):
        def submit(self, call: Any, /, *arguments: Any, **options: Any) -> Future[Any]:
            if len(self.sizes) % 3 == 2:
                kept.drop()
            return super().submit(call, *arguments, **options)

    executor = Forgetful()
    assert everything(run(pair_fit(1.5, 2.5, replicas=2, executor=executor))) == here
    assert sum(whole for whole, _, _ in executor.sizes) > 4


def test_a_thermostat_that_is_set_anew_makes_another_context() -> None:
    (state,) = pair_fit(1.5).states
    point, plan = state.state_point, Recording(20, 10)
    before = SamplingJob.of(point, plan).key
    point.sample(20, 10)
    with torch.no_grad():
        for parameter in point.potential.parameters():
            parameter *= 1.01
    point.serialize()
    assert SamplingJob.of(point, plan).key == before
    point.simulation.integrator.setTemperature(200.0)
    assert SamplingJob.of(point, plan).key != before


def test_where_a_worker_runs_can_be_told() -> None:
    (state,) = pair_fit(1.5).states
    job = SamplingJob.of(state.state_point, Recording(20, 10))
    assert job.blueprint is not None
    for device, name, threads in (
        (Device(), "Reference", None),
        (Device("CPU"), "CPU", None),
        (Device("CPU", 3, "1"), "CPU", "3"),
    ):
        context = job.blueprint.build(device).simulation.context
        platform = context.getPlatform()
        assert platform.getName() == name
        if threads:
            assert platform.getPropertyValue(context, "Threads") == threads
    cpu = openmm.Platform.getPlatform("CPU")
    assert Device(threads=4).properties(cpu, {"Threads": "2"})["Threads"] == "2"
    assert Device(threads=1).properties(cpu, {"Threads": "2"})["Threads"] == "1"
    try:
        with pytest.raises(StatePointError, match=r"no platform 'Cuda', expected one of Ref"):
            configure_worker("Cuda")
    finally:
        configure_worker()


# Replicas -----------------------------------------------------------------------------------------


def test_replicas_are_runs_of_their_own() -> None:
    fit = run(pair_fit(2.5, replicas=3), 1)
    (state,) = fit.states
    energies = [part.run_energies() for part in state.frames.each_run()]
    assert len(energies) == 3
    least = min(map(len, energies))
    rows = np.array([e[-least:] for e in energies])
    correlation = np.corrcoef(rows)[np.triu_indices(3, 1)]
    assert np.abs(correlation).max() < 4 / np.sqrt(least / 2)  # frames are not independent
    assert len({text["state"] for text in state.replicas.texts}) == 3
    assert where_it_is(state.state_point)[2] == int(state.replicas.texts[0]["step"]) >= 450


def test_replicas_of_one_state_point_alone() -> None:
    pair = liquids.lennard_jones(knots=30)
    points = [
        StatePoint(liquids.simulation(pair, 32, 0.3, t, platform="Reference"), pair)
        for t in (1.5, 2.5)
    ]
    targets = [target_of(point) for point in points]  # type: ignore[arg-type]
    fit = Refinement(pair, targets, replicas={points[1]: 3})
    assert fit.replicas == [1, 3]
    run(fit, 1)
    assert [len(state.frames.runs) for state in fit.states] == [1, 3]
    with pytest.raises(TargetError, match="expected state points of targets of this fit"):
        Refinement(pair, targets[:1], replicas={points[1]: 3})


@pytest.mark.parametrize("executor", ["here", "workers"])
def test_a_resumed_fit_of_replicas_is_the_same(
    executor: str, workers: Processes, here: list[Any], tmp_path: Path
) -> None:
    options: dict[str, Any] = {"replicas": 2, "checkpoint": tmp_path / "fit.npz"}
    if executor == "workers":
        options["executor"] = workers
    run(pair_fit(1.5, 2.5, **options), 2)
    again = pair_fit(1.5, 2.5, **options).resume(tmp_path / "fit.npz")
    assert [len(state.last.runs) for state in again.states if state.last] == [2, 2]
    assert everything(run(again)) == here
    assert everything(pair_fit(1.5, 2.5, **options).resume(tmp_path / "fit.npz")) == here


def test_a_simulation_that_was_moved_is_where_all_replicas_begin() -> None:
    fit = run(pair_fit(1.5, replicas=2), 1)
    (state,) = fit.states
    before = list(state.replicas.texts)
    state.replicas.begin(2)
    assert state.replicas.texts == before
    state.state_point.simulation.step(1)
    state.replicas.begin(2)
    x = where_it_is(state.state_point)[0]
    for text in state.replicas.texts:
        state.state_point.deserialize(text)
        assert where_it_is(state.state_point)[0] == x


# Workers that are lost ----------------------------------------------------------------------------


def test_a_run_whose_worker_was_killed_is_done_again(
    workers: Processes, here: list[Any], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    executor = Murderous(workers, 0.5, log, longest=0.02)
    assert everything(run(pair_fit(1.5, 2.5, replicas=2, executor=executor))) == here
    assert log.read_text().count("worker") >= 2


class Failing(Here):
    """Workers that fail, in a share of all calls."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._random = np.random.default_rng(1)

    def submit(self, call: Any, /, *arguments: Any, **options: Any) -> Future[Any]:
        if self._random.random() >= self._share:
            return super().submit(call, *arguments, **options)
        failed: Future[Any] = Future()
        failed.set_exception(OSError("no route to host"))
        return failed


def test_a_state_point_that_nobody_can_sample_is_named(here: list[Any]) -> None:
    assert everything(run(pair_fit(1.5, 2.5, replicas=2, executor=Failing(0.3)))) == here
    what = r"state point 0 at 179\.\d+ K.*8 workers in a row.*OSError: no route to host"
    with pytest.raises(WorkerError, match=what) as error:
        run(pair_fit(1.5, 2.5, executor=Failing(1.0)))
    assert (error.value.place, error.value.failures) == ((0, 0), 8)


def test_an_executor_that_is_none_is_refused() -> None:
    for wrong_one in ("everywhere", 3, None):
        with pytest.raises(TargetError, match=r'executor: expected "here", "processes"'):
            pair_fit(1.5, executor=wrong_one)
    with pytest.raises(TargetError, match="workers = 2: only executor"):
        pair_fit(1.5, workers=2)
    for name in ("replicas", "staleness"):
        with pytest.raises(TargetError, match=f"{name}: got -1, expected a whole number"):
            pair_fit(1.5, **{name: -1})


def test_a_hundred_kills_change_nothing(
    tmp_path: Path, rounds: int = 20, share: float = 0.7, coordinators: int = 7, least: int = 100
) -> None:
    """Of workers, and of the process that gives them their work."""
    expected = everything(killed.run(killed.fit(), rounds))
    rng = np.random.default_rng(3)
    log, checkpoint = tmp_path / "log", tmp_path / "fit.npz"
    log.touch()
    done = 0
    for seed in range(coordinators + 1):
        calls = rng.integers(4, 30) if seed < coordinators else 0  # of a run, or to do it again
        arguments = [str(tmp_path), *map(str, (rounds, share, seed, calls))]
        script = str(Path(killed.__file__))
        ended = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True)
        assert ended.returncode in (0, -signal.SIGKILL), ended.stderr
        if checkpoint.exists():
            before, done = done, len(read_checkpoint(checkpoint)[0]["progress"]["history"])
            assert done >= before
        if ended.returncode == 0:
            break
    assert done == rounds
    assert log.read_text().count("\n") >= least
    again = killed.fit().resume(checkpoint)
    assert everything(killed.run(again, rounds)) == expected


# Nothing is left ----------------------------------------------------------------------------------

_SCRIPT = """
import sys
import killed
if __name__ == "__main__":
    mine = killed.fit(checkpoint=sys.argv[1], executor="processes", workers=2)
    mine.run(10_000, 100, 10, progress=False)
"""


def children(session: int) -> list[int]:
    """Processes of a session that are there."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, *fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == session and state not in "ZX" and int(path.parent.name) != session:
            found.append(int(path.parent.name))
    return found


def command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_its_coordinator(tmp_path: Path, number: signal.Signals) -> None:
    checkpoint = tmp_path / "fit.npz"
    process = subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, str(checkpoint)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        wait_for(lambda: checkpoint.exists() or process.poll() is not None)
        assert len(children(process.pid)) >= 2
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as the keyboard does
        else:
            process.send_signal(number)
        _, said = process.communicate(timeout=60)
        assert said.count("Traceback") == (number == signal.SIGINT), said
        wait_for(lambda: not children(process.pid))
    finally:
        process.kill()


def wait_for(what: Any, seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


# A round that does not wait for the slowest -------------------------------------------------------


class Late(InTurn):
    """Does runs in any order, at the parameters they were sent off with; one is always last."""

    def __init__(self, potential: Any) -> None:
        super().__init__()
        self._potential = potential
        self._random = np.random.default_rng(5)
        self._newest = 0
        self.behind: list[int] = []

    def finished(self, count: Any) -> list[Task]:
        slow = [task for task in self.running if task.place == (0, 1)]
        others = [task for task in self.running if task.place != (0, 1)]
        chosen = others[self._random.integers(len(others))] if others else slow[0]
        self.running.remove(chosen)
        self.running.insert(0, chosen)
        self._newest = max(self._newest, *(task.number for task in self.running), 0)
        self.behind.append(self._newest - chosen.number)
        now = flat_parameters(self._potential)
        try:
            self._set(chosen.parameters)
            return super().finished(count)
        finally:
            self._set(now)

    def _set(self, theta: torch.Tensor) -> None:
        set_flat_parameters(self._potential, theta)


def late_fit(monkeypatch: pytest.MonkeyPatch, staleness: int) -> tuple[Refinement, Late]:
    pair = wrong()
    targets = [target_of(FakeStatePoint(pair, t, LENGTH)) for t in (KELVIN, 1.5 * KELVIN)]
    fit = Refinement(pair, targets, replicas=2, staleness=staleness)
    runner = Late(pair)
    monkeypatch.setattr(loop, "opened", lambda *_: nullcontext(runner))
    return fit, runner


@pytest.mark.parametrize("staleness", [0, 1, 3])
def test_frames_that_come_late_lead_to_the_same(
    monkeypatch: pytest.MonkeyPatch, staleness: int
) -> None:
    fit, runner = late_fit(monkeypatch, staleness)
    fit.run(12, 1000, 1, progress=False)
    assert min(staleness, 1) <= max(runner.behind) <= staleness
    errors = fit.parameter_table().standard_error
    truth = flat_parameters(liquids.lennard_jones()).numpy()
    assert np.all(np.abs(parameters(fit) - truth) < 4 * errors), (parameters(fit), truth, errors)
    assert np.all(errors < 0.2 * np.abs(truth))


def test_a_round_does_not_wait_for_the_slowest(monkeypatch: pytest.MonkeyPatch) -> None:
    fit, runner = late_fit(monkeypatch, 2)
    fit.largest_step = 0.2
    coefficients = []
    propose = fit.method.propose

    def spied(view: Any) -> Any:
        coefficients.append([len(state.frames.runs) for state in view.states])
        return propose(view)

    monkeypatch.setattr(fit.method, "propose", spied, raising=False)
    fit.run(4, 500, 1, progress=False)
    assert 2 <= sum(coefficients[0]) < 4
    assert max(runner.behind) >= 1
    sampled = [[run.coefficients.tobytes() for run in state.frames.runs] for state in fit.states]
    assert len(set(sampled[0])) > 1
