"""From bytes to text: only UTF-8 is read; for other bytes, a guess at their encoding becomes a hint."""

from __future__ import annotations

import codecs

from hiersae_cli.errors import FileError

_BYTE_ORDER_MARKS = {  # those of UTF-32 begin with those of UTF-16
    codecs.BOM_UTF32_LE: "UTF-32LE",
    codecs.BOM_UTF32_BE: "UTF-32BE",
    codecs.BOM_UTF16_LE: "UTF-16LE",
    codecs.BOM_UTF16_BE: "UTF-16BE",
}
_COMPRESSED = {
    b"\x1f\x8b": "gunzip -k",
    b"\x28\xb5\x2f\xfd": "zstd -d",
    b"BZh": "bunzip2 -k",
    b"\xfd7zXZ\x00": "unxz -k",
    b"PK\x03\x04": "unzip",
}
_WIDE = (
    ("UTF-32LE", 4, 3),
    ("UTF-32BE", 4, 0),
    ("UTF-16LE", 2, 1),
    ("UTF-16BE", 2, 0),
)  # size, place of the highest byte
_CONTROLS = bytes(byte for byte in (*range(0x20), 0x7F) if byte not in b"\b\t\n\v\f\r\x1b")
_MOST_CONTROLS = 0.1  # share of the bytes of a text
_LEAST_GUESSED, _LEAST_JUDGED = 16, 256  # bytes; fewer prove nothing
_GUESSED_BYTES = 1 << 16  # bytes from which an encoding is guessed: a multiple of 4


def decoded(data: bytes, where: str, before: int = 0) -> str:
    """``data`` as text without a byte-order mark; ``before`` is the number of bytes before it in the file.

    Raises ``FileError`` with a hint if it is not UTF-8 text.
    """
    start = len(codecs.BOM_UTF8) if before == 0 and data.startswith(codecs.BOM_UTF8) else 0
    try:
        text = str(memoryview(data)[start:], "utf-8")
    except UnicodeDecodeError as error:
        place = start + error.start
        raise FileError(
            f"{where}: byte {before + place:,} (0x{data[place]:02x}) is not UTF-8 text", _hint(data, place)
        ) from None
    # Read as UTF-8, some bytes of UTF-16 and UTF-32 are control characters.
    controls = len(data) - len(data.translate(None, _CONTROLS))
    encoding = _guess(data) if controls > _MOST_CONTROLS * len(data) and len(data) >= _LEAST_GUESSED else ""
    if encoding or (controls > _MOST_CONTROLS * len(data) and len(data) >= _LEAST_JUDGED):
        raise FileError(
            f"{where}: not UTF-8 text: {controls / len(data):.0%} of its bytes are control characters",
            _convert(encoding) if encoding else "Give plain text in UTF-8.",
        )
    return text


def _hint(data: bytes, place: int) -> str:
    """What to do about bytes that are not UTF-8 at ``place``."""
    for magic, command in _COMPRESSED.items():
        if data.startswith(magic):
            return f"It is compressed: unpack it first, with {command}."
    if encoding := _guess(data):
        return _convert(encoding)
    # Bytes from 80 to 9F are letters and quotation marks in Windows' encoding and unused in Latin 1.
    windows = any(0x80 <= byte < 0xA0 for byte in data[place : place + _GUESSED_BYTES])
    return _convert("CP1252" if windows else "LATIN1")


def _guess(data: bytes) -> str:
    """UTF-16 or UTF-32 if ``data`` has its byte-order mark or is readable in it, else ""."""
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if data.startswith(mark):
            return encoding
    for encoding, size, high in _WIDE:
        whole = data[: min(len(data), _GUESSED_BYTES) // size * size]
        zeros, all_high = whole[high::size].count(0), len(whole) // size
        # The highest bytes of UTF-32 are 0; in UTF-16 at least those of spaces and line ends are.
        if zeros < all_high if size == 4 else not zeros or zeros < 0.9 * whole.count(0):
            continue
        text = whole.decode(encoding, "replace")
        readable = sum(character.isprintable() or character in "\t\r\n" for character in text) - text.count("\ufffd")
        if readable > 0.9 * len(text):
            return encoding
    return ""


def _convert(encoding: str) -> str:
    return f"Convert it first, for example: iconv -f {encoding} -t UTF-8 OLD > NEW"
