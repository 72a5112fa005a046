"""`python -m castore` is the command line."""

from __future__ import annotations

from castore.cli import main

main()
