"""`castore serve`."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

import click

from castore.cli.options import as_seconds, as_size, shared_options
from castore.cli.output import complain, emit_text
from castore.cli.settings import Settings
from castore.composition.composition import Composition
from castore.composition.config.values import secrets_in
from castore.composition.graph.graph import Instance
from castore.composition.reloading import Fate
from castore.contract.blobs import BlobService
from castore.contract.directories import DirectoryService
from castore.errors import CastoreError, CompositionError, MissingDriverError
from castore.serving.epochs import Epochs
from castore.threads.waiting import Flag

if TYPE_CHECKING:
    from castore.serving.access import Tokens
    from castore.serving.grpc.calls import CallRecord
    from castore.serving.grpc.server import GrpcServer
    from castore.serving.live.server import LiveServer
    from castore.serving.metrics import CallCounts, MetricsPage

_EPILOG = """\b
Examples:
  castore serve                                 at localhost, port 8000
  castore serve --listen unix:/run/castore.sock
  castore serve --listen [::]:8443 --tls-cert cert.pem --tls-key key.pem

A file of tokens has a line for each: a name, its rights (read, write, or both with a comma), and the token.
SIGHUP reads it and the composition anew; calls that run go on with what they
began with. Certificates are read anew by themselves.

With --json the first line on stdout says where it listens: {"listening": [...]}
"""


@click.command("serve", epilog=_EPILOG)
@click.option(
    "--listen",
    "places",
    metavar="PLACE",
    multiple=True,
    help="Where to listen: unix:PATH, HOST:PORT, or systemd for the sockets that it hands over; may be given"
    " more than once. By default those, or else localhost:8000.",
)
@click.option("--tls-cert", metavar="FILE", type=click.Path(), help="The certificate of this server, in PEM.")
@click.option("--tls-key", metavar="FILE", type=click.Path(), help="Its key.")
@click.option(
    "--tls-client-ca",
    metavar="FILE",
    type=click.Path(),
    help="Let in only clients with a certificate that one in FILE has signed.",
)
@click.option("--tokens", metavar="FILE", type=click.Path(), help="Let in only who has a token in FILE.")
@click.option("--insecure", is_flag=True, help="Let other machines connect without encryption.")
@click.option(
    "--socket-mode",
    metavar="MODE",
    default="600",
    show_default=True,
    help="The mode of unix sockets, in octal.",
)
@click.option("--no-directories", is_flag=True, help="Serve blobs alone.")
@click.option("--read-only", is_flag=True, help="Store nothing.")
@click.option(
    "--reflection/--no-reflection",
    default=None,
    help="Tell clients which services there are; by default only if no other machine can connect.",
)
@click.option(
    "--access-log",
    type=click.Choice(["text", "json"]),
    help="Write a line for each call to stderr.",
)
@click.option(
    "--metrics",
    metavar="HOST:PORT",
    help="Serve what was measured there, at /metrics, for Prometheus.",
)
@click.option(
    "--live",
    metavar="PLACE",
    help="Show the composition there in a browser, second by second: HOST:PORT. With --tokens it takes one.",
)
@click.option(
    "--grace",
    metavar="TIME",
    default="30 s",
    show_default=True,
    type=as_seconds,
    help="How long calls that run may take to end, once the server is told to.",
)
@click.option(
    "--idle",
    metavar="TIME",
    default="30 s",
    show_default=True,
    type=as_seconds,
    help="Cut off a client that neither sends nor takes anything for so long.",
)
@click.option(
    "--streams",
    metavar="N",
    default=24,
    show_default=True,
    type=click.IntRange(1, 1024),
    help="How many blobs and trees to send and receive at once.",
)
@click.option(
    "--in-flight",
    metavar="SIZE",
    default="256 MiB",
    show_default=True,
    type=as_size,
    help="How many bytes to hold for all of them together.",
)
@shared_options
@click.pass_obj
def command(settings: Settings, /, **options: Any) -> int | None:
    """Serve blobs and directories to other programs: clients of castore, snix and tvix.

    It serves the blob service `root`, or that of --service, and the directories of the composition, by the
    gRPC protocol of the reference, until it gets SIGTERM or SIGINT. Then calls that run are finished.
    """
    try:
        import castore.serving.grpc.health  # noqa: F401, PLC0415 - help needs no gRPC
    except ImportError as error:
        if not (error.name or "").startswith(("grpc", "google")):
            raise
        raise MissingDriverError(
            "`castore serve` needs a package that is not installed: pip install 'castore[grpc]'"
        ) from error
    with settings.opened(measured=bool(options["metrics"] or options["live"])) as stores:
        return _Serving(settings, stores, options).run()


class _Serving:
    """One run of the command."""

    def __init__(self, settings: Settings, stores: Composition, options: dict[str, Any]) -> None:
        self._settings = settings
        self._stores = stores
        self._options = options
        self._stopping = Flag()
        self._reload_wanted = False
        self._woken = Flag()
        self._epochs = Epochs(lambda error: complain(f"castore: while it was closed: {error}"))
        self._counts: CallCounts | None = None
        self._listening_for_metrics = ""
        self._live_url = ""
        self._tokens: Tokens | None = None
        self._name = settings.service_name

    def run(self) -> int | None:
        from castore.serving.grpc.health import HealthReport, add_reflection  # noqa: PLC0415 - as above
        from castore.serving.notifying import notify  # noqa: PLC0415 - as above

        # Built now: a mistake is told before anybody connects.
        self._stores.blobs(self._name)
        self._read_tokens()
        server, listening, all_local = self._server()
        health = HealthReport(server, self._probe)
        page = self._metrics_page()
        live = self._live_server()
        reflection = self._options["reflection"]
        if all_local if reflection is None else reflection:
            add_reflection(server)
        with contextlib.ExitStack() as closing:
            if page is not None:
                closing.callback(page.close)
            if live is not None:
                closing.callback(live.close)
            closing.enter_context(self._signals())
            server.start()
            health.start()
            self._tell(listening)
            notify("READY=1")
            while not self._stopping.is_set():
                self._woken.wait()
                self._woken.clear()
                if self._reload_wanted:
                    notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
                    self._reload()
                    notify("READY=1")
            notify("STOPPING=1")
            health.leave()
            if server.stop(self._options["grace"]):
                return None
        complain(f"castore: some calls did not end within {self._options['grace']:g} s, and were cut off")
        return 1

    def _signals(self) -> _Signals:
        return _Signals(self._stop, self._ask_to_reload)

    def _metrics_page(self) -> MetricsPage | None:
        from castore.serving.listening import Address  # noqa: PLC0415 - as above

        place = self._options["metrics"]
        if place is None:
            return None
        from castore.format.sockets import split_host_port  # noqa: PLC0415 - as above
        from castore.serving.metrics import CallCounts, MetricsPage  # noqa: PLC0415 - as above

        try:
            address = Address.parse(place)
            host, port = split_host_port(place)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        if not (address.is_local or self._options["insecure"]):
            raise CompositionError(
                f"{place} can be reached from other machines, and metrics are not encrypted: say `--insecure`"
            )
        assert isinstance(self._counts, CallCounts)
        page = MetricsPage(host, port or 0, self._stores, self._counts)
        self._listening_for_metrics = address.with_port(page.port)
        return page

    def _live_server(self) -> LiveServer | None:
        from castore.serving.access import Tokens  # noqa: PLC0415 - as above
        from castore.serving.listening import Address  # noqa: PLC0415 - as above

        place = self._options["live"]
        if place is None:
            return None
        try:
            from castore.serving.live.server import LiveServer  # noqa: PLC0415 - as above
        except ImportError as error:
            if error.name not in {"uvicorn", "h11"}:
                raise
            raise MissingDriverError(
                "`--live` needs a package that is not installed: pip install 'castore[web]'"
            ) from error
        try:
            address = Address.parse(place)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        none = Tokens()
        server = LiveServer(
            self._stores,
            self._name,
            address,
            tokens=lambda: self._tokens or none,
            tls=self._tls(),
            insecure=self._options["insecure"],
            report=lambda line: complain(f"castore: {line}"),
        )
        self._live_url = server.url
        return server

    def _server(self) -> tuple[GrpcServer, list[str], bool]:
        from castore.serving.access import Tokens  # noqa: PLC0415 - as above
        from castore.serving.activation import places_to_listen  # noqa: PLC0415 - as above
        from castore.serving.grpc.limits import Limits  # noqa: PLC0415 - as above
        from castore.serving.grpc.server import GrpcServer  # noqa: PLC0415 - as above
        from castore.serving.listening import Address  # noqa: PLC0415 - as above

        options = self._options
        handed_over, places = places_to_listen(options["places"], "localhost:8000")
        try:
            addresses = [Address.parse(place) for place in places]
            mode = int(options["socket_mode"], 8)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        none = Tokens()
        server = GrpcServer(
            self._blobs,
            None if options["no_directories"] else self._stores.directories,
            limits=Limits(
                streams=options["streams"], bytes_in_flight=options["in_flight"], idle_seconds=options["idle"]
            ),
            tokens=lambda: self._tokens or none,
            record=self._record(options["access_log"]),
            tls=self._tls(),
            insecure=options["insecure"],
            read_only=options["read_only"],
            around=self._epochs.use,
        )
        listening = [server.listen(address, mode=mode) for address in addresses]
        listening += [server.take(each) for each in handed_over]
        addresses += [Address.of_socket(each) for each in handed_over]
        return server, listening, all(address.is_local for address in addresses)

    def _blobs(self) -> BlobService:
        return self._stores.blobs(self._name)

    def _tls(self) -> Any:
        from castore.serving.tls import TlsFiles  # noqa: PLC0415 - as above

        certificate, key, client_ca = (self._options[f"tls_{name}"] for name in ("cert", "key", "client_ca"))
        if certificate is None and key is None:
            if client_ca is not None:
                raise click.UsageError("--tls-client-ca needs --tls-cert and --tls-key.")
            return None
        if certificate is None or key is None:
            raise click.UsageError("--tls-cert and --tls-key come together.")
        return TlsFiles(Path(certificate), Path(key), None if client_ca is None else Path(client_ca))

    def _record(self, form: Literal["text", "json"] | None) -> Callable[[CallRecord], object]:
        from castore.serving.grpc.access_log import AccessLog  # noqa: PLC0415 - as above

        recorders: list[Callable[[CallRecord], object]] = []
        if form is not None:
            recorders.append(AccessLog(complain, form))
        if self._options["metrics"] is not None:
            from castore.serving.metrics import CallCounts  # noqa: PLC0415 - as above

            self._counts = CallCounts()
            recorders.append(self._counts)
        return lambda record: [recorder(record) for recorder in recorders]

    def _tell(self, listening: list[str]) -> None:
        if self._settings.json:
            # In one line: who has started this reads no further.
            document = {"listening": listening}
            if self._listening_for_metrics:
                document["metrics"] = [self._listening_for_metrics]
            if self._live_url:
                document["live"] = [self._live_url]
            emit_text(json.dumps(document) + "\n")
        else:
            self._settings.remark(f"castore: `{self._name}` is served at {', '.join(listening)}")
            if self._live_url:
                self._settings.remark(f"castore: to be seen at {self._live_url}")

    def _probe(self) -> dict[str, bool]:
        names = ["BlobService"]
        instances = [self._stores.instance(BlobService, self._name)]
        if not self._options["no_directories"]:
            names.append("DirectoryService")
            instances.append(self._directories())
        probes = self._stores.probe(instances, timeout=5.0)
        return {name: probe.ok for name, probe in zip(names, probes, strict=True)}

    def _directories(self) -> Instance:
        """Return what keeps the directories; where none is declared the blobs of `root` do."""
        try:
            return self._stores.instance(DirectoryService)
        except CompositionError:
            return self._stores.instance(BlobService)

    def _read_tokens(self) -> None:
        from castore.serving.access import Tokens  # noqa: PLC0415 - as above

        if self._options["tokens"] is not None:
            self._tokens = Tokens.read(Path(self._options["tokens"]))

    def _ask_to_reload(self) -> None:
        self._reload_wanted = True
        self._woken.set()

    def _reload(self) -> None:
        """Read anew what can be, outside of the signal; what is wrong leaves things as they are."""
        self._reload_wanted = False
        try:
            self._read_tokens()
        except CompositionError as error:
            complain(f"castore: the tokens stay as they are: {error}")
        try:
            reloaded = self._stores.reload()
        except CastoreError as error:
            complain(self._settings.scrubbed(f"castore: the composition stays as it is: {error}"))
            return
        for instance in self._stores.graph.instances.values():
            self._settings.secrets += secrets_in(instance.config)
        self._epochs.change(reloaded.close)
        fates: tuple[Fate, ...] = ("changed", "added", "removed")
        counts = [f"{count} {fate}" for fate in fates if (count := len(reloaded.plan.of(fate)))]
        self._settings.remark(
            f"castore: the composition was read anew: {', '.join(counts) or 'nothing changed'}"
        )

    def _stop(self) -> None:
        self._stopping.set()
        self._woken.set()


class _Signals:
    """Calls functions on signals, in the main thread, for as long as a block takes."""

    def __init__(self, stop: Callable[[], None], reload: Callable[[], None]) -> None:
        self._calls = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: reload}
        self._before: dict[int, Any] = {}
        self._told = False

    def _handle(self, number: int, _: FrameType | None) -> None:
        if number != signal.SIGHUP:
            if self._told:
                raise KeyboardInterrupt
            self._told = True
        self._calls[signal.Signals(number)]()

    def __enter__(self) -> None:
        self._before = {number: signal.signal(number, self._handle) for number in self._calls}

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
