"""Diagnosis: causes and cures, the states of loops and platform, what fails now, the watchdog."""
