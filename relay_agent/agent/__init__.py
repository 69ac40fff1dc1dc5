"""The running agent: wiring, start, stop, and the threads that keep house."""
