"""The pages of a running agent: health, readiness, metrics, status. They are read-only."""
