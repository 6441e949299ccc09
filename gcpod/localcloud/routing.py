"""From a verb and a raw path to the method of a discovery document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from gcpod.localcloud.discovery import Document, Method, PathTemplate

Owner = TypeVar("Owner")
# A resumable session lives at the upload path: PUT sends to it, DELETE cancels it, though documents list POST only.
_UPLOAD_VERBS = ("POST", "PUT", "DELETE")


class RouteKind(Enum):
    """Which of a method's paths was used."""

    PLAIN = "plain"
    UPLOAD = "upload"
    DOWNLOAD = "download"
    FALLBACK = "fallback"


@dataclass(frozen=True)
class Route(Generic[Owner]):
    """One path of one method, and the service it belongs to."""

    owner: Owner
    method: Method
    template: PathTemplate
    kind: RouteKind


class Router(Generic[Owner]):
    """Finds routes; methods with a handler come first, the others' expressions are compiled only when asked for.

    Args:
        services: for each, its document, the ids of the methods it handles, and what to put into ``Route.owner``.
    """

    def __init__(self, services: Sequence[tuple[Document, frozenset[str], Owner]]) -> None:
        self._handled: dict[tuple[str, str], list[Route[Owner]]] = {}
        self._known: dict[tuple[str, str], list[Route[Owner]]] = {}
        for document, handled, owner in services:
            for method in document.methods.values():
                table = self._handled if method.id in handled else self._known
                for verb, route in _routes(owner, method):
                    table.setdefault((verb, route.template.template.split("/")[1]), []).append(route)

    def find(self, verb: str, raw_path: str) -> Route[Owner] | None:
        """The route of a request, or None."""
        key = (verb, raw_path.split("/")[1] if raw_path.startswith("/") else "")
        for table in (self._handled, self._known):
            for route in table.get(key, ()):
                if route.template.regex.fullmatch(raw_path):
                    return route
        return None


def _routes(owner: Owner, method: Method) -> Iterator[tuple[str, Route[Owner]]]:
    yield method.http_method, Route(owner, method, method.path, RouteKind.PLAIN)
    for template in method.uploads:
        for verb in _UPLOAD_VERBS:
            yield verb, Route(owner, method, template, RouteKind.UPLOAD)
    if method.download is not None:
        yield method.http_method, Route(owner, method, method.download, RouteKind.DOWNLOAD)
