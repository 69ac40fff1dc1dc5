"""`python -m tests.fuzz.process MODULE NAME [libFuzzer's options]`: fuzz one harness, in this process, until the time is over or it fails.

libFuzzer ends the process, at the first finding too, and hands out the input as a file.
"""

from __future__ import annotations

import importlib
import sys

import atheris

# Only what the harness needs is loaded, since instrumenting it takes seconds.
with atheris.instrument_imports(include=["relay_agent", "http.client", "tomllib", "idna", "ipaddress", "Crypto.Util.asn1"]):
    module = importlib.import_module(sys.argv[1])


def main() -> None:
    """Fuzz the harness that is named."""
    program, _, name, *options = sys.argv
    harness = next(each for each in module.HARNESSES if each.name == name)
    atheris.Setup([program, *options], harness.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
