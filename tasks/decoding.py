"""The bytes of a user's file as text: unpacked, and decoded by what the bytes themselves say."""

import codecs
import zlib
from pathlib import Path

_MOST_BYTES = 2**30
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark begins it
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WESTERN = 0.25  # of the bytes at most are no ASCII in a text of Latin letters


class UndecodableError(ValueError):
    """A sentence for the user about a file that is no text."""


def file_bytes(path: Path, noun: str) -> bytes:
    """The content of a file, unpacked if it is a gzip file, whatever its name.

    noun: what the file is, for the error. Raises ValueError for one that cannot be read, is damaged,
    or is above 1 GiB.
    """
    try:
        content = path.read_bytes()
        packed = content.startswith(b"\x1f\x8b")
        unpacked = _unpack(content) if packed else content
    except OSError as error:
        raise ValueError(
            f"cannot read the {noun} {path} ({error.strerror}): give an existing file"
        ) from error
    except (zlib.error, EOFError) as error:
        raise ValueError(
            f"the {noun} {path} is a damaged gzip file ({error}): pack it again"
        ) from error
    if len(unpacked) > _MOST_BYTES:
        raise ValueError(f"the {noun} {path} has more than 1 GiB of text: give a part of it")
    return unpacked


def _unpack(content: bytes) -> bytes:
    """All members of a gzip file, up to one byte above the limit."""
    parts, size = [], 0
    while content.startswith(b"\x1f\x8b") and size <= _MOST_BYTES:
        reader = zlib.decompressobj(wbits=31)
        parts.append(reader.decompress(content, _MOST_BYTES + 1 - size))
        size += len(parts[-1])
        if not reader.eof and size <= _MOST_BYTES:
            raise EOFError("it ends too early")
        content = reader.unused_data
    return b"".join(parts)


def decode(content: bytes, noun: str, path: Path) -> tuple[str, str]:
    """The text, with line ends as \\n, and a notice where its encoding had to be found out, or none.

    A byte order mark decides; without one the text is UTF-8, or, where that cannot be, Windows-1252
    (Latin-1 where even that cannot be), if few of its bytes are no ASCII.

    Raises UndecodableError for bytes that are no text, such as UTF-16 without a mark.
    """
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), None)
    notice = ""
    try:
        if encoding is None and b"\0" in content:
            raise ValueError("it holds NUL bytes, as a binary file does, or UTF-16 without a mark")
        try:
            text = content.decode(encoding or "utf-8")
        except UnicodeDecodeError:
            if encoding is not None:
                raise
            text, encoding = _western(content)
            notice = f"it is not UTF-8 and was read as {encoding}"
    except ValueError as error:
        reason = getattr(error, "reason", error)
        raise UndecodableError(
            f"the {noun} {path} is no text that can be decoded ({reason}): convert it to UTF-8"
        ) from error
    if encoding in ("utf-16", "utf-32"):
        notice = f"it was read as {encoding.upper()}"
    return text.replace("\r\n", "\n").replace("\r", "\n"), notice


def _western(content: bytes) -> tuple[str, str]:
    high = sum(content.count(byte) for byte in range(128, 256))
    if high > _WESTERN * len(content):
        raise ValueError(f"it is not UTF-8, and {high} of its {len(content)} bytes are no ASCII")
    try:
        return content.decode("cp1252"), "Windows-1252"
    except UnicodeDecodeError:
        return content.decode("latin-1"), "Latin-1"
