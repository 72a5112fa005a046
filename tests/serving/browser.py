"""A browser, driven through the pipes of its own protocol."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

needs_chromium = pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no chromium")

_HANGS = 60.0


class Browser:
    """One page of a Chromium."""

    def __init__(self, folder: Path) -> None:
        low_read, self._to_it = os.pipe()
        self._from_it, low_write = os.pipe()
        # It reads from 3 and writes to 4, which a shell makes of these, that are neither.
        to_read, to_write = (fcntl.fcntl(each, fcntl.F_DUPFD, 10) for each in (low_read, low_write))
        command = f'exec chromium "$@" 3<&{to_read} 4>&{to_write} {to_read}<&- {to_write}>&-'
        arguments = [
            *("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--mute-audio"),
            *("--hide-scrollbars", "--autoplay-policy=no-user-gesture-required", "--disable-dev-shm-usage"),
            *("--disable-background-networking", "--disable-component-update", "--no-first-run"),
            f"--user-data-dir={folder}/profile",
        ]
        self._process = subprocess.Popen(
            ["bash", "-c", command, "bash", *arguments, "about:blank"],
            pass_fds=(to_read, to_write),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for each in (low_read, low_write, to_read, to_write):
            os.close(each)
        self._rest = b""
        self._number = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        targets = self.ask("Target.getTargets")["targetInfos"]
        page = next(each for each in targets if each["type"] == "page")
        attached = self.ask("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> Any:
        """Return what it answers."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to_it, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            piece = os.read(self._from_it, 1 << 20)
            assert piece, "the browser has ended"
            self._rest += piece
        one, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(one)
        if "method" in message:
            self.events.append(message)
        return message

    def open(self, url: str) -> None:
        """Go to a page, and wait until it is there."""
        self.events.clear()
        answer = self.ask("Page.navigate", url=url)
        assert "errorText" not in answer, answer
        while not any(each["method"] == "Page.loadEventFired" for each in self.events):
            self._next()

    def do(self, script: str) -> Any:
        """Return what an expression comes to in the page; a promise is waited for."""
        answer = self.ask(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True, userGesture=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, script: str, seconds: float = _HANGS) -> float:
        """Wait until an expression is true in the page; return how many seconds that took."""
        begun = time.monotonic()
        while not self.do(script):
            assert time.monotonic() - begun < seconds, f"{script} did not become true"
            time.sleep(0.05)
        return time.monotonic() - begun

    def press(self, key: str) -> None:
        """Press a key."""
        codes = {"Tab": 9, "Enter": 13}
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            more = text if kind == "keyDown" else {}
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=codes[key], **more)

    def look_like(
        self, width: int = 1280, height: int = 900, *, dark: bool = False, scale: float = 1
    ) -> None:
        """Be a window of this size, in CSS px."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=scale, mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """Write a screenshot as PNG."""
        answer = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))

    def complaints(self) -> list[str]:
        """What the page was refused, or has failed in, since it was opened."""
        found = []
        for each in self.events:
            if each["method"] == "Log.entryAdded" and each["params"]["entry"]["level"] == "error":
                entry = each["params"]["entry"]
                found.append(f"{entry['text']} {entry.get('url', '')}")
            if each["method"] == "Runtime.exceptionThrown":
                found.append(str(each["params"]))
        return found

    def close(self) -> None:
        """End it, with all that it has started."""
        for each in (self._to_it, self._from_it):
            os.close(each)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)


@contextmanager
def browsing(folder: Path) -> Iterator[Browser]:
    """Give a browser that keeps its things in a folder."""
    one = Browser(folder)
    try:
        yield one
    finally:
        one.close()
