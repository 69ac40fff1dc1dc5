"""Settings and secrets: read from the environment, checked, explained."""
