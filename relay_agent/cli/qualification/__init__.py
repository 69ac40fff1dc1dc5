"""The lines of `relay-agent qualify`: what is required, expected and observed (docs/validation.md)."""
