"""What every package may use: models, errors, clock, URLs, loops, fail points. It imports no other package of the agent."""
