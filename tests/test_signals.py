"""Signals end a fit at any moment, and it goes on as if there had been none.

``benchmarks/signals.py`` sends a hundred.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path

import numpy as np
import pytest
from interrupted import Moment, Signal, configure, drawn, finish, interrupt, survive


@pytest.fixture(scope="module", params=["Reference", "CPU"])
def whole(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, float]:
    """A platform, a fit that nothing happens to, and how long that takes."""
    folder = configure(tmp_path_factory.mktemp("whole") / "fit", request.param)
    begin = time.monotonic()
    finish(folder)
    return request.param, folder, time.monotonic() - begin


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_fit_survives_what_comes(
    whole: tuple[str, Path, float], tmp_path: Path, seed: int
) -> None:
    platform, reference, duration = whole
    rng = np.random.default_rng(seed)
    signals = [drawn(rng, duration) for _ in range(4)]
    said = survive(configure(tmp_path / "fit", platform), signals, reference)
    assert "ended" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("seconds", [0.0, 0.3, 0.9])
def test_a_signal_while_libraries_are_loaded_leaves_nothing(
    tmp_path: Path, number: signal.Signals, seconds: float
) -> None:
    folder = configure(tmp_path / "fit", "Reference")
    assert interrupt(folder, Signal(number, Moment(seconds))) == "ended"
    assert not list(folder.rglob("out/*")) or (folder / "out/checkpoint.npz").exists()
