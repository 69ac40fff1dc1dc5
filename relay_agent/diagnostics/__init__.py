"""What is wrong and how to cure it: causes, states of loops and platform, the watchdog."""
