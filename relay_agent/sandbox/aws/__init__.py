"""The sandbox's stand-in for AWS: an emulator behind a guard that judges signatures."""
