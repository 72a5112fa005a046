"""Programs of users, and the README's, are right for a strict type checker, which knows what they get."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_a_program_that_uses_castore_is_typed(tmp_path: Path) -> None:
    """Each value has the type that is promised, and what is wrong is seen. A cold mypy takes 20 s."""
    pytest.importorskip("mypy")
    blocks = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    assert blocks
    readme = tmp_path / "readme.py"
    readme.write_text("\n".join(blocks))
    arguments = ["--strict", "--no-error-summary", "--config-file", str(ROOT / "pyproject.toml")]
    files = [str(ROOT / "tests/testdata/typing/user_code.py"), str(readme)]
    run = subprocess.run(
        [sys.executable, "-m", "mypy", *arguments, *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert (run.returncode, run.stdout) == (0, "")
