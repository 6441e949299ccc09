"""Checks requests against a discovery document, as Google's JSON transcoder does.

The rules are those of protobuf's JSON mapping (https://protobuf.dev/programming-guides/json/): 64-bit integers as
strings or numbers, enumerations by name or number, null as absent. What comes back is in one canonical form.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from gcpod.localcloud.api_error import ApiError, Violation
from gcpod.localcloud.discovery import Document, Method, Parameter

_DURATION = re.compile(r"-?[0-9]+(\.[0-9]{1,9})?s")
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_MAX_DEPTH = 100
_BITS = {"int32": (-(2**31), 2**31), "uint32": (0, 2**32), "int64": (-(2**63), 2**63), "uint64": (0, 2**64)}
EnumNumbers = Mapping[str, Mapping[int, str]]
"""``SchemaName.propertyName`` -> number -> name: discovery documents name enumerators but do not number them."""


def check_query(document: Document, method: Method, query: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Checks query parameters and gives them back under their camelCase names.

    Raises:
        ApiError: 400 INVALID_ARGUMENT naming every parameter that is unknown, mistyped or missing.
    """
    known = {**document.parameters, **method.query}
    given: list[tuple[str, str]] = []
    wrong: list[Violation] = []
    for name, value in query:
        parameter = known.get(name) or known.get(_other_spelling(document, known, name))
        if parameter is None:
            wrong.append(
                Violation(
                    name,
                    f'Invalid JSON payload received. Unknown name "{name}": Cannot bind query parameter. '
                    f"Field '{name}' could not be found in request message.",
                )
            )
            continue
        if not _query_value_fits(parameter, value):
            wrong.append(
                Violation(parameter.name, f"Invalid value at '{parameter.name}' ({_type_name(parameter)}), \"{value}\"")
            )
        given.append((parameter.name, value))
    if wrong:
        raise ApiError.of_violations(wrong)
    names = {name for name, _ in given}
    for parameter in method.query.values():
        if parameter.required and parameter.name not in names:
            raise ApiError(400, f"Required parameter: {parameter.name}", None if document.proto_json else "required")
    return given


def check_body(document: Document, schema: str, body: Any, enum_numbers: EnumNumbers | None = None) -> Any:
    """Checks a JSON body and gives it back in canonical form: camelCase names, 64-bit integers as strings,
    enumerations by name where ``enum_numbers`` knows the number (other numbers stay as they are).

    Raises:
        ApiError: 400 INVALID_ARGUMENT naming every field that is unknown or mistyped by its path.
    """
    checker = _Checker(document, enum_numbers or {})
    at = body_field(schema) if document.proto_json else ""
    result = checker.ref(schema, body, at, 0)
    if checker.wrong:
        raise ApiError.of_violations(checker.wrong)
    return result


def body_field(schema: str) -> str:
    """The request field a body is bound to: ``custom_job`` for a resource, "" for a whole ``…Request`` message."""
    bare = re.sub(r"^Google(?:[A-Z][a-z0-9]+)+?V\d+(?:(?:beta|alpha)\d+)?", "", schema)
    return "" if bare.endswith("Request") else snake_case(bare)


@functools.lru_cache(4096)
def snake_case(name: str) -> str:
    """``jobSpec`` -> ``job_spec``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


@functools.lru_cache(4096)
def camel_case(name: str) -> str:
    """``job_spec`` -> ``jobSpec``."""
    return re.sub(r"_([a-z0-9])", lambda found: found[1].upper(), name)


def _other_spelling(document: Document, known: Iterable[str], name: str) -> str:
    if document.proto_json:
        return camel_case(name)
    # google-cloud-storage 3.17 itself sends `ifMetaGenerationNotMatch` with uploads.
    return next((one for one in known if one.lower() == name.lower()), "")


def _query_value_fits(parameter: Parameter, value: str) -> bool:
    if parameter.type == "boolean":
        return value.lower() in ("true", "false")
    if parameter.type == "integer" or parameter.format in _BITS:
        return _is_integer(value, parameter.format or "int64", parameter.minimum)
    # `$alt=json;enum-encoding=int` carries an option after the value.
    return not parameter.enum or value.partition(";")[0] in parameter.enum or value == ""


def _type_name(parameter: Parameter) -> str:
    if parameter.type == "boolean":
        return "TYPE_BOOL"
    return f"TYPE_{parameter.format.upper()}" if parameter.format in _BITS else "TYPE_ENUM"


def _is_integer(value: Any, format_: str, minimum: int | None = None) -> bool:
    low, high = _BITS.get(format_, _BITS["int64"])
    if isinstance(value, str):
        if not re.fullmatch(r"-?[0-9]{1,20}", value, re.ASCII):
            return False
    elif (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or value != value
        or value in (math.inf, -math.inf)
        or (isinstance(value, float) and not value.is_integer())
    ):
        return False
    return max(low, low if minimum is None else minimum) <= int(value) < high


def _is_base64(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        base64.b64decode(value.replace("-", "+").replace("_", "/") + "=" * (-len(value) % 4), validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def _is_string(value: Any) -> bool:
    return isinstance(value, str)


def _is_duration(value: Any) -> bool:
    return isinstance(value, str) and _DURATION.fullmatch(value) is not None


def _is_date_time(value: Any) -> bool:
    if not isinstance(value, str) or not _DATE_TIME.fullmatch(value):
        return False
    try:
        datetime.strptime(value[:19], "%Y-%m-%dT%H:%M:%S")
    except ValueError:
        return False
    return True


_STRING_FORMATS: Mapping[str, Callable[[Any], bool]] = {
    "byte": _is_base64,
    "date-time": _is_date_time,
    "google-datetime": _is_date_time,
    "google-duration": _is_duration,
}


class _Checker:
    """Walks a body along its schema, collecting what is wrong."""

    def __init__(self, document: Document, enum_numbers: EnumNumbers) -> None:
        self._document, self._numbers = document, enum_numbers
        self.wrong: list[Violation] = []

    def ref(self, schema: str, value: Any, at: str, depth: int) -> Any:
        return self._value(self._document.schemas[schema], value, at, schema, depth)

    def _value(self, told: Mapping[str, Any], value: Any, at: str, owner: str, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            self.wrong.append(Violation(at, f"Message too deep. Max recursion depth reached for key '{at[-80:]}'"))
            return None
        if "$ref" in told:
            return None if value is None else self.ref(told["$ref"], value, at, depth)
        kind = told.get("type", "any")
        if value is None or kind == "any":
            return value
        if kind == "object":
            return self._object(told, value, at, owner, depth)
        if kind == "array":
            return self._array(told, value, at, owner, depth)
        return self._scalar(told, kind, value, at, owner)

    def _object(self, told: Mapping[str, Any], value: Any, at: str, owner: str, depth: int) -> Any:
        if not isinstance(value, dict):
            return self._refuse(at, "type.googleapis.com/" + owner, value)
        if "additionalProperties" in told:
            inner = told["additionalProperties"]
            return {key: self._value(inner, one, f"{at}[{key}]", owner, depth + 1) for key, one in value.items()}
        if "properties" not in told:
            # An empty message (protobuf services) takes no field; storage uses a bare object for free maps.
            for key in value if self._document.proto_json and told.get("id") else ():
                self._unknown(key, at)
            return value
        properties = told["properties"]
        result: dict[str, Any] = {}
        for key, one in value.items():
            name = key if key in properties else camel_case(key) if self._document.proto_json else key
            if name not in properties:
                self._unknown(key, at)
                continue
            step = snake_case(name) if self._document.proto_json else name
            result[name] = self._value(
                properties[name], one, f"{at}.{step}" if at else step, f"{owner}.{name}", depth + 1
            )
        return result

    def _array(self, told: Mapping[str, Any], value: Any, at: str, owner: str, depth: int) -> Any:
        if not isinstance(value, list):
            # Protobuf JSON takes a bare value for a repeated field; Google's servers do.
            if not self._document.proto_json:
                return self._refuse(at, "TYPE_ARRAY", value)
            value = [value]
        return [
            self._value(told["items"], one, f"{at}[{number}]", owner, depth + 1) for number, one in enumerate(value)
        ]

    def _scalar(self, told: Mapping[str, Any], kind: str, value: Any, at: str, owner: str) -> Any:
        format_ = told.get("format", "")
        if "enum" in told and self._document.proto_json:
            return self._enum(told["enum"], value, at, owner)
        if kind == "boolean":
            return value if isinstance(value, bool) else self._refuse(at, "TYPE_BOOL", value)
        if kind == "integer" or format_ in _BITS:
            if not _is_integer(value, format_ or "int32"):
                return self._refuse(at, f"TYPE_{(format_ or 'int32').upper()}", value)
            return str(int(value)) if kind == "string" else int(value)
        if kind == "number":
            return self._number(value, at, format_)
        fits = _STRING_FORMATS.get(format_, _is_string)
        return value if fits(value) else self._refuse(at, "TYPE_STRING", value)

    def _number(self, value: Any, at: str, format_: str) -> Any:
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            return self._refuse(at, f"TYPE_{format_.upper() or 'DOUBLE'}", value)
        if value in ("NaN", "Infinity", "-Infinity"):
            return value
        try:
            return float(value)
        except (ValueError, OverflowError):
            return self._refuse(at, f"TYPE_{format_.upper() or 'DOUBLE'}", value)

    def _enum(self, names: list[str], value: Any, at: str, owner: str) -> Any:
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31:
            return self._numbers.get(owner, {}).get(value, value)
        return value if value in names else self._refuse(at, f"type.googleapis.com/{owner}", value)

    def _refuse(self, at: str, type_name: str, value: Any) -> Any:
        shown = json.dumps(value)
        where = f"Invalid value at '{at}'" if at else "Invalid value"
        self.wrong.append(Violation(at, f"{where} ({type_name}), {shown if len(shown) < 200 else shown[:200] + '…'}"))
        return None

    def _unknown(self, name: str, at: str) -> None:
        where = f" at '{at}'" if at else ""
        text = f'Invalid JSON payload received. Unknown name "{name}"{where}: Cannot find field.'
        self.wrong.append(Violation(at, text))
