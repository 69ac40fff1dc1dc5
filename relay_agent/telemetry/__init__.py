"""Log lines, metrics, and the redaction of secrets."""
