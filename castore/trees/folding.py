"""Names that are one and the same on some file systems: in upper and lower case, or composed and not.

What a folder takes for one name is found out by trying: by a file of an odd name, which is looked for under
other ones.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import unicodedata
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

import attrs

from castore.format.nodes import LONGEST_NAME
from castore.trees.folders import Folder

_PROBE: Final = ".castore-probe-{}-aé"
"""A letter of ASCII and one with an accent."""


@attrs.frozen
class Folding:
    """Which names a folder takes for one.

    Attributes:
        ascii_case: Whether it takes `a` for `A`.
        all_case: Whether it does so with letters beyond ASCII as well.
        normal: Whether it takes a letter with its accent for that letter and an accent.
    """

    ascii_case: bool = False
    all_case: bool = False
    normal: bool = False

    def __bool__(self) -> bool:
        return self.ascii_case or self.all_case or self.normal

    def key(self, name: bytes) -> bytes:
        """Return what is the same for all names that are one."""
        if not self:
            return name
        try:
            text = name.decode()
        except UnicodeDecodeError:
            return name.lower() if self.ascii_case else name
        if self.normal:
            text = unicodedata.normalize("NFD", text)
        if self.all_case:
            text = text.casefold()
            if self.normal:
                text = unicodedata.normalize("NFD", text)
        return text.encode().lower() if self.ascii_case else text.encode()

    def collisions(self, names: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
        """Return those of some names that are another one here, each after the first one that it is."""
        if not self:
            return []
        first: dict[bytes, bytes] = {}
        pairs = []
        for name in names:
            other = first.setdefault(self.key(name), name)
            if other != name:
                pairs.append((other, name))
        return pairs

    def apart(self, names: Iterable[bytes]) -> dict[bytes, bytes]:
        """Return names for those that are another one here: `~2` and so on at their ends tells them apart."""
        names = list(names)
        pairs = self.collisions(names)
        taken = {self.key(name) for name in names} if pairs else set()
        renamed = {}
        for _, name in pairs:
            number = 2
            while self.key(other := _numbered(name, number)) in taken:
                number += 1
            taken.add(self.key(other))
            renamed[name] = other
        return renamed


def _numbered(name: bytes, number: int) -> bytes:
    end = b"~%d" % number
    kept = name[: LONGEST_NAME - len(end)]
    while len(kept) < len(name) and kept and name[len(kept)] & 0xC0 == 0x80:
        kept = kept[:-1]  # A letter is not cut through.
    return kept + end


Prober: TypeAlias = Callable[[Folder], Folding]


def probe(folder: Folder) -> Folding:
    """Find out which names a folder takes for one; an empty file is made in it for a moment.

    Raises `OSError` if nothing can be made there.
    """
    text = _PROBE.format(secrets.token_hex(8))
    name = text.encode()
    os.close(folder.open_file(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        return Folding(
            ascii_case=_is_there(folder, text.replace("-a", "-A")),
            all_case=_is_there(folder, text.replace("é", "É")),
            normal=_is_there(folder, unicodedata.normalize("NFD", text)),
        )
    finally:
        with contextlib.suppress(FileNotFoundError):
            folder.remove(name)


def _is_there(folder: Folder, name: str) -> bool:
    try:
        folder.status(name.encode())
    except FileNotFoundError:
        return False
    return True
