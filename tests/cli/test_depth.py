"""What the commands say of more services in a row than a call can go through."""

from __future__ import annotations

import pytest

DIGEST = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
USED = {
    "put": ["composition.toml"], "get": [DIGEST], "has": [DIGEST], "stat": [DIGEST], "list": [], "verify": [],
    "copy": [DIGEST, "--from", "root", "--to", "n299"], "gc": [DIGEST], "check": [],
}  # fmt: skip
"""Commands that use the services, with what they take; all others only look at what is declared."""
LOOKING = {"locate": [DIGEST], "explain": [DIGEST], "graph": ["--connect"], "plugins": [], "schema": []}


@pytest.mark.parametrize("command", [*USED, *LOOKING])
def test_no_command_shows_a_traceback(command, place, castore):
    """One that uses the services is refused as wrong usage; one that only looks goes on."""
    rows = []
    for number in range(299):
        name = f"n{number}" if number else "root"
        rows += [f"[blobservices.{name}]", 'type = "limit"', f'inner = "&n{number + 1}"', "concurrency = 9"]
    rows += ["[blobservices.n299]", 'type = "memory"']
    (place.folder / "composition.toml").write_text("\n".join(rows))
    run = castore(command, *{**USED, **LOOKING}[command])
    assert (run.exit_code == 2) == (command in USED), run.output
    assert "Traceback" not in run.output
    assert "a mistake in castore" not in run.output
    assert ("300 services stand in a row" in run.stderr) == (command in USED)
