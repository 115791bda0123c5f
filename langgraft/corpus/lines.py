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
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return json.loads(line)


def line_of(row: dict[str, Any]) -> bytes:
    """A row as one line of JSON; lone surrogates, which UTF-8 cannot hold, become question marks."""
    try:
        return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:
        return _as_json(row).encode("utf-8", "replace") + b"\n"
