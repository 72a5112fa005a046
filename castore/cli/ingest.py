"""`castore ingest`: `castore import` by the name that the reference has for it."""

from __future__ import annotations

import copy

from castore.cli import importing

command = copy.copy(importing.command)
command.name = "ingest"
command.epilog = (importing.command.epilog or "").replace("castore import", "castore ingest")
