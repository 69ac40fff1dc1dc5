"""Fuzzing: the parsers of foreign text get inputs that a fuzzer makes from their coverage (`make fuzz`).

It must not be what `make test` relies on: that runs every harness over its seeds, what was found before, and a few drawn inputs.
"""
