"""The cost of the agent's parts as ratios within one run: `python -m tests.bench`. Times say nothing about another machine."""
