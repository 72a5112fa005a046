"""Which lists of chunks were found to make up their blobs: read once, known from then on."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from castore import B3Digest, ChunkMeta
from castore.format.blob_index import fingerprint
from castore.threads import forks

_MOST: Final = 1 << 16
"""How many are kept in memory: some 10 MB."""

_log: Final = logging.getLogger("castore_wrappers.verify")


class Proofs:
    """Remembers lists by their fingerprints, while the process lives, and longer if there is a *folder*.

    What is remembered is true for ever, whatever becomes of a store: it says of a list, not of a place, that
    its chunks make up the blob. In the folder each is an empty file, named by the digest of the blob and the
    fingerprint of the list. Whoever can write there can make castore believe a list.

    Arguments:
        folder: Made with the first entry; `None` for none.
        name: That of the instance, for what is logged. A folder that fails is done without.
    """

    def __init__(self, folder: Path | None = None, *, name: str = "verify") -> None:
        self._folder = folder
        self._name = name
        self._lock = forks.new_lock()
        self._known: dict[bytes, None] = {}
        self._complained = False

    def has(self, blob: B3Digest, chunks: Sequence[ChunkMeta]) -> bool:
        """Tell whether these chunks are known to make up the blob."""
        proof = blob + fingerprint(chunks)
        if proof in self._known:
            return True
        if self._folder is None:
            return False
        try:
            self._file(self._folder, proof).lstat()
        except FileNotFoundError:
            return False
        except OSError as error:
            self._complain(error)
            return False
        self._keep(proof)
        return True

    def add(self, blob: B3Digest, chunks: Sequence[ChunkMeta]) -> None:
        """Remember that these chunks make up the blob."""
        proof = blob + fingerprint(chunks)
        self._keep(proof)
        if self._folder is None:
            return
        path = self._file(self._folder, proof)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        except OSError as error:
            self._complain(error)

    def _file(self, folder: Path, proof: bytes) -> Path:
        name = proof.hex()
        return folder / name[:2] / f"{name[:64]}.{name[64:]}"

    def _keep(self, proof: bytes) -> None:
        with self._lock:
            self._known[proof] = None
            if len(self._known) > _MOST:
                del self._known[next(iter(self._known))]

    def _complain(self, error: OSError) -> None:
        if not self._complained:
            self._complained = True
            _log.warning("`%s`: what was verified is not remembered: %s", self._name, error)
