"""`castore http`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from castore.cli.options import as_seconds, as_size, shared_options
from castore.cli.output import complain, emit_text
from castore.cli.roots import as_place
from castore.cli.settings import Settings
from castore.errors import CompositionError, MissingDriverError
from castore.trees.naming import TreePlace

if TYPE_CHECKING:
    from castore.composition.composition import Composition
    from castore.serving.access import Tokens
    from castore.serving.listening import Address

_EPILOG = """\b
Examples:
  castore http                           all refs, at http://localhost:8080/
  castore http ROOT                      one tree, or a ref as it stands
  castore http --tokens FILE --writable  curl -T FILE .../blob/DIGEST
  castore http --live                    and how the stack is, /ui/composition
  castore http www --site --index-name index.html

A file of tokens has a line for each: a name, its rights (read, write, or both with a comma), and the token.
SIGHUP reads it anew.

\b
With --json the first line on stdout says where it listens:
  {"listening": [...]}
"""

_LOCAL: Final = "localhost"


@click.command("http", epilog=_EPILOG)
@click.argument("root", metavar="[ROOT[:PATH]]", required=False, type=as_place)
@click.option(
    "--listen",
    "places",
    metavar="PLACE",
    multiple=True,
    help="Where to listen: unix:PATH, HOST:PORT, or systemd for the sockets that it hands over; may be given"
    " more than once. By default those, or else localhost:8080.",
)
@click.option("--tls-cert", metavar="FILE", type=click.Path(), help="The certificate of this server, in PEM.")
@click.option("--tls-key", metavar="FILE", type=click.Path(), help="Its key.")
@click.option("--insecure", is_flag=True, help="Let other machines connect without encryption.")
@click.option("--tokens", metavar="FILE", type=click.Path(), help="The tokens that writing takes.")
@click.option("--private", is_flag=True, help="Reading takes a token as well.")
@click.option("--writable", is_flag=True, help="Let who has a token for that store blobs.")
@click.option(
    "--most-body", metavar="SIZE", default="1 TiB", show_default=True, type=as_size, help="The largest blob."
)
@click.option("--auto-index/--no-auto-index", default=True, help="List directories.  [default: yes]")
@click.option(
    "--index-name",
    "index_names",
    metavar="NAME",
    multiple=True,
    help="A file that stands for its directory, such as index.html; may be given more than once.",
)
@click.option(
    "--site",
    is_flag=True,
    help="ROOT is a site that you trust: its pages may do what pages do. Nothing else is served.",
)
@click.option("--host", "hosts", metavar="NAME", multiple=True, help="Another name that this server has.")
@click.option(
    "--cors", metavar="ORIGIN", multiple=True, help="Let pages of ORIGIN read, such as https://example.org."
)
@click.option(
    "--live",
    is_flag=True,
    help="Show the composition at /ui/composition, second by second; where other machines can connect, to who"
    " has a token.",
)
@click.option("--trust-store", is_flag=True, help="Send stored frames without checking their contents first.")
@click.option(
    "--idle",
    metavar="TIME",
    default="30 s",
    show_default=True,
    type=as_seconds,
    help="Give up a client that neither sends nor takes anything for so long.",
)
@shared_options
@click.pass_obj
def command(settings: Settings, /, root: TreePlace | None, **options: Any) -> None:
    """Serve blobs and trees over HTTP, for browsers and `curl`, until SIGTERM or SIGINT.

    With ROOT that tree is at `/`; without it there is a list of the refs. Blobs are at `/blob/DIGEST`, trees
    at `/tree/ROOT/`, and at `/api/tree/ROOT/` as JSON. What comes out is checked, and nothing is stored
    unless --writable.
    """
    try:
        import uvicorn  # noqa: F401, PLC0415 - help needs none
    except ImportError as error:
        raise MissingDriverError(
            "`castore http` needs a package that is not installed: pip install 'castore[web]'"
        ) from error
    if (options["writable"] or options["private"]) and not options["tokens"]:
        raise click.UsageError("--writable and --private need --tokens FILE.")
    if options["site"] and root is None:
        raise click.UsageError("--site is for one ROOT.")
    if (options["tls_cert"] is None) != (options["tls_key"] is None):
        raise click.UsageError("--tls-cert and --tls-key come together.")
    if options["site"] and options["live"]:
        raise click.UsageError("--site serves nothing else: --live needs a server of its own.")
    with settings.opened(measured=options["live"]) as stores:
        _serve(settings, stores, root, options)


def _serve(settings: Settings, stores: Composition, root: TreePlace | None, options: dict[str, Any]) -> None:
    from castore.serving.access import Tokens  # noqa: PLC0415 - as above
    from castore.serving.activation import places_to_listen  # noqa: PLC0415 - as above
    from castore.serving.http.app import HttpApp  # noqa: PLC0415 - as above
    from castore.serving.http.options import HttpOptions  # noqa: PLC0415 - as above
    from castore.serving.http.server import HttpServer  # noqa: PLC0415 - as above
    from castore.serving.listening import Address  # noqa: PLC0415 - as above
    from castore.serving.notifying import notify  # noqa: PLC0415 - as above
    from castore.serving.tls import TlsFiles  # noqa: PLC0415 - as above

    name = settings.service_name
    stores.blobs(name)  # Built now: a mistake is told before anybody connects.
    handed_over, places = places_to_listen(options["places"], "localhost:8080")
    try:
        own = [Address.parse(place) for place in places]
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    addresses = own + [Address.of_socket(each) for each in handed_over]

    def read_tokens() -> Tokens:
        return Tokens() if options["tokens"] is None else Tokens.read(Path(options["tokens"]))

    tokens = read_tokens()
    # What has another name may stand behind a proxy, whatever address it listens at.
    alone = all(address.is_local for address in addresses) and not options["hosts"]
    if options["live"] and not alone and not tokens:
        raise click.UsageError(
            "--live shows places and hosts: where others can connect, or with --host, it needs --tokens."
        )
    app = HttpApp(
        stores,
        name,
        HttpOptions(
            root=None if root is None else str(root),
            auto_index=options["auto_index"],
            index_names=options["index_names"],
            site=options["site"],
            writable=options["writable"],
            private=options["private"],
            # A page of elsewhere may have a name that leads to this machine.
            hosts=_hosts(addresses, options["hosts"]),
            cors=frozenset(options["cors"]),
            check_frames=not options["trust_store"],
            most_body=options["most_body"],
            idle=options["idle"],
            live="off" if not options["live"] else "anybody" if alone else "token",
        ),
        tokens=lambda: tokens,
        report=lambda line: complain(f"castore: {line}"),
    )
    app.require_root()
    certificate, key = (options[f"tls_{each}"] for each in ("cert", "key"))
    tls = TlsFiles(Path(certificate), Path(key)) if certificate else None
    server = HttpServer(app, tls=tls, insecure=options["insecure"], idle=options["idle"])
    for address in own:
        server.listen(address)
    for each in handed_over:
        server.take(each)

    def ready() -> None:
        if settings.json:
            emit_text(json.dumps({"listening": server.urls}) + "\n", flush=True)
        else:
            settings.remark(f"castore: open {' or '.join(server.urls)}")
        notify("READY=1")

    def reload() -> None:
        nonlocal tokens
        try:
            tokens = read_tokens()
        except CompositionError as error:
            complain(f"castore: the tokens stay as they are: {error}")

    server.run(ready, reload, lambda: notify("STOPPING=1"))


def _hosts(addresses: list[Address], named: tuple[str, ...]) -> set[str] | None:
    """Return the names that requests may have for this server; `None` for any."""
    if not named and not all(address.is_local for address in addresses):
        return None
    return {
        _LOCAL,
        *(name.lower() for name in named),
        *(each.host.lower() for each in addresses if each.host),
    }
