"""Tests of the container on a real Docker engine. `make test-image` builds the image and runs them."""
