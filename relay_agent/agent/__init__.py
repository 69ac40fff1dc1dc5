"""The running agent: wiring, start, stop, and the housekeeping threads."""
