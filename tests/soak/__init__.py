"""The soak: a simulated day in minutes, in which everything around the agent fails, and a checker that counts what came of it.

Owns the program `python -m tests.soak`. pytest collects nothing here; the checker's own test is tests/unit/project/test_soak_checker.py.
"""
