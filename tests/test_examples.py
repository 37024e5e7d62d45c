"""Every example runs to its end, where its own assertions are."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
NUMBERED = sorted(EXAMPLES.glob("[0-9]*.py"), key=lambda path: int(path.stem.split("_")[0]))
WATER = EXAMPLES / "11_water.py"  # takes long as it is
DATA = {"6_rdf_and_vacf": ["diffsim/lj_rdf_rho0.3_T1.2.csv"]}  # beside the repository, or not


def test_there_are_numbered_examples() -> None:
    numbers = sorted(int(path.name.partition("_")[0]) for path in NUMBERED)
    assert numbers == list(range(1, len(NUMBERED) + 1)) and len(NUMBERED) >= 11


@pytest.mark.parametrize("path", [p for p in NUMBERED if p != WATER], ids=lambda path: path.stem)
def test_example_holds(path: Path, tmp_path: Path, shared_data: Callable[[str], Path]) -> None:
    data = [str(shared_data(name).parent) for name in DATA.get(path.stem, [])]
    done = subprocess.run(
        [sys.executable, str(path), *data],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip()


@pytest.mark.parametrize("path", NUMBERED, ids=lambda path: path.stem)
def test_example_is_short_and_ends_in_an_assertion(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) < (160 if path == WATER else 65)
    assert lines[-1].strip().startswith("assert ")


def test_water_goes_on_where_it_was(
    tmp_path: Path, shared_data: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """In so few steps that nothing follows of its numbers."""
    main = runpy.run_path(str(WATER))["main"]
    measured = str(shared_data("experiment/water_oo_soper2008.csv"))
    arguments = [measured, "--steps", "500", "--rounds", "1", "--folder", str(tmp_path / "water")]
    first = main(arguments)
    told = capsys.readouterr().out
    assert len(first) == 5
    assert np.all(np.isfinite(first))
    assert "1500 MD steps" in told  # 500 at each temperature, and half as many before
    assert (tmp_path / "water" / "water.png").stat().st_size > 10_000

    kept = [(tmp_path / "water" / name).read_bytes() for name in ("fit.npz", "again.npz")]
    np.testing.assert_allclose(main(arguments), first, rtol=1e-6)
    assert capsys.readouterr().out == told
    assert kept == [(tmp_path / "water" / n).read_bytes() for n in ("fit.npz", "again.npz")]
