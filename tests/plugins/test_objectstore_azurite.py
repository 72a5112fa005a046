"""Azure's own emulator, if it is there (`npm install azurite`): the same blobs by adlfs and by obstore."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from castore import Composition, RefService, UnavailableError
from castore.testing import BLOB_A, EMPTY, HELLO, P3M
from castore.upkeep import collect, verify
from castore_objectstore.locations import open_store
from tests.plugins.test_objectstore_clouds import KEY as ACCOUNT_KEY
from tests.refs import test_services as refs

AZURITE = os.environ.get("CASTORE_AZURITE") or shutil.which("azurite-blob")
"""The program."""

pytestmark = pytest.mark.processes

if AZURITE is None or not all(importlib.util.find_spec(name) for name in ("adlfs", "obstore")):
    pytest.skip("needs azurite-blob, adlfs and obstore", allow_module_level=True)

ACCOUNT = "devstoreaccount1"
DRIVERS = ("fsspec", "obstore")

CONFIG = """
[blobservices.root]
type = "objectstore"
object_store_url = "abfs://box/pre/fix"
driver = "DRIVER"
object_store_options = { connection_string = "STRING" }

[refservices.root]
type = "objectstore"
object_store_url = "abfs://box/pre/fix"
driver = "DRIVER"
object_store_options = { connection_string = "STRING" }
"""


@pytest.fixture(scope="module")
def string() -> Iterator[str]:
    """A server of its own, on a port that is free, and the way to it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    assert AZURITE
    command = [AZURITE, "--blobHost", "127.0.0.1", "--blobPort", str(port), "--inMemoryPersistence"]
    process = subprocess.Popen(
        [*command, "--disableTelemetry", "--skipApiVersionCheck", "--silent"], stdout=subprocess.DEVNULL
    )
    try:
        ends = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < ends
                time.sleep(0.05)
        yield (
            f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};"
            f"BlobEndpoint=http://127.0.0.1:{port}/{ACCOUNT};"
        )
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def box(string: str) -> Iterator[Any]:
    """A new, empty container, as another client sees it."""
    from azure.storage.blob import ContainerClient  # noqa: PLC0415 - adlfs has it

    with ContainerClient.from_connection_string(string, "box") as box:
        box.create_container()
        yield box
        box.delete_container()


def compose(driver: str, string: str, folder: Path) -> Composition:
    path = folder / f"{driver}.toml"
    path.write_text(CONFIG.replace("DRIVER", driver).replace("STRING", string))
    return Composition.from_toml(path)


def in_ten_days() -> float:
    return time.time() + 10 * 24 * 3600


def test_what_one_writes_the_other_reads(string: str, box: Any, tmp_path: Path) -> None:
    """Equal keys and equal bytes, as another client sees them; and all is removed in the end."""
    written: dict[str, dict[str, bytes]] = {}
    blobs = (BLOB_A, EMPTY, P3M, HELLO)
    for driver, other in (("fsspec", "obstore"), ("obstore", "fsspec")):
        with compose(driver, string, tmp_path) as writer, compose(other, string, tmp_path) as reader:
            for blob in blobs:
                assert writer.blobs().write(blob.data) == blob.digest
                assert reader.blobs().read(blob.digest) == blob.data
            assert set(reader.blobs().list_blobs()) == {blob.digest for blob in blobs}  # type: ignore[attr-defined]
            assert verify(reader.blobs()).ok
            names = [entry.name for entry in box.list_blobs()]
            written[driver] = {name: box.download_blob(name).readall() for name in names}
            collect(reader.blobs(), [], no_roots=True, clock=in_ten_days, pool=reader.pool)
        assert list(box.list_blobs()) == []
    assert written["fsspec"] == written["obstore"]
    assert len(written["obstore"]) > len(blobs)


@pytest.mark.parametrize("driver", DRIVERS)
def test_parts_of_an_object(string: str, box: Any, driver: Any) -> None:
    """Azure counts from the beginning alone, and has no part of nothing."""
    options = {"connection_string": string}
    store = open_store("abfs://box/pre", options, base=Path("/"), instance="root", driver=driver)
    data = bytes(range(100))
    store.put("chunks/a", data)
    store.put("chunks/empty", b"")
    assert store.get_range("chunks/a", 95, 10) == data[95:]
    assert store.get_range("chunks/a", 500, 10) == b""
    assert store.get_tail("chunks/a", 7) == data[-7:]
    assert store.get_tail("chunks/a", 700) == data
    assert store.get_tail("chunks/empty", 5) == b""
    assert store.get("chunks/empty") == b""
    assert store.get("chunks/none") is None
    assert store.get_range("chunks/none", 0, 5) is None
    assert [entry.key for entry in store.list("chunks/", after="chunks/a")] == ["chunks/empty"]
    store.close()


class TestRefsExpected(refs.TestExpecting):
    """What is expected is compared by Azure, too, which only obstore asks for."""

    @pytest.fixture
    def service(self, string: str, box: Any, tmp_path: Path) -> Iterator[RefService]:
        with compose("obstore", string, tmp_path) as stores:
            service = stores.refs()
            yield service
            for name in list(service.names()):
                assert service.delete(name, expect=service.get(name))
        assert list(box.list_blobs()) == []


@pytest.mark.parametrize("driver", DRIVERS)
def test_what_is_wrong(string: str, tmp_path: Path, driver: str) -> None:
    """A container that is not there, and a key that is another's."""
    with compose(driver, string, tmp_path) as stores:
        for call in (lambda: stores.blobs().has(HELLO.digest), lambda: stores.blobs().write(b"x")):
            with pytest.raises(UnavailableError, match="there is no bucket `box` there"):
                call()
    other = string.replace(ACCOUNT_KEY, "a2V5" + ACCOUNT_KEY[4:])
    with compose(driver, other, tmp_path) as stores:
        with pytest.raises(UnavailableError, match="credentials: the key or token is not one") as caught:
            stores.blobs().write(b"x")
        assert ACCOUNT_KEY[4:] not in str(caught.value)
