"""One large file sent as several objects at once, which the service then puts together.

https://cloud.google.com/storage/docs/parallel-composite-uploads. One connection often has less than the whole line; and
where it has all of it, parts cost more than they bring: docs/storage.md.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from gcpod.checksums import file_crc32c
from gcpod.errors import AuthError, StorageError
from gcpod.storage.calls import API, Piece, conditions, look, lying, new_metadata, remove
from gcpod.storage.channel import Channel
from gcpod.storage.journal import Journal
from gcpod.storage.names import PARTS_FOLDER
from gcpod.storage.patience import Patience, checked
from gcpod.storage.send import send
from gcpod.uris import GcsUri

PARTS_FROM_BYTES = 64 << 20
MOST_PARTS = 32
"""https://cloud.google.com/storage/docs/composite-objects#limitations"""


class Parts:
    """The parts of a file, each a piece of work of its own; whoever is done last puts them together.

    Args:
        whole: the file and the object that it becomes.
        number: how many parts, 2 to `MOST_PARTS`.
        journal: keeps the uploads that are under way.
        done: called with the new generation.
    """

    def __init__(self, whole: Piece, number: int, journal: Journal, done: Callable[[int], None]) -> None:
        self.whole, self.journal, self.done = whole, journal, done
        size = -(-whole.size // min(number, MOST_PARTS))
        self._spans = [(start, min(size, whole.size - start)) for start in range(0, whole.size, size)]
        self._there: dict[int, tuple[GcsUri, int]] = {}
        self._lock = threading.Lock()

    @property
    def works(self) -> list[Callable[[Channel], None]]:
        return [partial(self._send, number) for number in range(len(self._spans))]

    def _send(self, number: int, channel: Channel) -> None:
        start, size = self._spans[number]
        whole = self.whole
        crc32c = file_crc32c(whole.path, start=start, size=size)
        # Whoever uploads the same file to the same place again finds the part, and nobody else.
        what = f"{whole.uri}\n{whole.size}\n{whole.crc32c}\n{start}\n{size}"
        uri = GcsUri(whole.uri.bucket, f"{PARTS_FOLDER}/{hashlib.sha256(what.encode()).hexdigest()[:32]}")
        found = Patience(channel.traffic, "looking at", uri).run(lambda: look(uri, channel))
        generation = int(found["generation"]) if found else 0
        if found is None or found.get("crc32c") != crc32c:
            part = Piece(whole.path, start, size, crc32c, uri, generation, temporary=True)
            generation = send(part, channel, self.journal)
        else:
            channel.traffic.count(moved=size)
        with self._lock:
            self._there[number] = uri, generation
            last = len(self._there) == len(self._spans)
        if last:
            self._compose(channel)

    def _compose(self, channel: Channel) -> None:
        parts = [self._there[number] for number in sorted(self._there)]
        body = json.dumps({
            "sourceObjects": [
                {"name": uri.name, "objectPreconditions": {"ifGenerationMatch": str(generation)}}
                for uri, generation in parts
            ],
            "destination": new_metadata(self.whole, channel),
        }).encode()
        path = channel.line.path(API, self.whole.uri, conditions(self.whole, channel), "/compose")
        patience = Patience(channel.traffic, "putting together", self.whole.uri)

        def attempt() -> int:
            answer = channel.ask("POST", path, {"Content-Type": "application/json"}, body)
            if answer.status == 404:
                raise StorageError("putting together", self.whole.uri, "a part of it is gone, or its bucket",
                                   "run the command again")
            if answer.status == 412:
                return lying(self.whole, channel)
            resource = checked(answer, "putting together", self.whole.uri).resource()
            if resource.get("crc32c") != self.whole.crc32c:
                remove(self.whole.uri, int(resource["generation"]), channel)
                raise StorageError("putting together", self.whole.uri, "what came out is not the file that was sent",
                                   "let nothing write to it and run the command again")
            return int(resource["generation"])

        self.done(patience.run(attempt))
        for uri, part in parts:
            # The file is there; a bucket that lets nothing be deleted has its rules to clear them away.
            with suppress(AuthError, StorageError):
                remove(uri, part, channel)
