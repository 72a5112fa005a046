"""What the options that all commands share were set to."""

from __future__ import annotations

import contextlib
import gc
import logging
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import attrs

from castore.cli.output import complain, was_said
from castore.errors import UnavailableError
from castore.places import expand_user

if TYPE_CHECKING:
    from castore.composition.composition import Composition
    from castore.contract.blobs import BlobService


@attrs.define
class Settings:
    """The shared options of one run, given before or after the command word."""

    composition: str | None = None
    service: str | None = None
    json: bool = False
    debug: bool = False
    quiet: bool = False
    stats: bool = False
    secrets: list[str] = attrs.field(factory=list, repr=False)
    """What must not be shown, known once a composition is open."""
    opened_composition: Composition | None = attrs.field(default=None, repr=False)
    """That of this run, also after it was closed."""

    @property
    def service_name(self) -> str:
        """The instance to use."""
        return self.service or "root"

    @contextlib.contextmanager
    def opened(self, *, measured: bool = False) -> Iterator[Composition]:
        """Open the composition and close it at the end. It is *measured* for `--stats` as well."""
        # Help and completion need no composition.
        from castore.composition.config.values import secrets_in  # noqa: PLC0415
        from castore.opening import DEFAULT  # noqa: PLC0415
        from castore.opening import open as open_composition  # noqa: PLC0415

        # `castore check` shows warnings; to see them at every other command would annoy.
        logging.getLogger("castore.composition").setLevel(logging.ERROR)
        # A shell leaves the `~` of `--composition=~/x` as it is.
        named = None if self.composition is None else expand_user(self.composition)
        with self._closing(open_composition(named, metrics=measured or self.stats)) as stores:
            self.opened_composition = stores
            self._require_service(stores)
            if stores.name == DEFAULT and self._is_watched():
                place = stores.base / "blobs"
                self.remark(f"no composition.toml here or above: blobs are kept in {place}")
            if not gc.isenabled():
                # All that is there now will be there to the end.
                gc.freeze()
                gc.enable()
            for instance in stores.graph.instances.values():
                self.secrets += secrets_in(instance.config)
            yield stores

    def _require_service(self, stores: Composition) -> None:
        """Raise `CompositionError` if the one to use is nowhere: also for commands that make no use of it."""
        from castore.contract.blobs import BlobService  # noqa: PLC0415 - as above

        name = self.service_name
        if name != "root" and all(each.name != name for each in stores.graph.instances.values()):
            stores.instance(BlobService, name)

    @staticmethod
    def _is_watched() -> bool:
        """Whether a person sees what goes to stderr."""
        from castore.cli.output import is_terminal  # noqa: PLC0415 - as in `remark`

        return is_terminal(sys.stderr)

    @contextlib.contextmanager
    def _closing(self, stores: Composition) -> Iterator[Composition]:
        """Close the composition at the end.

        What was acknowledged lasts by then. So a service that is unavailable while it is closed, such as the
        near of a cache whose disk is full, is worth a warning, and leaves the exit code as it is.
        """
        try:
            yield stores
        finally:
            try:
                stores.close()
            except* UnavailableError as group:
                for error in group.exceptions:
                    # Whoever has passed it over before has said so.
                    if not was_said(str(error)):
                        complain(self.scrubbed(f"castore: while it was closed: {error}"))

    @contextlib.contextmanager
    def blobs(self) -> Iterator[BlobService]:
        """Open the composition for its blob service."""
        with self.opened() as stores:
            yield stores.blobs(self.service_name)

    def remark(self, text: str) -> None:
        """Say something on stderr that is no error, unless the user wants it quiet."""
        if not self.quiet:
            complain(text)

    def scrubbed(self, text: str) -> str:
        """Return *text* without secrets. Services leave them out already; this is a second look."""
        if not self.secrets:
            return text
        from castore.composition.config.values import scrub  # noqa: PLC0415 - loaded already, where there are secrets

        return scrub(text, self.secrets)
