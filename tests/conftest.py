"""What tests share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from openmm_diffsim import native

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
