"""What tests share, and how they are marked: ``gpu`` and ``slow``, never by hand.

A case is ``gpu`` where one of its parameters is a platform of devices. It is ``slow`` where the
record of measured times, ``durations.txt``, says so; see ``durations.py``.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import durations
import native_systems
import pytest
from native_systems import PLATFORMS, Live, Where

from openmm_diffsim.engine import native

if TYPE_CHECKING:
    from forked import Forked

SHARED_DATA = Path(__file__).resolve().parents[1] / "../shared/data"

DEVICES = ("OpenCL", "CUDA")

# Marks and times ---------------------------------------------------------------------------------

_setups: dict[str, float] = {}  # of each fixture, the last time, seconds
_times: dict[str, float] = {}  # of each test function that ran, its slowest case
_CALL = pytest.StashKey[float]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--record-durations",
        action="store_true",
        help="write how long the tests of this run take to tests/durations.txt",
    )


@pytest.hookimpl(tryfirst=True)  # before pytest selects by -m
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    seconds = durations.read()
    for item in items:
        gpu = _needs_device(item)
        if gpu:
            item.add_marker("gpu")
        if seconds.get(durations.name_of(item.nodeid, gpu), 0.0) > durations.SLOW:
            item.add_marker("slow")


def _needs_device(item: pytest.Item) -> bool:
    case = getattr(item, "callspec", None)
    values = case.params.values() if case is not None else ()
    platforms = (v.platform if isinstance(v, Where) else v for v in values)
    return any(isinstance(name, str) and name in DEVICES for name in platforms)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef) -> Iterator[None]:
    start = _processor_time()
    try:
        return (yield)
    finally:
        _setups[fixturedef.argname] = _processor_time() - start


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    start = _processor_time()
    try:
        return (yield)
    finally:
        item.stash[_CALL] = _processor_time() - start


def _processor_time() -> float:
    """Of this process and those that it waited for, seconds: the same on a busy machine."""
    return sum(os.times()[:4])


def pytest_runtest_makereport(item: pytest.Function, call: pytest.CallInfo) -> None:
    """A property, and not a variable here, so that it also comes from another process."""
    if call.when == "call" and call.excinfo is None:
        name = durations.name_of(item.nodeid, item.get_closest_marker("gpu") is not None)
        seconds = item.stash[_CALL] + sum(_setups.get(used, 0.0) for used in item.fixturenames)
        item.user_properties.append(("alone", (name, seconds)))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "teardown":
        for key, value in report.user_properties:
            if key == "alone":
                name, seconds = value  # type: ignore[misc]
                _times[name] = max(seconds, _times.get(name, 0.0))


def pytest_sessionfinish(session: pytest.Session) -> None:
    is_worker = hasattr(session.config, "workerinput")
    if session.config.getoption("--record-durations") and not is_worker:
        durations.write(_times)
        durations.publish()


# Fixtures ----------------------------------------------------------------------------------------


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_interrupts() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, in child processes too, however the tests were started.

    A shell starts a background job with SIGINT ignored. That is inherited, and Python then leaves
    it so: right for a fit in the background, but nothing that tests of interrupts could work with.
    """
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if ignored:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    if ignored:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.fixture
def shared_data() -> Callable[[str], Path]:
    """Where a file of measured data is; the test is skipped, and counted, where it is missing."""

    def find(name: str) -> Path:
        path = SHARED_DATA / name
        if not path.exists():
            pytest.skip(f"measured data: ../shared/data/{name} is not beside this repository")
        return path

    return find


@pytest.fixture(scope="session")
def commands() -> Iterator[Forked]:
    """The command line, each time in a process of its own that costs no imports."""
    from forked import Forked

    with Forked() as runner:
        yield runner


@pytest.fixture
def plugin() -> None:
    """Without the native plugin the test is skipped, and counted."""
    if not native.available():
        pytest.skip(f"the native plugin: {native.why_not}")


@pytest.fixture(params=["table", "native"])
def backend(request: pytest.FixtureRequest) -> str:
    """What runs a potential."""
    if request.param == "native":
        request.getfixturevalue("plugin")
    return request.param


@pytest.fixture(scope="module", params=PLATFORMS, ids=str)
def where(request: pytest.FixtureRequest) -> Where:
    """Each platform and precision; those that are not here are skipped, counted and named."""
    reason = native_systems.why_missing(request.param)
    if reason is not None:
        pytest.skip(reason)
    return request.param


@pytest.fixture(scope="module")
def contexts(where: Where) -> Iterator[Callable[[str], Live]]:
    """The Context of a named case there, made once for a module, as it was at first."""
    made: dict[str, Live] = {}

    def get(name: str) -> Live:
        if name not in made:
            made[name] = native_systems.live(native_systems.case(name), where)
        return made[name].reset()

    yield get
    made.clear()
