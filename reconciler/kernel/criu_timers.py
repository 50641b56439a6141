"""Timers in criu's images, which it would not start again: corrected before the images count.

A timer that ticks for ever and has ticked is not running until somebody reads how often: the kernel says that nothing
is left of its time, criu writes that down, and starts it with that, which stops it. It begins a new tick instead.

Light on imports: the keeper holds this module.

Source: criu, images/timerfd.proto, images/fdinfo.proto, criu/timerfd.c; Linux fs/timerfd.c, timerfd_show and
timerfd_read_iter; protobuf.dev, "Encoding".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

from reconciler.errors import KernelFormatError
from reconciler.kernel.syscalls import file_errors

_MAGICS = (0x54564319, 0x56303138)
_HEADER = struct.Struct("<II")
_SIZE = struct.Struct("<I")
_VARINT, _WORD64, _BYTES = 0, 1, 2
_TIMER = 12
_LEFT_S, _LEFT_NS, _EVERY_S, _EVERY_NS = 7, 8, 9, 10

_Field = tuple[int, int, bytes]
"""Number, wire type, and what it holds: the encoded number, or the bytes without their length."""


def correct(images: str) -> None:
    """Let the timers in a directory of images that tick for ever go on ticking.

    Raises: KernelFormatError, if the images are not as we know them; KernelError.
    """
    path = f"{images}/files.img"
    with file_errors("read", path), open(path, "rb") as file:
        before = file.read()
    after = corrected(before)
    if after != before:
        with file_errors("write", path), open(path, "wb") as file:
            file.write(after)


def corrected(image: bytes) -> bytes:
    """Give an image of files with its timers corrected.

    Raises: KernelFormatError.
    """
    try:
        if _HEADER.unpack_from(image) != _MAGICS:
            raise KernelFormatError(f"read criu's files: expected an image of files, got {image[:8].hex()}")
        return image[: _HEADER.size] + b"".join(map(_file, _entries(image)))
    except (struct.error, IndexError) as err:
        raise KernelFormatError("read criu's files: they end too early") from err


def _entries(image: bytes) -> Iterator[bytes]:
    at = _HEADER.size
    while at < len(image):
        (size,) = _SIZE.unpack_from(image, at)
        at += _SIZE.size + size
        yield image[at - size : at]


def _file(entry: bytes) -> bytes:
    fields = [(number, kind, _timer(held) if number == _TIMER else held) for number, kind, held in _fields(entry)]
    written = _written(fields)
    return _SIZE.pack(len(written)) + written


def _timer(held: bytes) -> bytes:
    fields = list(_fields(held))
    values = {number: _number(value) for number, kind, value in fields if kind == _VARINT}
    left = {_LEFT_S: values.get(_EVERY_S, 0), _LEFT_NS: values.get(_EVERY_NS, 0)}
    if any(values.get(number) for number in left) or not any(left.values()):
        return held
    return _written(_with(fields, left))


def _with(fields: list[_Field], values: Mapping[int, int]) -> list[_Field]:
    return [(number, kind, _varint(values[number]) if number in values else held) for number, kind, held in fields]


def _fields(message: bytes) -> Iterator[_Field]:
    at = 0
    while at < len(message):
        key, at = _read(message, at)
        number, kind = key >> 3, key & 7
        begin = at
        match kind:
            case 0:
                _, at = _read(message, at)
            case 2:
                size, begin = _read(message, at)
                at = begin + size
            case 1 | 5:
                at += 8 if kind == _WORD64 else 4
            case _:
                raise KernelFormatError(f"read criu's files: there is no field of kind {kind}")
        if at > len(message):
            raise KernelFormatError("read criu's files: they end too early")
        yield number, kind, message[begin:at]


def _written(fields: list[_Field]) -> bytes:
    return b"".join(
        _varint(number << 3 | kind) + (_varint(len(held)) if kind == _BYTES else b"") + held
        for number, kind, held in fields
    )


def _read(data: bytes, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _number(held: bytes) -> int:
    return _read(held, 0)[0]


def _varint(value: int) -> bytes:
    written = bytearray()
    while value >= 0x80:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*written, value))
