"""Forks while other threads make calls: the parent goes on, and a child does not hang."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

PROGRAM = """
import os, subprocess, sys, threading, time
import castore
from castore.format.directories import Directory
from castore.format.nodes import FileNode
from castore.testing import HELLO, P3M

table = {"root": {"type": "grpc", "url": sys.argv[1]}}
done, wrong, ended = [0, 0, 0], [], threading.Event()

def call_for_blobs():
    return blobs.read(P3M.digest) == P3M.data and blobs.has(HELLO.digest)

def call_for_trees():
    return [each.digest for each in stores.directories().closure(tree[-1].digest)] == order

def go_on_calling(number, call):
    while not ended.is_set():
        try:
            if not call():
                wrong.append("something else")
            done[number] += 1
        except BaseException as error:
            wrong.append(repr(error))
            raise

def wait_for_calls():
    before, ends = list(done), time.monotonic() + 60
    while not all(now > then for now, then in zip(done, before)):
        assert time.monotonic() < ends and not wrong, (done, before, wrong)
        time.sleep(0.001)

with castore.Composition.from_mapping({"blobservices": table, "directoryservices": table}) as stores:
    blobs = stores.blobs()
    blobs.write(P3M.data)
    blobs.write(HELLO.data)
    tree = [Directory({b"file": FileNode(HELLO.digest, 5)})]
    for _ in range(200):
        tree.append(Directory({b"below": tree[-1].node}))
    stores.directories().put_many(tree)
    order = [each.digest for each in reversed(tree)]
    calls = (call_for_blobs, call_for_blobs, call_for_trees)
    threads = [threading.Thread(target=go_on_calling, args=each, daemon=True) for each in enumerate(calls)]
    for thread in threads:
        thread.start()
    for number in range(8):
        wait_for_calls()
        child = os.fork()
        if not child:
            # Every second one makes a call of its own.
            os._exit(0 if number % 2 or call_for_blobs() else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    wait_for_calls()
    subprocess.run(["true"], preexec_fn=lambda: None, check=True)
    wait_for_calls()
    ended.set()
    for thread in threads:
        thread.join()
    assert not wrong, wrong
"""


def test_a_fork_while_calls_are_under_way(serving: Any) -> None:
    """Reading is given up for it, and done again: whether the child makes calls or not, none hangs."""
    program = subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PROGRAM, serving().url],
        start_new_session=True,
    )
    try:
        assert program.wait(timeout=25) == 0
    finally:
        # Also a child that hangs.
        os.killpg(program.pid, signal.SIGKILL) if program.poll() is None else None
        program.wait()
