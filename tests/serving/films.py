"""A film in WebM: frames that a browser has encoded, and so much between them that nobody reads all of it."""

from __future__ import annotations

import base64
import struct

from browser import Browser

SECONDS = 20
_FRAMES_A_SECOND = 2

_ENCODE = """
(async () => {
  const canvas = new OffscreenCanvas(64, 36), context = canvas.getContext("2d"), found = [];
  const encoder = new VideoEncoder({
    output(chunk) {
      const data = new Uint8Array(chunk.byteLength);
      chunk.copyTo(data);
      found.push(btoa(String.fromCharCode(...data)));
    },
    error(error) { throw error; },
  });
  encoder.configure({codec: "vp8", width: 64, height: 36, bitrate: 100_000, latencyMode: "realtime"});
  for (let number = 0; number < COUNT; number++) {
    context.fillStyle = number < COUNT / 2 ? "rgb(200,0,0)" : "rgb(0,0,200)";
    context.fillRect(0, 0, 64, 36);
    const frame = new VideoFrame(canvas, {timestamp: number * 500_000});
    encoder.encode(frame, {keyFrame: number % (COUNT / 4) === 0});
    frame.close();
  }
  await encoder.flush();
  return found.join(",");
})()
"""


def _element(id_: str, data: bytes) -> bytes:
    return bytes.fromhex(id_) + (len(data) | 1 << 56).to_bytes(8, "big") + data


def _number(id_: str, value: int) -> bytes:
    return _element(id_, value.to_bytes(8, "big"))


def film(browser: Browser, between: int) -> bytes:
    """Return a film that is red for ten seconds, and then blue, with *between* bytes after each five seconds.

    The browser must be at a page of this machine.
    """
    count = SECONDS * _FRAMES_A_SECOND
    frames = [base64.b64decode(each) for each in browser.do(_ENCODE.replace("COUNT", str(count))).split(",")]
    assert len(frames) == count
    header = _element(
        "1a45dfa3", _element("4282", b"webm") + _number("4287", 2) + _number("4285", 2) + _number("42f2", 4)
    )
    video = _element("e0", _number("b0", 64) + _number("ba", 36))
    track = _number("d7", 1) + _number("73c5", 1) + _number("83", 1) + _element("86", b"V_VP8") + video
    duration = _element("4489", struct.pack(">d", SECONDS * 1000.0))
    info = _element("1549a966", _number("2ad7b1", 1_000_000) + duration)
    tracks = _element("1654ae6b", _element("ae", track))
    quarter = count // 4
    clusters = []
    for begin in range(0, count, quarter):
        blocks = b""
        for number in range(begin, begin + quarter):
            at = ((number - begin) * 500).to_bytes(2, "big")
            key = b"\x80" if number == begin else b"\0"
            blocks += _element("a3", b"\x81" + at + key + frames[number])
        cluster = _element("1f43b675", _number("e7", begin * 500) + blocks)
        clusters.append(cluster + _element("ec", bytes(between)))

    def cues(offset: int) -> bytes:
        points = b""
        for number, cluster in enumerate(clusters):
            place = _number("f7", 1) + _number("f1", offset)
            points += _element("bb", _number("b3", number * quarter * 500) + _element("b7", place))
            offset += len(cluster)
        return _element("1c53bb6b", points)

    first = len(info) + len(tracks) + len(cues(0))
    return header + _element("18538067", info + tracks + cues(first) + b"".join(clusters))
