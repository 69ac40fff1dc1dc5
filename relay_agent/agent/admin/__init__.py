"""The pages of a running agent: health, readiness, metrics, status. They show, and change nothing."""
