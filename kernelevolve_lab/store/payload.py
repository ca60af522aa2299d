"""Events as stored text: JSON in which long strings are replaced by references to blobs.

`{"$blob": digest}` stands for the UTF-8 text of that blob. A key of the event's own that starts with `$` is written with one `$` more, so
that no text of a model or a user can pose as a reference.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import TypeAdapter

from kernelevolve_lab.records.events import Event

EXTERNAL = 2048
REFERENCE = "$blob"

_EVENTS: TypeAdapter[Event] = TypeAdapter(Event)


def digest_of(data: bytes) -> str:
    """The name of a blob: the hexadecimal SHA-256 of its content."""
    return hashlib.sha256(data).hexdigest()


def encode(event: Event) -> tuple[str, dict[str, bytes]]:
    """Return the event's text and the blobs, by digest, that it refers to."""
    text = event.model_dump_json()
    if len(text) < EXTERNAL and '"$' not in text:
        return text, {}
    blobs: dict[str, bytes] = {}

    def externalised(value: Any) -> Any:
        match value:
            case str() if len(value) >= EXTERNAL:
                data = value.encode()
                digest = digest_of(data)
                blobs[digest] = data
                return {REFERENCE: digest}
            case dict():
                return {f"${key}" if key.startswith("$") else key: externalised(item) for key, item in value.items()}
            case list():
                return [externalised(item) for item in value]
        return value

    return json.dumps(externalised(json.loads(text)), ensure_ascii=False, separators=(",", ":")), blobs


def references(text: str) -> frozenset[str]:
    """The digests that a stored text refers to."""
    if '"$' not in text:
        return frozenset()
    found: set[str] = set()

    def look(value: Any) -> None:
        match value:
            case {"$blob": str(digest)} if len(value) == 1:
                found.add(digest)
            case dict():
                for item in value.values():
                    look(item)
            case list():
                for item in value:
                    look(item)

    look(json.loads(text))
    return frozenset(found)


def decode(text: str, blobs: Mapping[str, bytes] | Callable[[str], bytes]) -> Event:
    """Return the event of a stored text; raise `pydantic.ValidationError` (a `ValueError`) or `KeyError` where it is not one."""
    if '"$' not in text:
        return _EVENTS.validate_json(text)
    get = blobs if callable(blobs) else blobs.__getitem__

    def restored(value: Any) -> Any:
        match value:
            case {"$blob": str(digest)} if len(value) == 1:
                return get(digest).decode()
            case dict():
                return {key[1:] if key.startswith("$") else key: restored(item) for key, item in value.items()}
            case list():
                return [restored(item) for item in value]
        return value

    return _EVENTS.validate_python(restored(json.loads(text)))
