"""What tests share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

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
