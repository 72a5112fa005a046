"""What tells instances of one type apart, for drawings and for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from castore.secrets import SecretPath, fields_of
from castore.urls import masked


def place_of(config: Any) -> str:
    """Return where a config says that its service keeps things, without secrets; nothing if it does not."""
    for key, value in fields_of(config).items():
        if isinstance(value, str) and (key.endswith("url") or key == "path"):
            return masked(value)
        if isinstance(value, SecretPath) and key == "path":
            return "***" if value.secret is None else value.secret.shown
        if isinstance(value, Path) and key == "path":
            return str(value)
    return ""
