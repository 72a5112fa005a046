"""How many milliseconds does `import castore` cost over `python -c pass`? Medians; under 100 is the limit."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

RUNS = 21
STATEMENTS = {
    "import castore": "import castore",
    "... and use a memory store": "import castore; castore.from_url('memory:').write(b'')",
    "... and every public name": "import castore; [getattr(castore, name) for name in castore.__all__]",
}


def milliseconds(statement: str) -> float:
    """Return how long Python runs to do *statement*: the median of some runs."""
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1000


def main() -> None:
    """Print a line for each statement."""
    nothing = milliseconds("pass")
    print(f"{'python -c pass':28} {nothing:6.1f} ms")
    for name, statement in STATEMENTS.items():
        print(f"{name:28} {milliseconds(statement) - nothing:+6.1f} ms")


if __name__ == "__main__":
    main()
