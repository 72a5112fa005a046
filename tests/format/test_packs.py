"""Packs: what is put in comes out, to the byte; and any zstd opens them."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
import zstandard
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from castore import B3Digest
from castore.format import frames, packs
from castore.format.packs import (
    BlobRecord,
    ChunkEntry,
    FinishedPack,
    Footer,
    PackBuilder,
    PackDamageError,
    UnknownVersionError,
)

CHUNKS = st.lists(st.binary(min_size=1, max_size=200), max_size=12, unique=True)
INDEXES = st.dictionaries(
    st.binary(min_size=32, max_size=32).map(B3Digest), st.binary(max_size=90), max_size=5
)


def pack_of(chunks: list[bytes], indexes: dict[B3Digest, bytes] | None = None) -> FinishedPack:
    builder = PackBuilder()
    for chunk in chunks:
        builder.add(B3Digest.of(chunk), frames.compress(chunk), len(chunk))
    return builder.finish(indexes or {})


def bytes_of(pack: FinishedPack) -> bytes:
    return b"".join(map(bytes, pack.pieces))


def footer_of(data: bytes) -> Footer:
    return packs.decode_footer(data[len(data) - packs.footer_length(data, len(data)) :], len(data))


def recovered(data: bytes) -> list[ChunkEntry]:
    return list(packs.recover(lambda offset, count: data[offset : offset + count], len(data)))


def test_to_the_byte() -> None:
    """A pack of one chunk and one blob, put together by hand."""
    chunk = b"Hello World!"
    digest = B3Digest.of(chunk)
    frame = frames.compress(chunk)
    header = bytes.fromhex("5c2a4d18 10000000") + b"CASPACK\x01" + struct.pack("<II", 1, 0)
    entry = digest + struct.pack("<III", 24, len(frame), 12)
    record = B3Digest.of(b"other") + struct.pack("<I", 3) + b"abc"
    length = 8 + 44 + 39 + 40
    footer = bytes.fromhex("5d2a4d18") + struct.pack("<I", length - 8) + entry + record
    footer += struct.pack("<IIII", 1, 1, length, 0)
    footer += blake3(footer).digest()[:16] + b"CASPEND\x01"
    pack = pack_of([chunk], {B3Digest.of(b"other"): b"abc"})
    assert bytes_of(pack) == header + frame + footer
    assert pack.digest == B3Digest.of(header + frame + footer)
    assert pack.size == len(header + frame + footer)
    assert pack.footer == Footer(
        [ChunkEntry(digest, 24, len(frame), 12)],
        [BlobRecord(B3Digest.of(b"other"), 24 + len(frame) + 8 + 44 + 36, 3)],
    )


def test_a_name_of_its_own() -> None:
    """16 bytes after the chunks, in a frame that zstd passes over, and everything is found beside them."""
    index = {B3Digest.of(b"other"): b"abc"}
    builder = PackBuilder()
    builder.add(B3Digest.of(b"chunk"), frames.compress(b"chunk"), 5)
    plain = bytes_of(builder.finish(index))
    names = {builder.finish(index, bytes([number]) * 16).digest for number in range(3)}
    assert len(names | {B3Digest.of(plain)}) == 4
    pack = builder.finish(index, b"0123456789abcdef")
    data = bytes_of(pack)
    start = 24 + len(frames.compress(b"chunk"))
    assert data[:start] == plain[:start]
    assert data[start : start + 24] == bytes.fromhex("5e2a4d18 10000000") + b"0123456789abcdef"
    assert data[start + 24 :] == plain[start:]
    assert pack.digest == B3Digest.of(data)
    assert footer_of(data) == pack.footer
    (record,) = pack.footer.records
    assert data[record.offset : record.offset + record.length] == b"abc"
    assert recovered(data) == list(pack.footer.entries)
    reader = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True)
    assert reader.read() == b"chunk"


@given(CHUNKS, INDEXES)
def test_what_is_put_in_comes_out(chunks: list[bytes], indexes: dict[B3Digest, bytes]) -> None:
    """Chunks by their places, indexes by theirs; and without the footer by the frames."""
    pack = pack_of(chunks, indexes)
    data = bytes_of(pack)
    assert data[:24] == struct.pack("<II8sII", 0x184D2A5C, 16, b"CASPACK\x01", 1, 0)
    found = footer_of(data)
    assert found == pack.footer
    read = {
        entry.digest: frames.unpack(data[entry.offset : entry.offset + entry.length])
        for entry in found.entries
    }
    assert read == {B3Digest.of(chunk): chunk for chunk in chunks}
    assert {
        record.digest: data[record.offset : record.offset + record.length] for record in found.records
    } == indexes
    assert sorted(recovered(data)) == sorted(found.entries)


def test_zstd_opens_it(tmp_path: Path) -> None:
    """It gives the chunks in order, for the library and for the program."""
    chunks = [b"%d" % number * 50 for number in range(300)]
    data = bytes_of(pack_of(chunks, {B3Digest.of(b""): b""}))
    reader = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True)
    assert reader.read() == b"".join(chunks)
    if shutil.which("zstd"):
        path = tmp_path / "pack.zst"
        path.write_bytes(data)
        subprocess.run(["zstd", "-tq", path], check=True)
        assert subprocess.run(["zstd", "-dcq", path], check=True, capture_output=True).stdout == b"".join(
            chunks
        )


@given(CHUNKS, st.data())
def test_no_damage_of_a_footer_passes(chunks: list[bytes], data: st.DataObject) -> None:
    """A bit that is turned, or bytes that are cut, are seen; the chunks can be had all the same."""
    pack = pack_of(chunks, {B3Digest.of(b"x"): b"y"})
    whole = bytes_of(pack)
    start = len(whole) - len(pack.pieces[1])  # type: ignore[arg-type]
    place = data.draw(st.integers(start, len(whole) - 1))
    turned = bytearray(whole)
    turned[place] ^= 1 << data.draw(st.integers(0, 7))
    for damaged in (bytes(turned), whole[:place]):
        with pytest.raises(PackDamageError):
            footer_of(damaged)
    assert recovered(whole[:start]) == sorted(pack.footer.entries, key=lambda entry: entry.offset)


def test_a_frame_that_is_damaged_hides_none_after_it() -> None:
    """The next one is looked for by its first bytes."""
    pack = pack_of([b"one" * 40, b"two" * 40, b"three" * 40])
    first, second, third = sorted(pack.footer.entries, key=lambda entry: entry.offset)
    data = bytearray(bytes_of(pack))
    data[second.offset : second.offset + 4] = bytes(4)
    assert recovered(bytes(data)) == [first, third]


def test_a_newer_version_is_told_from_damage() -> None:
    """Its bytes are whole: nobody may take them for rubbish."""
    data = bytes_of(pack_of([b"x"]))
    footer = bytearray(data[-packs.footer_length(data, len(data)) :])
    footer[-28:-24] = struct.pack("<I", 1)
    footer[-24:-8] = blake3(footer[:-24]).digest()[:16]
    with pytest.raises(UnknownVersionError, match=r"flags 1.* newer castore"):
        packs.decode_footer(bytes(footer), len(data))


@given(
    st.lists(st.tuples(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32)), max_size=9)
)
def test_the_dead(pairs: list[tuple[bytes, bytes]]) -> None:
    data = packs.encode_dead(pairs, bytes(16))
    assert list(packs.decode_dead(data)) == sorted(pairs)
    with pytest.raises(PackDamageError):
        packs.decode_dead(data[:-1])
    with pytest.raises(UnknownVersionError):
        packs.decode_dead(data[:8] + b"\x02" + data[9:])
