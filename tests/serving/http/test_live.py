"""The live view of a composition: what it says, who sees it, and what it never shows."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from browser import Browser, needs_chromium
from served_over_http import ask, serving

import castore
from castore import B3Digest
from castore.composition.source import ConfigSource
from castore.metrics.model import InstanceMetrics, OperationMetrics
from castore.serving.access import Tokens
from castore.serving.live import watch as watch_module
from castore.serving.live.watch import Health, InstanceView, Watch
from castore.serving.live.words import curve, share_text, speed_text, texts
from castore.threads.deadlines import Clock

SECRET = "s3cr3t&<hunter2>"
PAGE = "/ui/composition"


def table(**more: Any) -> dict[str, Any]:
    store = {"type": "objectstore", "object_store_url": "file:./archive"}
    return {
        "blobservices": {
            "root": {"type": "cache", "near": "&near", "far": "&far", "write": "both"},
            "near": {"type": "lru", "inner": "memory:", "max_bytes": "1 MiB"},
            "far": {"type": "mirror", "services": ["&gate", "&archive"], "write_quorum": 1},
            "gate": {"type": "breaker", "inner": "&other"},
            "other": {"type": "memory"},
            "archive": store,
            **more,
        }
    }


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[castore.Composition]:
    with castore.Composition.from_mapping(table(), base=tmp_path) as opened:
        opened.blobs()
        yield opened


def states(look: Any) -> dict[str, str]:
    return {reading.metrics.name: reading.health.condition for reading in look.readings.values()}


def kill(folder: Path) -> None:
    """Have a store on disk fail."""
    if folder.exists():
        folder.rename(folder.with_suffix(".gone"))
    folder.write_text("no folder")


# -- looking --


def test_looking_changes_no_number(stores: castore.Composition) -> None:
    before = [entry.calls for entry in stores.metrics()]
    watch = Watch(stores)
    watch.look()
    watch.close()
    assert [entry.calls for entry in stores.metrics()] == before


def test_looking_builds_nothing(tmp_path: Path) -> None:
    with castore.Composition.from_mapping(table(), base=tmp_path) as stores:
        assert set(states(Watch(stores).look()).values()) == {"idle"}
        assert stores.running(stores.instance(castore.BlobService, "archive")) is None


def test_a_dead_store_is_told_of_by_what_uses_it(stores: castore.Composition, tmp_path: Path) -> None:
    """One of two members: the mirror goes on, with a fault; what has only dead ones is dead."""
    kill(tmp_path / "archive")
    watch = Watch(stores)
    look = watch.look()
    watch.close()
    found = {reading.metrics.name: reading.health for reading in look.readings.values()}
    assert found["archive"].condition == "dead"
    assert found["far"] == Health("heed", "archive is unavailable")
    assert found["gate"].condition == found["near"].condition == found["root"].condition == "well"


def test_what_has_only_dead_ones_is_dead(tmp_path: Path) -> None:
    only = {"type": "retry", "inner": "&archive"}
    with castore.Composition.from_mapping(table(root=only), base=tmp_path) as stores:
        stores.blobs()
        kill(tmp_path / "archive")
        look = Watch(stores).look()
        assert {states(look)[name] for name in ("root", "archive")} == {"dead"}


class HandClock(Clock):
    """A clock that is set by hand; what goes on takes real time."""

    hand = 0.0

    def now(self) -> float:
        return self.hand


def test_one_that_does_not_answer_is_dead_and_asked_once(
    stores: castore.Composition, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A question that hangs holds one thread, however often somebody looks."""
    asked: list[str] = []
    go_on = threading.Event()
    question = watch_module._question

    def hangs(service: object, name: str) -> tuple[float, str | None]:
        asked.append(name)
        if asked.count("archive") == 2:
            assert name != "archive" or go_on.wait(60)
        return question(service, name)

    monkeypatch.setattr(watch_module, "_question", hangs)
    clock = HandClock()
    watch = Watch(stores, clock=clock)
    try:
        assert states(watch.look())["archive"] == "well"
        for _ in range(5):
            clock.hand += 1.5
            look = watch.look()
        assert states(look)["archive"] == "dead"
        assert asked.count("archive") == 2
        go_on.set()
        pending = watch._probes["blobservices.archive"].pending
        assert pending is None or pending.wait(20)
        clock.hand += 1.5
        assert states(watch.look())["archive"] == "well"
    finally:
        go_on.set()
        watch.close()


def test_a_composition_that_was_read_anew_is_looked_at(stores: castore.Composition, tmp_path: Path) -> None:
    watch = Watch(stores)
    assert "more" not in states(watch.look())
    stores.reload(ConfigSource.of_mapping(table(more={"type": "memory"}), tmp_path)).close()
    assert "more" in states(watch.look())
    watch.close()


def test_how_full_it_is(stores: castore.Composition) -> None:
    stores.blobs().write(os.urandom(300_000))
    watch = Watch(stores)
    near = watch.look().readings["blobservices.near"]
    watch.close()
    assert near.fill is not None
    assert 0.2 < near.fill < 0.4
    assert texts(near)["gauges"].startswith(f"{share_text(near.fill)} full")


@pytest.mark.parametrize(
    ("speed", "text"),
    [
        (0, "0"),
        (12, "12 B/s"),
        (1023, "1.0 KiB/s"),
        (1024, "1.0 KiB/s"),
        (10_240, "10 KiB/s"),
        (5 << 40, "5120 GiB/s"),
    ],
)
def test_speeds(speed: float, text: str) -> None:
    assert speed_text(speed) == text


@pytest.mark.parametrize(
    ("share", "text"), [(0, "0 %"), (0.001, "1 %"), (0.5, "50 %"), (0.999, "99 %"), (1, "100 %")]
)
def test_shares_are_whole_only_if_they_are(share: float, text: str) -> None:
    assert share_text(share) == text


def test_the_curve_is_a_minute_wide() -> None:
    assert curve([]) == curve([0, 0]) == ""
    assert curve([0, 5, 10]).startswith("M177.8 22L177.8 21.0L180.9 11.0L184.0 1.0L184 22Z")


def test_words_on_a_card_stay_in_it() -> None:
    done = OperationMetrics(calls=1, items=1, errors={"corrupt": 10**9})
    metrics = InstanceMetrics("x" * 300, "t", "k", {"has": done}, {"y" * 300: 1.0})
    found = texts(
        InstanceView(
            metrics,
            Health("well", "z" * 300),
            {"calls": 9e9, "bytes_in": 9e15, "bytes_out": 1},
            1,
            1,
            0.5,
            [],
        )
    )
    assert all(len(text) < 40 for slot, text in found.items() if slot.startswith("card."))


# -- serving --


def test_it_is_off_unless_wanted(stores: castore.Composition) -> None:
    with serving(stores) as (port, _):
        assert ask(port, PAGE).status == ask(port, PAGE + "/state").status == 404
        assert PAGE.encode() not in ask(port, "/").body


TOKENS = """\
reader  read   reader-token-123456
writer  write  writer-token-123456
"""


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    path = tmp_path / "tokens"
    path.write_text(TOKENS)
    path.chmod(0o600)
    return Tokens.read(path)


def basic(password: str) -> str:
    return f"Basic {base64.b64encode(f'anybody:{password}'.encode()).decode()}"


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (None, 401),
        ("Bearer reader-token-123456", 200),
        ("Bearer writer-token-123456", 403),
        ("Bearer wrong-token-1234567", 401),
        (basic("reader-token-123456"), 200),
        (basic("wrong"), 401),
        ("Basic %%%", 401),
        ("Basic", 401),
    ],
)
def test_where_it_takes_a_token(
    stores: castore.Composition, tokens: Tokens, authorization: str | None, status: int
) -> None:
    """Trees stay open to all; only the view is not."""
    headers = {} if authorization is None else {"Authorization": authorization}
    with serving(stores, tokens, live="token") as (port, _):
        for path in (PAGE, PAGE + "/state"):
            answer = ask(port, path, headers)
            assert answer.status == status
        assert ("www-authenticate" in answer.headers) == (status == 401)
        assert ask(port, "/").status == 200


def test_without_tokens_nobody_has_one(stores: castore.Composition) -> None:
    with serving(stores, live="token") as (port, _):
        assert ask(port, PAGE).status == 401


def test_a_password_does_not_store(stores: castore.Composition, tokens: Tokens) -> None:
    """A browser sends it along to wherever a page of elsewhere sends it."""
    headers = {"Authorization": basic("writer-token-123456")}
    with serving(stores, tokens, live="token", writable=True) as (port, _):
        answer = ask(port, "/blob", headers, method="POST", body=b"x")
        assert (answer.status, "Basic" in answer.headers["www-authenticate"]) == (401, False)


def test_alone_it_is_all_that_is_served(stores: castore.Composition) -> None:
    with serving(stores, live="anybody", only_live=True) as (port, _):
        assert ask(port, "/").headers["location"] == PAGE
        digest = stores.blobs().write(b"x")
        answer = ask(port, f"{PAGE}?digest={digest}")
        assert answer.status == 200
        assert b"all, in one piece" in answer.body
        assert b'href="/blob/' not in answer.body
        for path in ("/blob/" + "0" * 64, "/tree/x/", "/api/tree/x", PAGE + "/", PAGE + "/x"):
            assert ask(port, path).status == 404
        assert ask(port, PAGE, method="POST").status in {403, 405}


def test_its_policy_lets_only_its_own_script_run(stores: castore.Composition) -> None:
    with serving(stores, live="anybody") as (port, _):
        answer = ask(port, PAGE)
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert answer.headers["cache-control"] == "no-store"
    page = answer.body.decode()
    assert not re.search(r"<[^>]* (on\w+|style)=|(src|href)=.?(https?:)?//", page)
    assert page.count("<script>") == page.count("<style>") == 1


def test_no_secret_is_in_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that of a URL, nor one by reference, whether all is well, or an error tells of it."""
    monkeypatch.setenv("PASSWORD", SECRET)
    monkeypatch.setenv("PLACE", f"/nowhere/{SECRET}")
    places = table(
        root={"type": "fallback", "services": ["&archive", "&web", "&place"]},
        web={
            "type": "objectstore",
            "object_store_url": "http://user:pa55word@127.0.0.1:9/x",
        },
        place={"type": "objectstore", "object_store_url": "file:${PLACE}"},
    )
    with castore.Composition.from_mapping(places, base=tmp_path) as stores:
        stores.blobs()
        with serving(stores, live="anybody") as (port, _):
            digest = B3Digest.of(b"x")
            bodies = [
                ask(port, path).body.decode() for path in (PAGE, PAGE + "/state", f"{PAGE}?digest={digest}")
            ]
            time.sleep(1)
            bodies += [ask(port, path).body.decode() for path in (PAGE, PAGE + "/state")]
    whole = "\n".join(bodies)
    assert "127.0.0.1:9" in whole
    assert "unavailable" in whole
    for secret in (SECRET, "hunter2", "pa55word"):
        assert secret not in whole, whole[whole.index(secret) - 200 :][:400]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("{digest}", "all, in one piece"),
        ("%20{digest}+", "all, in one piece"),
        ("{sri}", "all, in one piece"),
        ("0" * 64, "nothing"),
        ("nonsense%3Cb%3E", "nonsense&lt;b&gt;"),
        ("x" * 5000, 'role="alert"'),
    ],
)
def test_what_is_said_of_a_digest(stores: castore.Composition, asked: str, says: str) -> None:
    digest = stores.blobs().write(b"some blob")
    asked = asked.format(digest=digest, sri=quote(digest.sri, safe=""))
    with serving(stores, live="anybody") as (port, _):
        page = ask(port, f"{PAGE}?digest={asked}").body.decode()
    assert says in page
    assert ("<h3>put</h3>" in page) == (says in {"all, in one piece", "nothing"})
    assert (f'href="/blob/{digest}"' in page) == (says == "all, in one piece")


def test_names_are_text(tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>\"'&"
    hostile = {"root": {"type": "retry", "inner": f"&{name}"}, name: {"type": "memory"}}
    with castore.Composition.from_mapping({"blobservices": hostile}, base=tmp_path) as stores:
        stores.blobs()
        with serving(stores, live="anybody") as (port, _):
            page = ask(port, f"{PAGE}?digest={'0' * 64}").body.decode()
    assert "<img" not in page
    assert page.count("&lt;img") >= 3


# -- in a browser --


def row(browser: Browser, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        browser.do(
            f"""JSON.stringify((() => {{
                const row = document.querySelector('tr[data-name="{name}"]');
                const slot = (name) => row.querySelector(`[data-s="${{row.dataset.i}}.${{name}}"]`);
                return {{state: row.dataset.state, calls: +slot('calls').value, hits: +slot('hits').value,
                    misses: +slot('misses').value, bytes_in: +slot('bytes_in').value,
                    bytes_out: +slot('bytes_out').value, errors: +slot('errors').value}};
            }})())"""
        )
    )
    return found


def expected(entry: InstanceMetrics) -> dict[str, int]:
    names = ("calls", "hits", "misses", "bytes_in", "bytes_out")
    return {name: getattr(entry, name) for name in names} | {"errors": sum(entry.errors.values())}


@needs_chromium
def test_a_browser_shows_what_was_measured(
    browser: Browser, stores: castore.Composition, tmp_path: Path
) -> None:
    """It takes 6 s: work goes on while it looks; then a store dies, and turns red within two seconds."""
    blobs = stores.blobs()
    with serving(stores, live="anybody") as (port, _):
        browser.look_like()
        browser.open(f"http://127.0.0.1:{port}{PAGE}")
        for _ in range(20):
            for number in range(3):
                blobs.read(blobs.write(os.urandom(2000 + number)))
            time.sleep(0.02)
        browser.until("document.documentElement.dataset.live === 'yes'")
        calls = stores.metrics()["root"].calls
        browser.until(f"+document.querySelector('data[data-s=\"0.calls\"]').value === {calls}")
        for entry in stores.metrics():
            shown = row(browser, entry.name if entry.name != "near.inner" else "memory")
            assert {name: value for name, value in shown.items() if name != "state"} == expected(entry)
            assert shown["state"] == "well"
        # What is read is what was counted, too.
        shown = browser.do("document.querySelector('data[data-s=\"0.calls\"]').textContent")
        assert shown == f"{calls:,}"
        assert browser.complaints() == []
        kill(tmp_path / "archive")
        died = time.monotonic()
        browser.until("document.querySelector('g[data-state=dead]') !== null")
        assert row(browser, "archive")["state"] == "dead"
        assert time.monotonic() - died < 10
        colour = "getComputedStyle(document.querySelector('g[data-state=dead] .dot')).fill"
        browser.until(f"{colour} === 'rgb(209, 36, 47)'")
        browser.until("document.getElementById('said').textContent.includes('archive: unavailable')")
    # The server is gone: the page says that its numbers are old.
    browser.until("getComputedStyle(document.querySelector('.if-lost')).display === 'inline'")


@needs_chromium
def test_a_browser_on_a_phone_in_the_dark_by_keyboard(browser: Browser, stores: castore.Composition) -> None:
    """Nothing is wider than the window; a digest is typed, and Enter asks for it."""
    digest = stores.blobs().write(b"typed")
    with serving(stores, live="anybody") as (port, _):
        browser.look_like(360, 740, dark=True)
        browser.open(f"http://127.0.0.1:{port}{PAGE}")
        browser.until("document.documentElement.dataset.live === 'yes'")
        assert browser.do("document.documentElement.scrollWidth") == 360
        browser.press("Tab")
        browser.press("Tab")
        assert browser.do("document.activeElement.id") == "digest"
        browser.ask("Input.insertText", text=str(digest))
        browser.events.clear()
        browser.press("Enter")
        browser.until("document.querySelectorAll('.plan').length === 3")
        assert browser.do("document.documentElement.scrollWidth") == 360
        assert browser.do("getComputedStyle(document.querySelector('.graph')).display") == "none"
        dark = browser.do("getComputedStyle(document.body).backgroundColor")
        assert dark == "rgb(20, 23, 28)"
        assert browser.complaints() == []


@needs_chromium
def test_a_browser_gives_a_token_as_a_password(
    browser: Browser, stores: castore.Composition, tokens: Tokens
) -> None:
    """For the page, and for what its script asks."""
    with serving(stores, tokens, live="token") as (port, _):
        browser.open(f"http://any:reader-token-123456@127.0.0.1:{port}{PAGE}")
        browser.until("document.documentElement.dataset.live === 'yes'")
        assert browser.complaints() == []


@needs_chromium
def test_a_browser_without_script_has_a_page_that_is_whole(
    browser: Browser, stores: castore.Composition
) -> None:
    stores.blobs().write(b"something")
    with serving(stores, live="anybody") as (port, _):
        browser.look_like()
        browser.ask("Emulation.setScriptExecutionDisabled", value=True)
        try:
            browser.open(f"http://127.0.0.1:{port}{PAGE}")
        finally:
            browser.ask("Emulation.setScriptExecutionDisabled", value=False)
        assert row(browser, "root")["bytes_in"] == 9
        assert browser.do("getComputedStyle(document.querySelector('.if-still')).display") == "inline"


def prometheus(port: int) -> dict[str, float]:
    """Calls by instance, as another exporter tells them."""
    found: dict[str, float] = {}
    for line in ask(port, "/metrics").body.decode().splitlines():
        match = re.match(r'castore_operations_total\{.*instance="([^"]*)".*\} ([\d.e+]+)$', line)
        if match:
            found[match[1]] = found.get(match[1], 0) + float(match[2])
    return found


@needs_chromium
def test_a_browser_looks_while_castore_puts_and_gets(browser: Browser, tmp_path: Path) -> None:
    """It takes 6 s: a server and two clients are processes. Its numbers are those of its exporter."""
    pytest.importorskip("grpc")
    pytest.importorskip("prometheus_client")
    server, client = tmp_path / "server", tmp_path / "client"
    server.mkdir()
    client.mkdir()
    (server / "composition.toml").write_text(
        '[blobservices.root]\ntype = "cache"\nnear = "memory:"\nfar = "&disk"\n'
        '[blobservices.disk]\ntype = "objectstore"\nobject_store_url = "file:./store"\n'
    )
    (client / "composition.toml").write_text(
        f'[blobservices.root]\ntype = "grpc"\nurl = "grpc+unix:{server}/socket"\n'
    )
    (client / "data").write_bytes(os.urandom(3_000_000))
    castore_ = [sys.executable, "-m", "castore"]
    places = ["--listen", f"unix:{server}/socket", "--live", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]
    with subprocess.Popen(
        [*castore_, "--json", "serve", *places], cwd=server, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            document = json.loads(process.stdout.readline())
            browser.look_like()
            browser.open(document["live"][0])
            browser.until("document.documentElement.dataset.live === 'yes'")
            before = row(browser, "root")["bytes_in"]
            put = subprocess.run(
                [*castore_, "put", "data"],
                cwd=client,
                check=True,
                capture_output=True,
                text=True,
                timeout=100,
            )
            browser.until(
                f"+document.querySelector('data[data-s=\"0.bytes_in\"]').value >= {before + 3_000_000}"
            )
            subprocess.run(
                [*castore_, "get", put.stdout.split()[0], "-o", "copy"], cwd=client, check=True, timeout=100
            )
            assert (client / "copy").read_bytes() == (client / "data").read_bytes()
            exporter = int(document["metrics"][0].rpartition(":")[2])
            ends = time.monotonic() + 60
            while True:
                # What the last client has left is ended in its own time.
                wanted, shown = (
                    prometheus(exporter),
                    {name: row(browser, name)["calls"] for name in ("root", "disk")},
                )
                if shown == {name: wanted[name] for name in shown} and shown["root"] > 0:
                    break
                assert time.monotonic() < ends, (wanted, shown)
                time.sleep(0.1)
            process.terminate()
            assert process.wait(60) == 0
        finally:
            process.kill()
