"""What a server tells of itself: whether its services are healthy, and which there are."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, Final

from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from castore.serving.grpc.server import GrpcServer
from castore.threads.executors import CountingExecutor
from castore.threads.pool import start_thread
from castore.threads.waiting import Flag

_log: Final = logging.getLogger("castore.serving")

SERVICE: Final = health.SERVICE_NAME

_SERVING: Final = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING


class HealthReport:
    """Answers whether services are healthy, by their names and for all of them as the empty name.

    Arguments:
        server: Whose services they are; it must not have been started.
        probe: Tells of each service, by the last part of its name, whether it is healthy; asked now and then.
        seconds: How long a report is good for.
    """

    def __init__(
        self, server: GrpcServer, probe: Callable[[], dict[str, bool]], *, seconds: float = 10.0
    ) -> None:
        self._names = server.names
        self._probe = probe
        self._seconds = seconds
        self._ended = Flag()
        self._servicer: Any = health.HealthServicer(
            experimental_non_blocking=True, experimental_thread_pool=CountingExecutor(2, "health")
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server.server)

    def start(self) -> None:
        """Report from now on."""
        self._report()
        start_thread(self._go_on, "castore_health")

    def _go_on(self) -> None:
        while not self._ended.wait(self._seconds):
            self._report()

    def _report(self) -> None:
        try:
            found = self._probe()
        except Exception:  # noqa: BLE001 - no error may end the thread that asks
            # Nothing is known of them, and the next time something may be.
            _log.exception("the services could not be probed")
            found = {name.rpartition(".")[2]: False for name in self._names}
        if self._ended.is_set():
            return
        for name in self._names:
            self._set(name, healthy=found.get(name.rpartition(".")[2], True))
        self._set("", healthy=all(found.values()))

    def _set(self, name: str, *, healthy: bool) -> None:
        self._servicer.set(name, _SERVING if healthy else _NOT_SERVING)

    def leave(self) -> None:
        """Tell that the server is about to stop."""
        self._ended.set()
        self._servicer.enter_graceful_shutdown()


def add_reflection(server: GrpcServer, others: Iterable[str] = (SERVICE,)) -> None:
    """Let clients ask which services there are, and what their messages are; before the server is started."""
    from grpc_reflection.v1alpha import reflection  # noqa: PLC0415 - not every server tells

    # What is told of is what is loaded.
    from castore.format.proto import castore_pb2, tvix_castore_pb2  # noqa: F401, PLC0415 - as above

    reflection.enable_server_reflection((*server.names, *others, reflection.SERVICE_NAME), server.server)
