"""A stream of messages that is sent while it is made."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

import grpc

from castore.errors import UnavailableError
from castore.threads import forks
from castore.threads.waiting import Bell
from castore_grpc.peer import Peer

_MOST_WAITING: Final = 4
"""So many messages are made ahead of those that were sent."""


class Upload:
    """A call that takes many messages and gives one answer."""

    def __init__(self, peer: Peer, service: str, method: str) -> None:
        self._peer = peer
        self._lock = forks.new_lock()
        self._changed = Bell(self._lock)
        self._waiting: deque[bytes] = deque()
        self._complete = False
        self._ended = False
        self._begun = peer.send(service, method, self._messages())
        self._call = self._begun.call
        self._call.add_done_callback(self._note_end)

    def _note_end(self, _: object) -> None:
        with self._lock:
            self._ended = True
            self._changed.ring()

    def _messages(self) -> Iterator[bytes]:
        """Yield what is to be sent, in a thread of the library's."""
        while True:
            self._changed.wait_for(lambda: bool(self._waiting) or self._complete or self._ended)
            with self._lock:
                if self._ended or not self._waiting:
                    return
                message = self._waiting.popleft()
                self._changed.ring()
            yield message

    def send(self, message: bytes) -> None:
        """Send a message soon; raise what the call has ended with, or if nothing is taken for too long."""

        def has_room() -> bool:
            return self._ended or len(self._waiting) < _MOST_WAITING

        if not self._changed.wait_for(has_room, self._peer.timeout):
            self.cancel()
            raise self._peer.silent()
        if self._ended:
            self._raise_end()
        with self._lock:
            self._waiting.append(message)
            self._changed.ring()

    def finish(self) -> bytes:
        """Send what waits, and return the answer; raises as `send` does."""
        with self._lock:
            self._complete = True
            self._changed.ring()
        # While messages go out each of them is waited for, and in the end the answer.
        left = len(self._waiting) + 1
        while not self._changed.wait_for(lambda: self._ended, self._peer.timeout):
            now = len(self._waiting)
            if now >= left:
                self.cancel()
                raise self._peer.silent()
            left = now
        return self._raise_end()

    def _raise_end(self) -> bytes:
        """Return the answer, or raise what the call has ended with."""
        try:
            answer: bytes = self._call.result()
        except (grpc.RpcError, grpc.FutureCancelledError) as error:
            if self._begun.is_cut:
                raise self._peer.cut_off() from error
            if isinstance(error, grpc.FutureCancelledError):
                raise self._peer.silent() from None
            raise self._peer.refusal_of(error) from error
        if not self._complete:
            raise UnavailableError(self._peer.instance, "it answered before all was sent")
        return answer

    def cancel(self) -> None:
        """Give the call up."""
        with self._lock:
            self._ended = True
            self._waiting.clear()
            self._changed.ring()
        self._call.cancel()
