"""Numbers and lists as people read them."""

from __future__ import annotations

from collections.abc import Sequence


def size_text(size: int) -> str:
    """Return a number of bytes for people, as `1.5 MiB`."""
    if size < 1024:
        return f"{size} bytes" if size != 1 else "1 byte"
    amount = float(size)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        amount /= 1024
        if amount < 1024 or unit == "TiB":
            break
    return f"{amount:.1f} {unit}"


def count_text(number: int, one: str, many: str = "") -> str:
    """Return a number of things, as `1 chunk` and `2 chunks`."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def listed(names: Sequence[str]) -> str:
    """Return names in backquotes, as `a`, `b` and `c`."""
    shown = [f"`{name}`" for name in names]
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
