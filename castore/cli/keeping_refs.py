"""The options of `castore import` that name what is imported."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import click

from castore.cli.roots import as_ref_name
from castore.contract.refs import NamedRoot, RefService
from castore.trees.proving import keeping
from castore.trees.ref_names import add_snapshot, refs_of

if TYPE_CHECKING:
    from castore.composition.composition import Composition
    from castore.contract.blobs import BlobService
    from castore.contract.directories import DirectoryService
    from castore.digest import B3Digest
    from castore.format.nodes import Node

F = TypeVar("F", bound=Callable[..., Any])


def naming_options(command: F) -> F:
    """Add `--ref`, `--snapshot` and `--message`, which `RefKeeper.of` takes as they come."""
    for option in reversed(
        (
            click.option("--ref", metavar="NAME", type=as_ref_name, help="Let NAME stand for the root."),
            click.option(
                "--snapshot",
                metavar="NAME",
                type=as_ref_name,
                help="Keep the root as a snapshot of NAME, under its time.",
            ),
            click.option(
                "-m", "--message", metavar="TEXT", help="What is to be said of the root, with a name."
            ),
        )
    ):
        command = option(command)
    return command


@attrs.define
class RefKeeper:
    """Names what one import has stored."""

    ref: str | None = None
    snapshot: str | None = None
    message: str = ""
    _refs: RefService | None = None

    @classmethod
    def of(cls, ref: str | None, snapshot: str | None, message: str | None, roots: int) -> RefKeeper:
        """Take the options of an import of so many roots; raise `UsageError` if they make no sense."""
        named = ref is not None or snapshot is not None
        if named and roots > 1:
            raise click.UsageError("--ref and --snapshot are for one SOURCE: a name stands for one root.")
        if message is not None and not named:
            raise click.UsageError("--message is said of a ref: give --ref NAME or --snapshot NAME, too.")
        return cls(ref, snapshot, message or "")

    @property
    def names(self) -> bool:
        """Whether anything is to be named."""
        return self.ref is not None or self.snapshot is not None

    def keeping(
        self, stores: Composition, service: str, blobs: BlobService, directories: DirectoryService
    ) -> AbstractContextManager[None]:
        """Return a context in which what is imported stays until it is named; look where names are kept."""
        if not self.names:
            return contextlib.nullcontext()
        self._refs = refs_of(stores, service)
        return keeping(blobs, directories)

    def name(self, node: Node, source: str, metadata: B3Digest | None = None) -> str | None:
        """Name a root that was imported, within `keeping`; return the name, of two that of the snapshot."""
        if self._refs is None:
            return None
        path = "" if source == "-" else str(Path(source).absolute())
        root = NamedRoot(node, comment=self.message, metadata=metadata, source=path)
        name = None
        if self.ref is not None:
            self._refs.set(self.ref, root)
            name = self.ref
        if self.snapshot is not None:
            name = add_snapshot(self._refs, self.snapshot, root)
        return name
