"""Tests of the container on a real Docker engine. Run by `make test-image`, which builds what they test."""
