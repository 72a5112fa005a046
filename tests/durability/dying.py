"""Programs that are killed at a random moment of their work, on machines of any speed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

DYING = """
import itertools, os, random, signal, sys, time

_passed = itertools.count(1)

def die_at(moment):
    def hook(event, arguments):
        if next(_passed) == moment:
            time.sleep(random.random() / 500)  # Also between two of them: the other threads go on.
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

def passed():
    return next(_passed) - 1
"""
"""The head of such a program. `die_at` kills it at one of the moments that Python tells of (opening a file,
renaming one, making a folder ...); with 0 it lives, and `passed` returns how many there were."""


def run(program: str, *args: str, moment: int = 0) -> list[str] | None:
    """Run a program that reads *moment* as its last argument; return its lines, or None if it was killed."""
    command: Sequence[str] = [sys.executable, "-c", DYING + program, *args, str(moment)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode == -9:
        return None
    assert done.returncode == 0
    return done.stdout.splitlines()
