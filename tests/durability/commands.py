"""Runs commands of castore one after the other, each in a fork, with their output in files.

`commands.py FOLDER` reads `commands.json` in it: lists of arguments by names.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

from castore.cli import main

MODULES = (
    "castore.cli.app",
    "castore.cli.get",
    "castore.cli.put",
    "castore.cli.verify",
    "castore.upkeep.collecting",
    "castore_objectstore.local",
    "castore_objectstore.service",
    "castore_sqlite.database",
    "castore_sqlite.service",
)
"""Those that children need not read again. Not `castore.cli.gc`, which hides Python's own in that package."""


def run(name: str, arguments: list[str]) -> None:
    for descriptor, end in ((1, "out"), (2, "err")):
        file = os.open(f"{name}.{end}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, descriptor)
        os.close(file)
    sys.argv = ["castore", *arguments]
    main()


for module in MODULES:
    importlib.import_module(module)
os.chdir(sys.argv[1])
codes = {}
for name, arguments in json.loads(Path("commands.json").read_text()).items():
    child = os.fork()
    if not child:
        run(name, arguments)
    codes[name] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
Path("codes.json").write_text(json.dumps(codes))
