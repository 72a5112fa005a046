"""Whatever stands where a pack should: what its footer says is within it, or the damage is told."""

from __future__ import annotations

import struct

from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from castore import B3Digest
from castore.format import frames, packs
from castore.format.packs import PackBuilder, PackDamageError

FUZZ = settings.get_profile("fuzz")

EDITS = st.lists(
    st.tuples(st.integers(0, 5000), st.integers(0, 60), st.binary(max_size=60)), min_size=1, max_size=4
)
NUMBERS = st.sampled_from([0, 1, 23, 24, 40, 44, 84, 1 << 20, (1 << 32) - 1]) | st.integers(0, 600)


def pack(count: int) -> bytes:
    builder = PackBuilder()
    for number in range(count):
        chunk = b"%d" % number * (number * 7 % 30 + 1)
        builder.add(B3Digest.of(chunk), frames.compress(chunk), len(chunk))
    return b"".join(map(bytes, builder.finish({B3Digest.of(b"blob"): b"index"}).pieces))


def look(data: bytes) -> None:
    """Read a pack in both ways; what comes out of it is within it."""
    try:
        length = packs.footer_length(data[-packs.TRAILER_SIZE :], len(data))
        footer = packs.decode_footer(data[len(data) - length :], len(data))
    except PackDamageError:
        pass
    else:
        for entry in footer.entries:
            assert packs.HEADER_SIZE <= entry.offset < entry.offset + entry.length <= len(data) - length
        for record in footer.records:
            assert record.offset + record.length <= len(data) - packs.TRAILER_SIZE
    for entry in packs.recover(lambda offset, count: data[offset : offset + count], len(data)):
        frame = data[entry.offset : entry.offset + entry.length]
        assert B3Digest.of(frames.unpack(frame)) == entry.digest


@FUZZ
@given(st.integers(0, 12), EDITS)
def test_damaged_packs(count: int, edits: list[tuple[int, int, bytes]]) -> None:
    data = pack(count)
    for place, removed, new in edits:
        at = place % (len(data) + 1)
        data = data[:at] + new + data[at + removed :]
    look(data)


@FUZZ
@given(st.binary(max_size=300), NUMBERS, NUMBERS, NUMBERS)
def test_forged_footers(body: bytes, entries: int, blobs: int, length: int) -> None:
    """One whose digest is right, and whose numbers are anything."""
    footer = b"\x5d\x2a\x4d\x18" + struct.pack("<I", (length - 8) & 0xFFFFFFFF) + body
    footer += struct.pack("<IIII", entries, blobs, length, 0)
    look(pack(3)[:100] + footer + blake3(footer).digest()[:16] + b"CASPEND\x01")
