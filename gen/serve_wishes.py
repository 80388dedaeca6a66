"""What came over the wire, checked: text fields or JSON values -> a :class:`descant.gen.request.Request`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from .request import Request, RequestError, guidance_of, resolve, resolve_continuation
from .serve_limits import Limits


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    # half a surrogate pair is no text, and nothing downstream could write it
    return value.encode("utf-8", "replace").decode("utf-8")


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError
    found = float(value)
    if not math.isfinite(found):
        raise ValueError
    return found


def _whole(value: Any) -> int:
    found = int(value) if isinstance(value, str) else value
    if isinstance(found, float) and found.is_integer():
        found = int(found)
    if isinstance(found, bool) or not isinstance(found, int):
        raise ValueError
    return found


def _truth(value: Any) -> bool:
    words = {"true": True, "false": False, "on": True, "1": True, "0": False}
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    if not isinstance(value, bool):
        raise ValueError
    return value


def _list(value: Any) -> Any:
    if isinstance(value, list):
        return [_text(one) for one in value]
    return _text(value)


def _guidance(value: Any) -> Any:
    if isinstance(value, str):
        return guidance_of(value)
    if isinstance(value, dict):
        return {_text(name): _number(weight) for name, weight in value.items()}
    return _number(value)


#: Field -> (what reads it, what it is).
_FIELDS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "text": (_text, "a text"), "genre": (_text, "a text"), "key": (_text, "a text"), "negative": (_text, "a text"),
    "instruments": (_list, "a text or a list of texts"), "chords": (_list, "a text or a list of texts"),
    "tempo": (_number, "a number"), "beats_per_bar": (_whole, "a whole number"), "duration": (_number, "a number"),
    "seed": (_whole, "a whole number"), "temperature": (_number, "a number"), "top_k": (_whole, "a whole number"),
    "top_p": (_number, "a number"), "guidance": (_guidance, "a number, or one for each of several controls"),
    "nested": (_truth, "true or false"),
}  # fmt: skip


#: All of them.
NAMES = tuple(_FIELDS)


def request_of(given: Mapping[str, Any], limits: Limits, new: bool) -> Request:
    """A request with its seed; fields that are empty count as left out. ``new``: nothing is given to go on from.

    Raises RequestError for what is unknown, cannot be, or is more than this server makes at once.
    """
    wishes = {}
    for name, value in given.items():
        if name not in _FIELDS:
            raise RequestError(f"unknown field {name[:40]!r}: there are {', '.join(_FIELDS)}")
        if value is None or value == "" or value == []:
            continue
        read, kind = _FIELDS[name]
        try:
            wishes[name] = read(value)
        except RequestError:
            raise
        except (ValueError, OverflowError):
            raise RequestError(f"{name} {str(value)[:60]!r} is not {kind}") from None
    request = Request(**wishes).seeded()
    if request.duration > limits.seconds:
        raise RequestError(f"duration {request.duration:g}: this server makes {limits.seconds:g} seconds at once")
    if new:
        resolve(request)
    else:
        resolve_continuation(request)
    return request


def json_of(body: bytes) -> dict[str, Any]:
    """The JSON object in a request's body. Raises RequestError for anything else."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise RequestError('the body is not JSON: send an object such as {"text": "a slow blues"}') from None
    if not isinstance(found, dict):
        raise RequestError('the body must be a JSON object, such as {"text": "a slow blues"}')
    return found
