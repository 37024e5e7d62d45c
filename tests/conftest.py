"""What tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import native_systems
import pytest
from native_systems import PLATFORMS, Live, Where

from openmm_diffsim.engine import native

SHARED_DATA = Path(__file__).resolve().parents[1] / "../shared/data"


@pytest.fixture
def shared_data() -> Callable[[str], Path]:
    """Where a file of measured data is; the test is skipped, and counted, where it is missing."""

    def find(name: str) -> Path:
        path = SHARED_DATA / name
        if not path.exists():
            pytest.skip(f"measured data: ../shared/data/{name} is not beside this repository")
        return path

    return find


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
