"""Runs command lines one after the other, each in a process of its own that costs no imports.

``python forked.py`` reads lines of JSON, ``{"folder", "arguments"}``, and answers each with one:
the exit code (negative: the signal that ended it), what was printed, and what it took. A process
may take a minute of the processor, and ten where others use that too, and is given two gigabytes
more than the imports take.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

SECONDS = 60  # of the processor
BYTES = 2 * 2**30


class Forked:
    """The command line in processes that are forked from one in which all is imported."""

    def __enter__(self) -> Forked:
        self._server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *error: object) -> None:
        self._server.communicate()

    def run(self, folder: Path, arguments: list[str]) -> dict[str, Any]:
        """What became of it: ``code``, ``out``, ``err``, ``seconds``, ``bytes`` at most."""
        assert self._server.stdin is not None and self._server.stdout is not None
        line = json.dumps({"folder": str(folder), "arguments": arguments})
        self._server.stdin.write(line + "\n")
        self._server.stdin.flush()
        answer: dict[str, Any] = json.loads(self._server.stdout.readline())
        return answer


def _serve() -> None:
    from openmm_diffsim import cli
    from openmm_diffsim.configuration import build  # noqa: F401
    from openmm_diffsim.report import tables, trajectory  # noqa: F401

    for line in sys.stdin:
        order = json.loads(line)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            child = os.fork()
            if child == 0:
                _run(cli, order, out, err)
            _, status, used = os.wait4(child, 0)
            answer = {
                "code": os.waitstatus_to_exitcode(status),
                "out": _text(out),
                "err": _text(err),
                "seconds": used.ru_utime + used.ru_stime,
                "bytes": used.ru_maxrss * 1024,
            }
        print(json.dumps(answer), flush=True)


def _run(cli: Any, order: dict[str, Any], out: BinaryIO, err: BinaryIO) -> None:
    """In the child: never returns."""
    os.chdir(order["folder"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + BYTES, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, resource.RLIM_INFINITY))
    signal.alarm(10 * SECONDS)
    code = 1
    try:
        code = cli.main(order["arguments"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _text(stream: BinaryIO) -> str:
    stream.seek(0)
    return stream.read().decode(errors="replace")


if __name__ == "__main__":
    _serve()
