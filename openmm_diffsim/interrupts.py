"""Signals to the command line: at any moment, an exit code and one line.

``import openmm_diffsim`` takes seconds, and this module, which imports nothing, comes first: where
it is the command line that is starting, it handles signals from here on.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_AGAIN = 1.0  # seconds, until an exception that was swallowed is raised once more
_COMMAND = "openmm-diffsim"

tidy: list[Callable[[], None]] = []
"""What is called before the process ends at once."""
_received: int | None = None
_raises = False


def arm() -> None:
    """Handle signals from now on, but those that are ignored, as after nohup."""
    for number in _HANDLED:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _handle)


def received() -> int | None:
    """The signal that was meant to end this process, if there was one."""
    return _received


def exit_code() -> int:
    """What a shell says of a program that a signal ended: 130 of Ctrl-C, 143 of TERM."""
    return 128 + (_received or signal.SIGINT)


@contextmanager
def raised() -> Iterator[None]:
    """Meanwhile the first signal is a KeyboardInterrupt; what it interrupts can end in order.

    Code that is called from C may swallow an exception, so it is raised again until
    ``acknowledge``. A second signal ends the process at once.
    """
    global _raises
    _raises = True
    try:
        yield
    finally:
        _raises = False
        acknowledge()


def acknowledge() -> None:
    """The KeyboardInterrupt has arrived."""
    if _received is not None:
        signal.setitimer(signal.ITIMER_REAL, 0)


def end(code: int) -> None:
    """End this process, without taking apart what the system will clear anyway.

    While Python does that, a signal would end it with another code.
    """
    for deed in tidy:
        with suppress(Exception):
            deed()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(code)


def _handle(number: int, _: FrameType | None) -> None:
    global _received
    if _received is None:
        _received = number
        if _raises:
            signal.signal(signal.SIGALRM, _raise)
            signal.setitimer(signal.ITIMER_REAL, _AGAIN, _AGAIN)
            _raise()
    with suppress(OSError):
        os.write(2, f"{_COMMAND}: interrupted\n".encode())
    end(exit_code())


def _raise(*_: object) -> None:
    if _raises:
        raise KeyboardInterrupt


def _is_command_line() -> bool:
    """Is Python about to run ``-m openmm_diffsim``, or the installed command?"""
    called = getattr(sys, "argv", [""])[0]
    return called == "-m" or os.path.basename(called) == _COMMAND


if _is_command_line():
    arm()
