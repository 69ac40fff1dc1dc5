"""The differential test: odd peers, each against the agent, curl and requests (`python -m tests.peers`)."""
