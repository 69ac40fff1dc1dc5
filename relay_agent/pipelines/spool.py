"""Buffers a large answer while it is read: in memory up to 8 MB, beyond that in an unnamed file.

Owns that choice. It must not know what the bytes are.
"""

from __future__ import annotations

import errno
import io
import os
import tempfile

from relay_agent.core.errors import RelayError

IN_MEMORY_BYTES = 8_000_000


class NoPlace(RelayError):
    """A large answer cannot be kept on this machine; `code` is the name of the errno."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"the answer cannot be kept in a temporary file: {error.strerror or error}; set TMPDIR to a directory with room")
        self.code = errno.errorcode.get(error.errno or 0, "EIO")


class Spool:
    """Bytes that are written once and then read."""

    def __init__(self, in_memory_bytes: int = IN_MEMORY_BYTES) -> None:
        self._in_memory_bytes = in_memory_bytes
        self._file: io.BytesIO | _UnnamedFile = io.BytesIO()
        self.size = 0

    def write(self, data: bytes | bytearray) -> None:
        """Add bytes at the end.

        Raises:
            NoPlace: there is no directory for temporary files, or no room in it.
        """
        self.size += len(data)
        if isinstance(self._file, io.BytesIO) and self.size <= self._in_memory_bytes:
            self._file.write(data)
            return
        try:
            if isinstance(self._file, io.BytesIO):
                held, self._file = self._file, _unnamed_file()
                _write_all(self._file, held.getbuffer())
            _write_all(self._file, memoryview(data))
        except OSError as error:
            raise NoPlace(error) from None

    def reader(self) -> io.BytesIO | _UnnamedFile:
        """Return the one file object that holds the bytes, at its beginning; closing it frees them."""
        self._file.seek(0)
        return self._file

    def close(self) -> None:
        """Free the bytes."""
        self._file.close()


class _UnnamedFile(io.FileIO):
    """Closes itself silently when nobody holds it any more: a response that is never closed is no error of its owner's."""

    def __del__(self) -> None:
        self.close()


def _unnamed_file() -> _UnnamedFile:
    with tempfile.TemporaryFile(buffering=0) as named:
        return _UnnamedFile(os.dup(named.fileno()), "r+b")


def _write_all(file: _UnnamedFile, data: memoryview) -> None:
    while data:
        data = data[file.write(data) :]
