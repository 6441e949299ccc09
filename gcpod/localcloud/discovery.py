"""Google's discovery documents as the list of what the local cloud may be asked.

The documents are those that google-api-python-client ships
(https://developers.google.com/discovery/v1/reference/apis); only their JSON is read, none of that library's code.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any
from urllib.parse import unquote_to_bytes

from gcpod.errors import LocalCloudError
from gcpod.localcloud.api_error import ApiError

_VARIABLE = re.compile(r"\{(\+?)([^}]+)\}")
# Sent by Google's clients to every service though no document lists them (https://cloud.google.com/apis/docs/system-parameters).
_SYSTEM = ("access_token", "callback", "trace", "upload_id", "upload_protocol", "userProject", "$.xgafv", "$apiVersion")


@dataclass(frozen=True)
class Parameter:
    """A query parameter: its type and format in the words of the document."""

    name: str
    type: str = "string"
    format: str = ""
    repeated: bool = False
    required: bool = False
    enum: tuple[str, ...] = ()
    minimum: int | None = None


@dataclass(frozen=True)
class PathTemplate:
    """A URI template such as ``/storage/v1/b/{bucket}/o/{object}``, matched against the raw percent-encoded path.

    Each parameter is decoded by itself, after the match, so that ``%2F`` inside an object name stays part of it.
    ``{+name}`` may span segments, within the ``pattern`` that the document gives for it.
    """

    template: str
    shapes: Mapping[str, str]

    @functools.cached_property
    def regex(self) -> re.Pattern[str]:
        """The template as an expression; group ``p0`` is the first parameter, and so on."""
        text, end = "", 0
        for number, found in enumerate(_VARIABLE.finditer(self.template)):
            shape = self.shapes.get(found[2], ".+" if found[1] else "[^/]+").removeprefix("^").removesuffix("$")
            text += re.escape(self.template[end : found.start()]) + f"(?P<p{number}>{shape})"
            end = found.end()
        return re.compile(text + re.escape(self.template[end:]), re.DOTALL)

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """The parameters in the order of the template."""
        return tuple(found[2] for found in _VARIABLE.finditer(self.template))

    def match(self, raw_path: str) -> dict[str, str] | None:
        """The decoded parameters, or None when the path is another's.

        Raises:
            ApiError: 400, a parameter is not UTF-8.
        """
        found = self.regex.fullmatch(raw_path)
        if found is None:
            return None
        return {name: decode(found[f"p{number}"]) for number, name in enumerate(self.names)}


@dataclass(frozen=True)
class Method:
    """One method of a service.

    ``uploads`` are the paths that take media (``mediaUpload.protocols``), ``download`` the one that only gives media.
    """

    id: str
    http_method: str
    path: PathTemplate
    query: Mapping[str, Parameter]
    request: str | None
    uploads: tuple[PathTemplate, ...] = ()
    download: PathTemplate | None = None

    @property
    def pattern(self) -> re.Pattern[str]:
        """The compiled expression of the plain path."""
        return self.path.regex


@dataclass(frozen=True)
class Document:
    """A discovery document: methods by id, schemas by name, the parameters every method takes."""

    name: str
    version: str
    methods: Mapping[str, Method]
    schemas: Mapping[str, Mapping[str, Any]]
    parameters: Mapping[str, Parameter]
    batch_path: str

    @property
    def proto_json(self) -> bool:
        """Whether the service speaks protobuf JSON, which takes snake_case names too; Cloud Storage does not."""
        return self.name != "storage"


def decode(text: str) -> str:
    """Undoes percent-encoding.

    Raises:
        ApiError: 400, the bytes are not UTF-8.
    """
    try:
        return unquote_to_bytes(text).decode("utf-8")
    except UnicodeDecodeError:
        raise ApiError(400, "The request path is not valid UTF-8.") from None


@functools.cache
def load(api: str) -> Document:
    """Reads a document by its name and version, for example ``storage.v1``.

    Raises:
        LocalCloudError: the installed google-api-python-client has no such document.
    """
    file = resources.files("googleapiclient") / "discovery_cache" / "documents" / f"{api}.json"
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LocalCloudError(
            "loading the discovery document",
            api,
            "google-api-python-client does not ship it",
            "install google-api-python-client 2.150 or later",
        ) from None
    base = "/" + raw["servicePath"].strip("/")
    methods = {method.id: method for method in _methods(raw, base.rstrip("/"))}
    parameters = {name: _parameter(name, told) for name, told in raw["parameters"].items()}
    for name in [*_SYSTEM, *(f"${name}" for name in parameters)]:
        parameters.setdefault(name, Parameter(name))
    return Document(raw["name"], raw["version"], methods, raw["schemas"], parameters, "/" + raw["batchPath"])


def _methods(resource: Mapping[str, Any], base: str) -> Iterator[Method]:
    for told in resource.get("methods", {}).values():
        yield _method(told, base)
    for child in resource.get("resources", {}).values():
        yield from _methods(child, base)


def _method(told: Mapping[str, Any], base: str) -> Method:
    parameters: Mapping[str, Any] = told.get("parameters", {})
    shapes = {
        name: one["pattern"] for name, one in parameters.items() if one["location"] == "path" and "pattern" in one
    }
    path = f"{base}/{told['path']}"
    protocols = told.get("mediaUpload", {}).get("protocols", {})
    return Method(
        id=told["id"],
        http_method=told["httpMethod"],
        path=PathTemplate(path, shapes),
        query={name: _parameter(name, one) for name, one in parameters.items() if one["location"] == "query"},
        request=told.get("request", {}).get("$ref"),
        uploads=tuple(PathTemplate(protocol["path"], shapes) for protocol in protocols.values()),
        download=PathTemplate(f"/download{path}", shapes) if told.get("supportsMediaDownload") else None,
    )


def _parameter(name: str, told: Mapping[str, Any]) -> Parameter:
    minimum = told.get("minimum")
    return Parameter(
        name,
        told.get("type", "string"),
        told.get("format", ""),
        told.get("repeated", False),
        told.get("required", False),
        tuple(told.get("enum", ())),
        None if minimum is None else int(minimum),
    )
