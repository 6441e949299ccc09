"""One piece of a file into one object: a single request where it is small, a resumable upload where it is not.

Every request names the generation that it replaces, so each may be repeated; the checksum goes ahead of the bytes, so
that the service keeps none that differ; what it says it has is compared once more.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from gcpod.checksums import file_crc32c
from gcpod.errors import StorageError
from gcpod.storage.calls import UPLOADS, Piece, conditions, lying, multipart, new_metadata, remove
from gcpod.storage.channel import Answer, BrokenError, Channel
from gcpod.storage.journal import Entry, Journal
from gcpod.storage.patience import Patience, checked
from gcpod.uris import GcsUri

_TRIES = 3
_GONE = frozenset({404, 410, 499})
_KEPT = frozenset({401, 403, 408, 429})
"""Refusals that say nothing about the upload itself."""


class _DamagedError(Exception):
    """The service has other bytes than were read; sending them anew may help."""


def send(piece: Piece, channel: Channel, journal: Journal) -> int:
    """Makes the object hold the piece's bytes; returns its generation.

    Raises:
        StorageError: the file changed, other bytes lie there, or the service refuses.
        AuthError, OutageError: see `patience`.
        StoppedError: the transfer was called off; a large piece goes on from where it was.
    """
    for _ in range(_TRIES):
        try:
            if piece.size <= channel.traffic.options.single_bytes:
                return _Sender(piece, channel).single()
            with journal.entry(piece, channel.line.objects, channel.line.base) as entry:
                return _Sender(piece, channel).resumable(entry)
        except _DamagedError:
            continue
    raise StorageError("uploading", piece.uri, f"its bytes arrived damaged {_TRIES} times",
                       "check this machine's network and memory, and run the command again")


class _Sender:
    """The requests of one piece."""

    def __init__(self, piece: Piece, channel: Channel) -> None:
        self.piece, self.channel, self.traffic = piece, channel, channel.traffic
        self.patience = Patience(self.traffic, "uploading", piece.uri)
        self.arrived = self.furthest = self.counted = 0

    def single(self) -> int:
        return self.patience.run(self._single)

    def _single(self) -> int:
        piece = self.piece
        self._confirmed(0)
        headers, head, tail = multipart(new_metadata(piece, self.channel))

        def body() -> Iterator[bytes]:
            if piece.size <= self.traffic.block_bytes:
                yield b"".join((head, *self._blocks(0, piece.size), tail))
                return
            yield head
            yield from self._blocks(0, piece.size)
            yield tail

        answer = self.channel.ask(
            "POST", self._path("multipart"), headers, body(), len(head) + piece.size + len(tail),
        )
        return self._ended(answer)

    def resumable(self, entry: Entry | None) -> int:
        """``entry`` keeps the session for the next process; None keeps it nowhere."""
        state = _Session("", entry, known=False)
        if entry is not None and entry.session:
            try:
                state.path = self.channel.line.own(entry.session)
            except StorageError:
                entry.drop()
        return self.patience.run(lambda: self._continue(state))

    def _continue(self, state: _Session) -> int:
        """Sends what is missing, chunk by chunk; after a failed one the service is asked what it has."""
        if state.path and not state.known:
            generation = self._look(state)
            if generation is not None:
                return generation
        if not state.path:
            generation = self._begin(state)
            if generation is not None:
                return generation
        while True:
            state.known = False
            before, answer = self.arrived, self._chunk(state)
            if answer.status != 308:
                return self._ended_session(answer, state)
            self._confirm(answer, state)
            if self.arrived <= before:
                raise BrokenError("the service kept nothing of what it was sent")

    def _begin(self, state: _Session) -> int | None:
        """Opens a session; the generation where the object is there already, from a request whose answer was lost."""
        headers = {"Content-Type": "application/json; charset=UTF-8", "X-Upload-Content-Length": str(self.piece.size)}
        told = json.dumps(new_metadata(self.piece, self.channel)).encode()
        answer = self.channel.ask("POST", self._path("resumable"), headers, told)
        if answer.status == 412:
            return self._ended(answer)
        checked(answer, "uploading", self.piece.uri)
        location = answer.headers.get("location", "")
        if not location:
            raise BrokenError("the service opened an upload without an address")
        state.path, state.known = self.channel.line.own(location), True
        self._confirmed(0)
        if state.entry is not None:
            state.entry.keep(location)
        return None

    def _look(self, state: _Session) -> int | None:
        """Asks what the service has; the generation where that is everything."""
        answer = self.channel.ask("PUT", state.path, {"Content-Range": f"bytes */{self.piece.size}"})
        if answer.status != 308:
            return self._ended_session(answer, state)
        self._confirm(answer, state)
        return None

    def _chunk(self, state: _Session) -> Answer:
        start, size = self.arrived, self.piece.size
        if start == size:
            return self.channel.ask("PUT", state.path, {"Content-Range": f"bytes */{size}"})
        end = min(size, start + self.traffic.options.chunk_bytes)
        headers = {"Content-Range": f"bytes {start}-{end - 1}/{size}"}
        return self.channel.ask("PUT", state.path, headers, self._blocks(start, end), end - start)

    def _confirm(self, answer: Answer, state: _Session) -> None:
        found = re.fullmatch(r"bytes=0-(\d{1,18})", answer.headers.get("range", ""))
        arrived = int(found[1]) + 1 if found else 0
        if arrived > self.piece.size:
            raise StorageError("uploading", self.piece.uri, f"the service says that it has {arrived} bytes",
                               "run the command again")
        if arrived > self.furthest:
            self.furthest = arrived
            self.patience.progressed()
        state.known = True
        self._confirmed(arrived)

    def _confirmed(self, arrived: int) -> None:
        # Blocks on their way were counted already, so that who watches a slow line sees it move.
        self.traffic.count(moved=arrived - self.counted)
        self.arrived = self.counted = arrived

    def _ended_session(self, answer: Answer, state: _Session) -> int:
        """The generation out of the last answer to a session, or none, when the session is over without one."""
        if answer.status in _GONE:
            self._confirmed(0)
            state.forget()
            raise BrokenError("the service has forgotten the upload")
        if answer.status in (200, 201) or (400 <= answer.status < 500 and answer.status not in _KEPT):
            state.forget()
        return self._ended(answer)

    def _ended(self, answer: Answer) -> int:
        """The generation of the object that an answer tells of.

        Raises:
            _DamagedError: it is not what was to be sent.
        """
        piece = self.piece
        if answer.status == 412:
            generation = lying(piece, self.channel)
            self._confirmed(piece.size)
            return generation
        if answer.status == 400 and "crc32c" in answer.message.lower():
            self._confirmed(0)
            self._unchanged()
            raise _DamagedError
        resource = checked(answer, "uploading", piece.uri).resource()
        self._confirmed(piece.size)
        generation = int(resource["generation"])
        if resource.get("crc32c") != piece.crc32c or int(resource.get("size", -1)) != piece.size:
            self._confirmed(0)
            remove(piece.uri, generation, self.channel)
            self._unchanged()
            raise _DamagedError
        return generation

    def _unchanged(self) -> None:
        """That the file still holds the bytes whose checksum was announced.

        Raises:
            StorageError: it does not.
        """
        piece = self.piece
        if piece.path.stat().st_size < piece.start + piece.size or \
                file_crc32c(piece.path, start=piece.start, size=piece.size) != piece.crc32c:
            raise self._changed()

    def _changed(self) -> StorageError:
        return StorageError("uploading", self.piece.path, "it changed while it was sent",
                            "let nothing write to it and run the command again")

    def _path(self, kind: str) -> str:
        query = {"uploadType": kind, **conditions(self.piece, self.channel)}
        return self.channel.line.path(UPLOADS, GcsUri(self.piece.uri.bucket), query)

    def _blocks(self, start: int, end: int) -> Iterator[bytes]:
        """Bytes ``start`` to ``end`` of the piece, as many as they were when it was planned."""
        try:
            with self.piece.path.open("rb", buffering=0) as file:
                file.seek(self.piece.start + start)
                while start < end:
                    block = file.read(min(self.traffic.block_bytes, end - start))
                    if not block:
                        raise self._changed()
                    start += len(block)
                    self.traffic.count(moved=len(block))
                    self.counted += len(block)
                    yield block
        except OSError as e:
            # Told apart from the network's errors, which pass.
            found = e.strerror or str(e)
            raise StorageError("reading", self.piece.path, found, "mend that and run the command again") from e


@dataclass
class _Session:
    """A resumable upload under way; ``known`` says that the service told what it has."""

    path: str
    entry: Entry | None
    known: bool

    def forget(self) -> None:
        self.path, self.known = "", False
        if self.entry is not None:
            self.entry.drop()
