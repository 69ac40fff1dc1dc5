"""What the agent's parts cost, as ratios within one run: `python -m tests.bench`. Times say nothing about another machine."""
