"""What the agent says about itself: log lines, metrics, and the one place that takes secrets out of text."""
