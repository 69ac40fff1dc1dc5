"""What every room may use: models, errors, clock, URLs, loops, fail points. Imports nothing of ours."""
