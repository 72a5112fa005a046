"""Takes from a process what it needs to start threads: as `ulimit -u` does, or a container with too few."""

from __future__ import annotations

import ctypes
import os
import resource
import struct

_VERSION = 0x20080522
_SYS_ADMIN, _SYS_RESOURCE = 21, 24
_CAPGET, _CAPSET = 125, 126
"""System calls of x86-64."""

_NOBODY = 65534


def forbid_threads() -> bool:
    """Let no further thread be started by this process; return whether that could be done."""
    if os.getuid() == 0:
        # The limit is for a user, and for none that may do everything; files stay as accessible as they were.
        libc = ctypes.CDLL(None, use_errno=True)
        header = struct.pack("Ii", _VERSION, 0)
        data = ctypes.create_string_buffer(24)
        if libc.syscall(_CAPGET, header, data):
            return False
        words = list(struct.unpack("6I", data.raw))
        words[0] &= ~(1 << _SYS_ADMIN | 1 << _SYS_RESOURCE)
        os.setresuid(_NOBODY, 0, 0)
        if libc.syscall(_CAPSET, header, struct.pack("6I", *words)):
            return False
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    import _thread  # noqa: PLC0415 - as it is tried

    try:
        _thread.start_new_thread(int, ())
    except RuntimeError:
        return True
    return False
