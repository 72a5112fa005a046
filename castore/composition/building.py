"""Building the instances of a composition, sharing them, and closing them in order."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from castore.composition.graph import Graph, Instance
from castore.composition.refs import Ref
from castore.composition.values import scrub
from castore.errors import BuildError, CastoreError, ClosedError, PluginError

if TYPE_CHECKING:
    from castore.workers import Workers

T = TypeVar("T")


@attrs.frozen(eq=False, repr=False)
class BuildContext:
    """What a config sees of the world while it builds its service."""

    base: Path
    """The folder that relative paths start from: that of the composition's file."""
    workers: Workers
    """The pool of threads that the services of the composition share."""
    _builder: Builder
    _instance: Instance
    _chain: tuple[str, ...]

    def resolve(self, ref: Ref[T]) -> T:
        """Return the service that a field of this config refers to, built if need be.

        Only references that the config holds can be resolved: so the graph was known, and free of
        cycles, before anything was built.
        """
        for edge in self._instance.edges:
            if edge.ref is ref or edge.ref == ref:
                service: T = self._builder.build(self._builder.graph.instances[edge.target], self._chain)
                return service
        raise PluginError(
            f"the type `{self._instance.type.tag}` resolves {ref!r}, which no field of its config holds",
            plugin=self._instance.type.plugin.name if self._instance.type.plugin else None,
        )


class Builder:
    """Builds each instance at most once, also when several threads ask for it at the same time."""

    def __init__(self, graph: Graph, base: Path, workers: Workers, secrets: Sequence[str]) -> None:
        self.graph = graph
        self._base = base
        self._workers = workers
        self._secrets = secrets
        self._lock = threading.Lock()
        self._slots: dict[str, _Slot] = {}
        self._built: list[Any] = []
        self._closed = False

    def build(self, instance: Instance, chain: tuple[str, ...] = ()) -> Any:
        """Return the service of *instance*. *chain* has the names of those that wait for it.

        Raises `BuildError`, the same one again on each later call, or `ClosedError`.
        """
        with self._lock:
            if self._closed:
                raise ClosedError("the composition is closed")
            slot = self._slots.setdefault(instance.id, _Slot())
        # The graph has no cycles and only its edges are followed, so these locks cannot deadlock.
        with slot.lock:
            if slot.failure is None and slot.service is None:
                self._fill(slot, instance)
            if slot.failure is not None:
                below, cause = slot.failure
                raise BuildError((*chain, *below), cause)
            return slot.service

    def _fill(self, slot: _Slot, instance: Instance) -> None:
        context = BuildContext(self._base, self._workers, self, instance, (instance.name,))
        try:
            service = instance.config.build(instance.name, context)
            if not isinstance(service, instance.kind.contract):
                raise PluginError(
                    f"the type `{instance.type.tag}` built {service!r}, which is no {instance.kind.label}"
                )
        except BuildError as error:
            slot.failure = (tuple(error.chain), error.cause)
        except Exception as error:  # noqa: BLE001 - remembered and raised as a BuildError
            slot.failure = ((instance.name,), self._scrubbed(error))
        else:
            slot.service = service
            with self._lock:
                self._built.append(service)

    def _scrubbed(self, error: Exception) -> Exception:
        """Return *error* without secrets: as it is if it has none, else only its words."""
        text = str(error)
        clean = scrub(text, self._secrets)
        return error if clean == text else CastoreError(f"{type(error).__name__}: {clean}")

    def close(self) -> None:
        """Close what was built, dependants before what they depend on, even if some fail.

        Raises what a service raised while closing: a single error as it is, several as an `ExceptionGroup`.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            built, self._built = self._built, []
        errors: list[Exception] = []
        # An instance is listed when it is complete, so after all that it needs.
        for service in reversed(built):
            try:
                service.close()
            except Exception as error:  # noqa: BLE001 - the others must still be closed
                errors.append(error)
        self._workers.close()
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise ExceptionGroup("services failed to close", errors)


class _Slot:
    """The place of one instance: empty, built, or failed."""

    __slots__ = ("failure", "lock", "service")

    def __init__(self) -> None:
        # Never taken twice by one thread: the graph has no cycles.
        self.lock = threading.Lock()
        self.service: Any = None
        self.failure: tuple[tuple[str, ...], BaseException] | None = None
