"""Keeps optional packages, which libraries import only because they are installed, from being imported by `run`.

Owns which packages these are. It must not decide what a command imports.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

UNWANTED = ("rich", "better_exceptions", "greenlet", "colorama", "simplejson", "charset_normalizer", "chardet", "cryptography", "cffi")
"""structlog uses the first two to colour tracebacks, which the agent's log does not; rich costs 30 ms and 5 MB. It uses the next two for
green threads and for Windows, requests the one after them in place of json, if a program happens to have them; they cost 1.5 MB.
requests uses the next two to guess the charset of a text, which the agent never asks for; they cost 3 MB.
The last two come with pyspnego. PyJWT uses them for signatures that the agent never checks, pycryptodome in place of ctypes; they cost
10 MB. A policy file that needs pyspnego loads cryptography later."""
_MISSED = "Unable to find acceptable character detection dependency"


@contextmanager
def without_extras() -> Iterator[None]:
    """Make imports in the block fail for these packages; one that is already loaded stays."""
    hidden = [name for name in UNWANTED if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # This makes the import fail.
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", _MISSED)
            yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
