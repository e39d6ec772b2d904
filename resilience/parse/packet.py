"""Messages between supervisor and agent, supervisor and program: a verb, then key=value words in one packet.

Format: docs/reference/protocols.md §1. Pure; what does not follow the format raises WireError naming the word.
"""

import re
from urllib.parse import quote, unquote_to_bytes

from resilience.contract import contract
from resilience.model.errors import WireError

MAX_BYTES = int(contract()["wire"]["max_message_bytes"])
_SAFE = "-._~,:/;=+"
_VERB = re.compile(r"[a-z][a-z_]*\Z")
_KEY = re.compile(r"[a-z0-9_]+\Z")
_VALUE = re.compile(r"(?:[A-Za-z0-9\-._~,:/;=+]|%[0-9A-Fa-f]{2})*\Z")


def encode(value: object) -> str:
    """A value as it stands on the wire; bytes outside the safe set become %XX (UTF-8)."""
    return quote(str(value), safe=_SAFE, errors="replace")


def decode(text: str) -> str:
    """The value behind its wire form. Raises WireError for a stray character, a bad escape or no UTF-8."""
    if not _VALUE.match(text):
        raise WireError("message", "value is not percent-encoded", text[:80])
    try:
        return unquote_to_bytes(text).decode("utf-8")
    except UnicodeDecodeError:
        raise WireError("message", "value is not UTF-8", text[:80]) from None


def cut(text: str, size: int) -> str:
    """The longest beginning of a text that takes at most `size` bytes on the wire."""
    if len(encode(text)) <= size:
        return text
    used = 0
    for index, character in enumerate(text):
        used += len(encode(character))
        if used > size:
            return text[:index]
    return text


def pack(verb: str, **values: object) -> bytes:
    """One packet. Raises WireError when it is longer than the protocol allows."""
    words = [verb, *(f"{key}={encode(value)}" for key, value in values.items())]
    packet = " ".join(words).encode("ascii")
    if len(packet) > MAX_BYTES:
        raise WireError("message", f"longer than {MAX_BYTES} bytes", f"{verb} of {len(packet)} bytes")
    return packet


def unpack(packet: bytes) -> tuple[str, dict[str, str]]:
    """Verb and values of one packet. Raises WireError for whatever does not follow the format."""
    if len(packet) > MAX_BYTES:
        raise WireError("message", f"longer than {MAX_BYTES} bytes", len(packet))
    try:
        verb, *words = packet.decode("ascii").split(" ")
    except UnicodeDecodeError:
        raise WireError("message", "not ASCII", repr(packet[:40])) from None
    if not _VERB.match(verb):
        raise WireError("message", "bad verb", verb[:40])
    values: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not _KEY.match(key):
            raise WireError("message", "not key=value", word[:80])
        if key in values:
            raise WireError("message", "key given twice", key)
        values[key] = decode(value)
    return verb, values
