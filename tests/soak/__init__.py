"""The soak test: a simulated day in minutes during which everything around the agent fails, and a checker of the result.

The program is `python -m tests.soak`. pytest collects nothing here; the checker's own test is tests/project/test_soak_checker.py.
"""
