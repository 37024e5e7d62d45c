"""Temporary files that say whose they are, so that those of a killed process can be removed."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

from .process import Process

_NAME = re.compile(r"\..*\.omd(?P<pid>\d+)-(?P<started>\d*)-(?P<place>[0-9a-f]{8})-\d+(\..*)?$")
_LONGEST = 60  # characters of the name that are repeated
_counter = itertools.count()


def temporary_path(target: Path, suffix: str = ".tmp") -> Path:
    """A name for a file or folder beside ``target`` that no other has."""
    me = Process.this()
    token = f"omd{me.pid}-{me.started}-{_place(me)}-{next(_counter)}"
    return target.with_name(f".{target.name[:_LONGEST]}.{token}{suffix}")


def sweep(folder: Path) -> None:
    """Remove the temporary files of processes that have ended, and of no other."""
    here = _place(Process.this())
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            found = _NAME.match(entry.name)
            if found and found["place"] == here and _is_gone(int(found["pid"]), found["started"]):
                _remove(entry)


def discard(folder: Path) -> None:
    """Remove the temporary files of this process."""
    me = Process.this()
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            found = _NAME.match(entry.name)
            if found and (int(found["pid"]), found["place"]) == (me.pid, _place(me)):
                _remove(entry)


def is_temporary(name: str) -> bool:
    """Is it the name of a temporary file or folder?"""
    return _NAME.match(name) is not None


def _remove(entry: os.DirEntry[str]) -> None:
    if entry.is_dir(follow_symlinks=False):
        shutil.rmtree(entry.path, ignore_errors=True)
    else:
        with suppress(OSError):
            os.unlink(entry.path)


def _is_gone(pid: int, started: str) -> bool:
    me = Process.this()
    return Process(pid, me.host, me.system, started).is_gone


def _place(process: Process) -> str:
    return hashlib.sha256(f"{process.host} {process.system}".encode()).hexdigest()[:8]
