"""What ``honest.py`` and ``honest_molecules.py`` share: fits of many seeds, kept line by line."""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import openmm_diffsim as diffsim

FOLDER = Path(__file__).parent / "honest"

Fit = Callable[[str, int, str, argparse.Namespace], dict[str, Any]]  # system, seed, mode, options


def fit_arguments(command: argparse.ArgumentParser, systems: Iterable[str], rounds: int) -> None:
    """Those of the command ``fit``."""
    names = list(systems)
    command.add_argument("--systems", nargs="+", default=names, choices=names)
    command.add_argument("--seeds", type=int, nargs=2, default=(0, 5))
    command.add_argument("--modes", nargs="+", default=["g", "gp"], choices=["g", "gp"])
    command.add_argument("--rounds", type=int, default=rounds, help="0: as the system has it")
    command.add_argument("--label", default="default")
    command.add_argument("--options", type=json.loads, default={}, help="GaussNewtonOptions, JSON")


def fit_all(path: Path, fit: Fit, options: argparse.Namespace) -> None:
    """What is not in the file yet is computed, added to it and shown."""
    done = {_key(line) for line in read(path)}
    for seed in range(*options.seeds):
        for name in options.systems:
            for mode in options.modes:
                line: dict[str, Any] = {"label": options.label, "name": name}
                line |= {"mode": mode, "seed": seed}
                if _key(line) in done:
                    continue
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    line |= fit(name, seed, mode, options)
                with path.open("a") as stream:
                    stream.write(json.dumps(line) + "\n")
                print(json.dumps(_shown(line)), flush=True)


def read(path: Path, label: str | None = None) -> list[dict[str, Any]]:
    """All lines so far, or those of a label."""
    texts = path.read_text().splitlines() if path.exists() else []
    lines = [json.loads(text) for text in texts]
    return [line for line in lines if label is None or line["label"] == label]


def timed(run: Callable[[], Any]) -> dict[str, Any]:
    """How a fit ended, empty where without an error, and its processor time."""
    start, outcome = time.process_time(), ""
    try:
        run()
    except diffsim.errors.DiffsimError as failure:
        outcome = f"{type(failure).__name__}: {failure}"
    return {"outcome": outcome, "seconds": time.process_time() - start}


def _key(line: dict[str, Any]) -> tuple[Any, ...]:
    return line["label"], line["name"], line["mode"], line["seed"]


def _shown(line: dict[str, Any]) -> dict[str, Any]:
    """Numbers, rounded, and no lists of them."""
    numbers = {k: round(v, 3) if isinstance(v, float) else v for k, v in line.items()}
    return {k: v for k, v in numbers.items() if not isinstance(v, list)}
