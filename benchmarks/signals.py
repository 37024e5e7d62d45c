"""A hundred signals to fits on the command line: what they end with, and what is left.

    python benchmarks/signals.py [NUMBER] [SEED]

KILL, TERM and INT come in turns to fits on Reference and CPU, half of them at random, many of these
in the first second, half while files are written. A fit goes on after each, and must come to the
uninterrupted one bit for bit, without a file more; the first that does not ends in an assertion.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from interrupted import configure, drawn, finish, survive

EACH = 5  # signals to one fit
signal.signal(signal.SIGINT, signal.default_int_handler)  # else ignored in the background

number = int(sys.argv[1]) if len(sys.argv) > 1 else 100
rng = np.random.default_rng(int(sys.argv[2]) if len(sys.argv) > 2 else 1)
counts: Counter[tuple[str, str, str]] = Counter()
with tempfile.TemporaryDirectory() as work:
    for platform in ("Reference", "CPU"):
        whole = configure(Path(work) / platform, platform)
        start = time.monotonic()
        finish(whole)
        duration = time.monotonic() - start
        for k in range(number // (2 * EACH)):
            signals = [drawn(rng, duration) for _ in range(EACH)]
            found = survive(configure(Path(work) / f"{platform} {k}", platform), signals, whole)
            for sent, what in zip(signals, found, strict=True):
                counts[platform, sent.number.name, what] += 1
print(f"{'platform':10s} {'signal':8s} {'ended':>6s} {'finished before':>16s}")
for platform, name in sorted({key[:2] for key in counts}):
    ended, finished = (counts[platform, name, what] for what in ("ended", "finished"))
    print(f"{platform:10s} {name:8s} {ended:6d} {finished:16d}")
print(f"{counts.total()} signals: every fit came to its end, bit for bit, nothing was left")
