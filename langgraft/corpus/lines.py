"""Rows as lines of JSON, by orjson; what it does not know, the standard library reads and writes."""

import json
from typing import Any

import orjson

_as_json = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":")).encode


def parse(line: bytes | str) -> Any:
    """The value of a line, with NaN, halves of surrogate pairs and whatever else `json.loads` accepts.

    Raises:
        json.JSONDecodeError, RecursionError, UnicodeDecodeError: as `json.loads`.
    """
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return json.loads(line)
    return json.loads(line) if _huge(value) else value


def _huge(value: Any) -> bool:
    """Whether it holds a number as large as the integers that orjson turns into floats: those of over 64 bits."""
    kind = type(value)
    if kind is float:
        return abs(value) >= 2.0**63
    if kind is dict or kind is list:
        return any(map(_huge, value.values() if kind is dict else value))
    return False


def line_of(row: dict[str, Any]) -> bytes:
    """A row as one line of JSON; lone surrogates, which UTF-8 cannot hold, become question marks."""
    try:
        return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:
        return _as_json(row).encode("utf-8", "replace") + b"\n"
