"""A fit goes on after any interruption as if there had been none; a bad checkpoint is refused."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import liquids
import numpy as np
import openmm
import pytest
import torch
from liquids import CUTOFF, EPSILON, SIGMA

from openmm_diffsim import (
    RDF,
    GaussNewton,
    Pressure,
    Refinement,
    SplinePair,
    StatePoint,
    Target,
    TorchOptimizer,
)
from openmm_diffsim.errors import CheckpointError
from openmm_diffsim.io.archive import Archive, from_data
from openmm_diffsim.refinement import FitView, Step
from openmm_diffsim.refinement.checkpoint import CHECKPOINT, read_checkpoint

N, DENSITY, TEMPERATURE = 32, 0.3, 1.5
REACH = 2.3 * SIGMA
STEPS, EVERY = 300, 10
R = np.linspace(0.9 * SIGMA, REACH - 0.02, 30)


class OnceBad(GaussNewton):
    """Gauss-Newton whose first update is a mistake, so that the second round is rolled back."""

    def propose(self, view: FitView) -> Step:
        step = super().propose(view)
        if len(view.states[0].frames.runs) > 1:
            return step
        change = np.array([step.change[0], 8 * EPSILON - float(view.parameters[1])])
        return replace(step, change=change)


METHODS: dict[str, Callable[[], Any]] = {
    "gauss-newton": lambda: "gauss-newton",
    "adam": lambda: "adam",
    "a rolled back round": OnceBad,
}


def curve() -> np.ndarray:
    """A g(r) to fit: exp(-u/kT) of a well that is deeper than the first guess's."""
    u = liquids.lennard_jones().energy(R).detach().numpy()[0]
    return np.exp(-u / (TEMPERATURE * EPSILON))


def lennard_jones() -> Any:
    return liquids.lennard_jones(epsilon=0.7 * EPSILON, knots=30)


def make(
    method: Any = "gauss-newton",
    pair: Any = None,
    *,
    platform: str = "Reference",
    n: int = N,
    temperature: float = TEMPERATURE,
    density: float = DENSITY,
    prepare: Callable[[openmm.System], None] | None = None,
    atoms: Any = None,
    g: Any = None,
    uncertainty: Any = 0.004,
    weight: float = 1.0,
    reach: float = REACH,
    seed: int = 2,
    checkpoint: Path | None = None,
) -> Refinement:
    """A fit of everything new: potential, System, Context, targets, method."""
    pair = lennard_jones() if pair is None else pair
    types = None if pair.n_types == 1 else [i % 2 for i in range(n)]
    sim = liquids.simulation(
        pair,
        n,
        density,
        temperature,
        seed=seed,
        platform=platform,
        types=types,
        prepare=prepare,
    )
    point = StatePoint(sim, pair)
    target = Target(
        point,
        RDF(reach, 30, atoms=atoms),
        R,
        curve() if g is None else g,
        uncertainty=uncertainty,
        weight=weight,
    )
    largest = np.inf if isinstance(method, OnceBad) else 1.0
    return Refinement(pair, [target], method, checkpoint=checkpoint, largest_step=largest)


def run(fit: Refinement, rounds: int) -> Refinement:
    return fit.run(rounds, STEPS, EVERY, progress=False)


def everything(fit: Refinement) -> dict[str, Any]:
    """All that a fit consists of but the time it took, comparable to the last bit."""
    state, believed = fit.states[0], fit._position.believed
    context = state.state_point.simulation.context.getState(getPositions=True, getVelocities=True)
    found: dict[str, Any] = {
        "history": [asdict(entry) | {"seconds": 0} for entry in fit.history],
        "numbers": [fit.converged, fit.md_steps, asdict(fit._progress.trust)],
        "step": state.state_point.simulation.currentStep,
        "positions": context.getPositions(asNumpy=True)._value.tobytes(),
        "velocities": context.getVelocities(asNumpy=True)._value.tobytes(),
        "force": openmm.XmlSerializer.serialize(state.state_point.attached.force),
        "method": moments(fit),
        "believed": None if believed is None else believed.numpy().tobytes(),
    }
    for name, value in [*fit.potential.named_parameters(), *fit.potential.named_buffers()]:
        found[name] = value.detach().numpy().tobytes()
    if state.pool is not None:
        found["sums"] = state.pool.features.tobytes()
        found["last"] = None if state.last is None else state.last.features.tobytes()
        found["records"] = [a.tobytes() for a in state.pool.records.values()]
    return found


def moments(fit: Refinement) -> dict[str, bytes]:
    """What its optimizer remembers of each parameter, by their numbers and names."""
    return {
        f"{index}/{name}": torch.as_tensor(value).numpy().tobytes()
        for index, entry in fit._memory.items()
        for name, value in entry.items()
    }


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    different = [key for key in one if one[key] != other[key]]
    assert not different, different


def assert_same_content(one: Path, other: Path) -> None:
    """Of two checkpoints, but for the time it took."""

    def content(path: Path) -> dict[str, Any]:
        meta, arrays = read_checkpoint(path)
        history = [entry | {"seconds": 0} for entry in meta["progress"]["history"]]
        progress = meta["progress"] | {"seconds": 0, "history": history}
        return (
            meta
            | {"progress": progress}
            | {name: array.tobytes() for name, array in arrays.items()}
        )

    assert_same(content(one), content(other))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint after two rounds of Gauss-Newton."""
    path = tmp_path_factory.mktemp("fit") / "fit.ckpt"
    run(make(checkpoint=path), 2)
    return path


# Going on ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_a_resumed_fit_is_the_same_to_the_last_bit(tmp_path: Path, name: str) -> None:
    path = tmp_path / "fit.ckpt"
    whole = run(make(METHODS[name](), checkpoint=tmp_path / "whole.ckpt"), 4)
    run(make(METHODS[name](), checkpoint=path), 2)
    second = make(METHODS[name](), checkpoint=path, seed=77)  # other positions, other noise
    assert second.resume(path) is second
    assert len(second.history) == 2
    second.save(tmp_path / "copy.ckpt")
    assert_same_content(tmp_path / "copy.ckpt", path)
    run(second, 4)
    assert_same(everything(second), everything(whole))
    assert bool(whole.history[1].event) == (name == "a rolled back round")
    if name == "adam":
        assert len(moments(whole)) == 6  # step and two moments of two parameters
    assert_same_content(path, tmp_path / "whole.ckpt")


def make_several(seed: int, checkpoint: Path | None = None) -> Refinement:
    """A mixture of splines at two temperatures, with a pressure at one of them."""
    pair = SplinePair(0.8 * SIGMA, CUTOFF, 20, n_types=2)
    table = np.linspace(0.8 * SIGMA, CUTOFF, 40)
    for index in range(3):
        pair.set_table(table, lennard_jones().energy(table).detach().numpy()[0], index)
    points = [
        StatePoint(
            liquids.simulation(
                pair, N, DENSITY, t, seed=seed, platform="Reference", types=[0] * 12 + [1] * 20
            ),
            pair,
        )
        for t in (1.5, 2.5)
    ]
    rdf = RDF(REACH, 30, atoms=range(12), atoms2=range(12, 32))
    targets = [Target(point, rdf, R, curve(), uncertainty=0.01) for point in points]
    targets.insert(1, Target(points[1], Pressure(), 200.0, uncertainty=5.0))
    return Refinement(pair, targets, checkpoint=checkpoint)


def test_several_state_points_go_on_exactly_too(tmp_path: Path) -> None:
    path = tmp_path / "fit.ckpt"
    whole = run(make_several(1), 3)
    run(make_several(1, path), 1)
    second = run(make_several(5).resume(path), 3)
    assert_same(everything(second), everything(whole))
    for one, other in zip(whole.states, second.states, strict=True):
        assert one.frames.features.tobytes() == other.frames.features.tobytes()
        assert one.frames.floor == other.frames.floor
    assert whole.summary()["misfit"] == second.summary()["misfit"]


def test_a_fit_that_has_run_goes_on_from_an_older_checkpoint(
    tmp_path: Path, checkpoint: Path
) -> None:
    fit = run(make(), 1)
    run(fit.resume(checkpoint), 3)
    other = run(make().resume(checkpoint), 3)
    assert_same(everything(fit), everything(other))


@pytest.mark.parametrize("ran_before", [False, True])
def test_the_moments_of_an_optimizer_come_back(tmp_path: Path, ran_before: bool) -> None:
    path, again = tmp_path / "fit.ckpt", tmp_path / "again.ckpt"
    run(make("adam", checkpoint=path), 2)
    fit = make("adam")
    if ran_before:
        run(fit, 1)
    fit.resume(path).save(again)  # before any further update
    one, two = (read_checkpoint(p)[1] for p in (path, again))
    kept = [key for key in one if key.startswith("memory/")]
    assert len(kept) == 6
    assert all(one[key].tobytes() == two[key].tobytes() for key in kept)


def test_a_fit_that_converged_stays_so(tmp_path: Path) -> None:
    path = tmp_path / "fit.ckpt"
    fit = run(make(uncertainty=0.5, checkpoint=path), 5)
    assert fit.converged and len(fit.history) < 5
    other = run(make(uncertainty=0.5).resume(path), 5)
    assert_same(everything(other), everything(fit))


def test_on_another_platform_the_fit_goes_on_from_the_same_positions(checkpoint: Path) -> None:
    fit = make(platform="CPU", seed=9).resume(checkpoint)
    reference = make().resume(checkpoint)
    x, y = (
        f.states[0].state_point.simulation.context.getState(getPositions=True).getPositions(True)
        for f in (fit, reference)
    )
    np.testing.assert_allclose(x._value, y._value, atol=1e-6)
    assert fit.history == reference.history
    run(fit, 3)
    assert len(fit.history) == 3


def test_nothing_can_be_saved_of_an_optimizer_that_keeps_more_than_arrays(tmp_path: Path) -> None:
    path = tmp_path / "fit.ckpt"
    method = TorchOptimizer(lambda p: torch.optim.LBFGS(p, lr=1e-9, max_iter=2), steps=1)
    with pytest.raises(CheckpointError, match=r"LBFGS keeps .* without checkpoint="):
        run(make(method, checkpoint=path), 1)
    assert not path.exists()


# Refused ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def victim() -> Refinement:
    """A fit that has run, and that no refused checkpoint may change."""
    return run(make(), 1)


def assert_refused(fit: Refinement, path: Path, reason: str | tuple[str, ...], match: str) -> None:
    """With path and reason, the fit and the file as they were."""
    reasons = (reason,) if isinstance(reason, str) else reason
    content = path.read_bytes() if path.is_file() else None
    before = everything(fit)
    with pytest.raises(CheckpointError, match=match) as caught:
        fit.resume(path)
    assert caught.value.path == path
    assert caught.value.reason in reasons
    assert str(path) in str(caught.value)
    assert_same(everything(fit), before)
    assert (path.read_bytes() if path.is_file() else None) == content


def test_a_missing_file_or_a_folder_is_refused(victim: Refinement, tmp_path: Path) -> None:
    assert_refused(victim, tmp_path / "none.ckpt", "unreadable", "No such file")
    assert_refused(victim, tmp_path, "unreadable", "cannot read")
    assert list(tmp_path.iterdir()) == []


FOREIGN = {
    "empty": b"",
    "text": b"r,g\n0.1,0.0\n0.2,1.0\n",
    "pickle": pickle.dumps({"theta": [1.0]}),
    "an older format": b"openmm_diffsim checkpoint 2\n" + b"0" * 64 + b"\nwhatever",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_another_file_is_refused(victim: Refinement, tmp_path: Path, name: str) -> None:
    path = tmp_path / "other"
    path.write_bytes(FOREIGN[name])
    assert_refused(victim, path, "foreign", "not a checkpoint")


@pytest.mark.parametrize(("kind", "version"), [("checkpoint", 5), ("samples file", 3)])
def test_an_archive_of_another_kind_is_refused(
    victim: Refinement, tmp_path: Path, kind: str, version: int
) -> None:
    path = tmp_path / "other.npz"
    Archive(kind, version, CheckpointError).write(path, {"theta": np.zeros(3)})
    assert_refused(victim, path, "foreign", "not a checkpoint of this version")


def test_a_checkpoint_is_an_npz_without_pickle(checkpoint: Path) -> None:
    with np.load(checkpoint, allow_pickle=False) as archive:
        assert archive["theta"].shape == (2,)
        assert all(archive[name].dtype.kind in "fiub" for name in archive.files)


def test_a_flipped_bit_is_refused_wherever_it_is(
    victim: Refinement, checkpoint: Path, tmp_path: Path
) -> None:
    data = checkpoint.read_bytes()
    rng = np.random.default_rng(1)
    places = {0, 10, 27, 28, 60, 91, 92, 93, 100, len(data) - 1, len(data) - 22}
    places |= set(rng.integers(0, len(data), 40).tolist())
    path = tmp_path / "damaged.ckpt"
    for place in sorted(places):
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        reason = "foreign" if place < 2 else "damaged"
        assert_refused(victim, path, reason, "not a checkpoint|is damaged")


def test_a_truncated_or_lengthened_file_is_refused(
    victim: Refinement, checkpoint: Path, tmp_path: Path
) -> None:
    data = checkpoint.read_bytes()
    lengths = {1, 27, 28, 29, 60, 92, 93, 94, 200, len(data) // 2, len(data) - 22, len(data) - 1}
    lengths |= set(np.random.default_rng(2).integers(0, len(data), 20).tolist())
    path = tmp_path / "damaged.ckpt"
    for length in sorted(lengths):
        path.write_bytes(data[:length])
        assert_refused(victim, path, ("foreign", "damaged"), "not a checkpoint|is damaged")
    path.write_bytes(data + b"\0")
    assert_refused(victim, path, "damaged", "is damaged")


def mixture() -> Any:
    return liquids.lennard_jones(epsilon=0.7 * EPSILON, knots=30, n_types=2)


def frozen(sigma: float) -> Any:
    pair = liquids.lennard_jones(sigma, 0.7 * EPSILON, knots=30)
    pair.sigma.requires_grad_(False)
    return pair


OTHER_FITS: dict[str, tuple[Callable[[], Refinement], str]] = {
    "g of the target": (
        lambda: make(g=curve() + 1e-9),
        r"target 0: number 0 of the values was .*, is .* \(30 of 30 differ\)",
    ),
    "uncertainty of the target": (
        lambda: make(uncertainty=0.005),
        r"target 0: number 0 of the uncertainty was 0.004, is 0.005 \(30 of 30 differ\)",
    ),
    "weight of the target": (lambda: make(weight=2.0), "target 0: the weight was 1, is 2"),
    "bins of the observable": (
        lambda: make(reach=2.2 * SIGMA),
        "target 0, observable: number 1 of the edges was .*, is ",
    ),
    "knots": (
        lambda: make(pair=liquids.lennard_jones(knots=31)),
        "potential: the structure was .*knots=30.*, is .*knots=31",
    ),
    "cutoff": (
        lambda: make(pair=liquids.lennard_jones(cutoff=CUTOFF + 0.01, knots=30)),
        "potential: the structure was .*cutoff=0.68,.*, is .*cutoff=0.69",
    ),
    "types": (lambda: make(pair=mixture()), "potential, options: the n_types was 1, is 2"),
    "form": (
        lambda: make(pair=SplinePair(0.8 * SIGMA, CUTOFF, 30)),
        "potential: the kind was LennardJones, is SplinePair",
    ),
    "what is learned": (
        lambda: make(pair=frozen(SIGMA)),
        "potential, fixed: the sigma is new; potential, learned: the sigma is missing",
    ),
    "method": (lambda: make("adam"), "method: the class was GaussNewton, is TorchOptimizer"),
    "temperature": (
        lambda: make(temperature=1.6),
        "state point 0: the temperature in K was 179.687, is 191.666;",
    ),
    "particles": (lambda: make(n=33), "state point 0: the number of particles was 32, is 33"),
}


@pytest.mark.parametrize("name", OTHER_FITS)
def test_the_checkpoint_of_another_fit_is_refused(checkpoint: Path, name: str) -> None:
    other, what = OTHER_FITS[name]
    assert_refused(other(), checkpoint, "foreign", f"another fit: (.*; )?{what}")


def test_a_value_that_is_not_learned_belongs_to_the_fit(tmp_path: Path) -> None:
    path = tmp_path / "fit.ckpt"
    run(make(pair=frozen(SIGMA), checkpoint=path), 1)
    assert_refused(
        make(pair=frozen(1.01 * SIGMA)), path, "foreign", "fixed: the sigma was 0.34, is 0.3434;"
    )
    same = make(pair=frozen(SIGMA)).resume(path)
    assert len(same.history) == 1


def test_one_optimizer_does_not_go_on_for_another(tmp_path: Path) -> None:
    path = tmp_path / "fit.ckpt"
    run(make("adam", checkpoint=path), 1)
    sgd = TorchOptimizer(lambda p: torch.optim.SGD(p, lr=1e-5))
    assert_refused(make(sgd), path, "foreign", "method: the optimizer was Adam, is SGD")


# Files made to deceive --------------------------------------------------------------------------


class Trap:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def signed(path: Path, body: bytes) -> Path:
    """A file with the right label and checksum behind any content."""
    content = body + b"openmm_diffsim checkpoint 4".ljust(32)
    path.write_bytes(content + hashlib.sha256(content).hexdigest().encode())
    return path


def archive(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def archive_of_zeros() -> bytes:
    """A hundred times as large in memory as in the file."""
    stream = io.BytesIO()
    np.savez_compressed(stream, meta=np.zeros(100_000))
    return stream.getvalue()


def too_large() -> bytes:
    """An array that says that it has 8 TB."""
    stream, header = io.BytesIO(), io.BytesIO()
    what = {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
    np.lib.format.write_array_header_1_0(header, what)
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("meta.npy", header.getvalue())
    return stream.getvalue()


text = from_data


def test_nothing_is_ever_unpickled(victim: Refinement, checkpoint: Path, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    trap = np.array([Trap(sprung)], dtype=object)
    fingerprint = text({"fingerprint": read_checkpoint(checkpoint)[0]["fingerprint"]})
    bodies = {
        "meta": archive(meta=trap),
        "array": archive(meta=fingerprint, theta=trap),
        "bare": pickle.dumps(Trap(sprung)),
        "npy": pickle.dumps(trap),
    }
    for name, body in bodies.items():
        path = signed(tmp_path / name, body)
        assert_refused(victim, path, "damaged", "does not hold what a checkpoint holds")
    assert not sprung.exists()
    pickle.loads(bodies["bare"])  # the trap does work
    assert sprung.exists()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not an archive",
        b"PK\x03\x04 nor this one",
        archive(other=np.zeros(3)),
        archive_of_zeros(),
        too_large(),
        archive(meta=np.frombuffer(b"{no json", dtype=np.uint8)),
        archive(meta=text([1, 2])),
        archive(meta=text({})),
        archive(meta=text({"fingerprint": "mine"})),
        archive(meta=np.array([255, 254], dtype=np.uint8)),
    ],
)
def test_content_that_is_none_is_refused(victim: Refinement, tmp_path: Path, body: bytes) -> None:
    path = signed(tmp_path / "odd.ckpt", body)
    assert_refused(victim, path, "damaged", "does not hold|does not say")


def missing(data: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name != key}


def test_a_checkpoint_that_lacks_something_changes_nothing(
    victim: Refinement, checkpoint: Path, tmp_path: Path
) -> None:
    meta, arrays = read_checkpoint(checkpoint)
    path = tmp_path / "older.ckpt"
    for key in set(arrays) - {"previous"}:
        CHECKPOINT.write(path, {"meta": from_data(meta), **missing(arrays, key)})
        assert_refused(victim, path, "version", "another version")
    for key in set(meta) - {"fingerprint"}:
        CHECKPOINT.write(path, {"meta": from_data(missing(meta, key)), **arrays})
        assert_refused(victim, path, "version", "another version")
    progress = meta["progress"]
    renamed = [entry | {"new": 1} for entry in progress["history"]]
    trust = [missing(progress["trust"], key) for key in progress["trust"]]
    for other in (
        *(missing(progress, key) for key in progress),
        progress | {"history": renamed},
        *(progress | {"trust": less} for less in trust),
    ):
        CHECKPOINT.write(path, {"meta": from_data(meta | {"progress": other}), **arrays})
        assert_refused(victim, path, "version", "another version")


# Full disks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_checkpoint_and_the_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "fit.ckpt"
    fit = run(make(checkpoint=path), 1)
    old = path.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(CheckpointError, match=r"No space left .* make room") as caught:
            run(fit, 2)
    assert caught.value.path == path
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]  # nothing half-written is left
    assert len(make().resume(path).history) == 1
    assert len(fit.history) == 2  # what was computed is still there,
    fit.save(path)  # and there is room again
    assert len(make().resume(path).history) == 2
    run(fit, 3)
    assert len(fit.history) == 3


def test_a_folder_that_is_not_there_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "fit.ckpt"
    with pytest.raises(CheckpointError, match="No such file") as caught:
        run(make(checkpoint=path), 1)
    assert caught.value.path == path


# Another process --------------------------------------------------------------------------------

ROUNDS = 8


def serve() -> None:
    """Runs fits in forks of a process that has loaded everything once; see ``Server``."""
    torch.set_num_threads(1)
    run(make(), 1)  # whatever is loaded late is loaded now
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            try:
                DEEDS[order["deed"]](Path(order["path"]), order["argument"])
            finally:
                sys.stdout.flush()
                os._exit(0)
        print(json.dumps({"pid": pid}), flush=True)
        _, status = os.waitpid(pid, 0)
        print(json.dumps({"signal": os.WTERMSIG(status)}), flush=True)


def fit_on(path: Path, _: Any) -> None:
    """Start or go on, to the end."""
    fit = make(checkpoint=path)
    if path.exists():
        fit.resume(path)
    run(fit, ROUNDS)
    digest = hashlib.sha256(repr(everything(fit)).encode()).hexdigest()
    print(json.dumps({"rounds": len(fit.history), "digest": digest}), flush=True)


def fit_and_die(path: Path, argument: Sequence[Any]) -> None:
    """Killed by its own hand, before or after the n-th call of a system function."""
    name, number, after = argument
    original, calls = getattr(os, name), 0

    def deadly(*args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == number and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        original(*args)
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)

    setattr(os, name, deadly)
    fit_on(path, None)


def fit_with_little_room(path: Path, _: Any) -> None:
    """No file may grow beyond three quarters of the first checkpoint."""
    fit = run(make(checkpoint=path), 1)
    size = path.stat().st_size
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 * size // 4, hard))
    try:
        run(fit, 2)
    except CheckpointError as error:
        print(json.dumps({"error": str(error), "rounds": len(fit.history)}), flush=True)


DEEDS = {"fit": fit_on, "die": fit_and_die, "little room": fit_with_little_room}


class Server:
    """A process of its own, which forks for every fit: libraries are loaded only once."""

    def __init__(self) -> None:
        here = str(Path(__file__).parent)
        code = f"import sys; sys.path.insert(0, {here!r}); import test_checkpoint as t; t.serve()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(here).parent,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert self._read() == "ready"

    def start(self, deed: str, path: Path, argument: Any = None) -> int:
        """Returns the process that does it."""
        assert self.process.stdin is not None
        order = {"deed": deed, "path": str(path), "argument": argument}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return int(self._read()["pid"])

    def end(self) -> tuple[list[dict[str, Any]], int]:
        """What it said, and the signal that ended it."""
        said = []
        while "signal" not in (line := self._read()):
            said.append(line)
        return said, line["signal"]

    def do(self, deed: str, path: Path, argument: Any = None) -> tuple[list[dict[str, Any]], int]:
        self.start(deed, path, argument)
        return self.end()

    def _read(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the server died"
        return json.loads(line)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server()
    yield made
    assert made.process.stdin is not None
    made.process.stdin.close()
    made.process.wait(timeout=30)


@pytest.fixture(scope="module")
def uninterrupted(server: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, float]:
    """What a fit that nothing happens to comes to, and how long that takes."""
    path = tmp_path_factory.mktemp("whole") / "fit.ckpt"
    start = time.perf_counter()
    said, killed = server.do("fit", path)
    assert killed == 0 and said[-1]["rounds"] == ROUNDS
    return said[-1]["digest"], time.perf_counter() - start


def test_another_process_comes_to_the_same_end(
    server: Server, uninterrupted: tuple[str, float], checkpoint: Path, tmp_path: Path
) -> None:
    path = tmp_path / "fit.ckpt"
    shutil.copy(checkpoint, path)  # two rounds of this process
    said, killed = server.do("fit", path)
    assert killed == 0
    assert said[-1] == {"rounds": ROUNDS, "digest": uninterrupted[0]}


def test_kills_at_random_moments_change_nothing(
    server: Server, uninterrupted: tuple[str, float], tmp_path: Path
) -> None:
    path = tmp_path / "fit.ckpt"
    rng = np.random.default_rng(3)
    reached = [0]
    for _ in range(5):
        pid = server.start("fit", path)
        time.sleep(float(rng.uniform(0.1, 0.6)) * uninterrupted[1])
        with suppress(ProcessLookupError):  # if it was faster than we thought
            os.kill(pid, signal.SIGKILL)
        said, killed = server.end()
        assert killed == (0 if said else signal.SIGKILL)
        if path.exists():
            reached.append(len(make().resume(path).history))
    assert reached == sorted(reached)
    said, killed = server.do("fit", path)
    assert killed == 0
    assert said[-1] == {"rounds": ROUNDS, "digest": uninterrupted[0]}
    assert max(reached) > 0  # something was there to go on from


@pytest.mark.parametrize(
    "name, number, after, kept",
    [
        ("fsync", 1, False, 0),  # the first checkpoint is written, but not on the disk
        ("fsync", 3, True, 2),  # on the disk, but not in place
        ("replace", 3, False, 2),
        ("replace", 3, True, 3),  # in place
    ],
)
def test_kills_at_the_worst_moments_change_nothing(
    server: Server,
    uninterrupted: tuple[str, float],
    tmp_path: Path,
    name: str,
    number: int,
    after: bool,
    kept: int,
) -> None:
    path = tmp_path / "fit.ckpt"
    _, killed = server.do("die", path, [name, number, after])
    assert killed == signal.SIGKILL
    assert path.exists() == (kept > 0)
    if kept:
        assert len(make().resume(path).history) == kept
    said, killed = server.do("fit", path)
    assert killed == 0
    assert said[-1] == {"rounds": ROUNDS, "digest": uninterrupted[0]}


def test_a_limit_on_the_size_of_files_leaves_the_old_checkpoint(
    server: Server, tmp_path: Path
) -> None:
    path = tmp_path / "fit.ckpt"
    said, killed = server.do("little room", path)
    assert killed == 0
    assert "cannot write the checkpoint" in said[-1]["error"]
    assert "File too large" in said[-1]["error"]
    assert said[-1]["rounds"] == 2
    assert list(tmp_path.iterdir()) == [path]
    assert len(make().resume(path).history) == 1
