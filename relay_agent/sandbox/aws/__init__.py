"""The sandbox's AWS: an emulator behind a guard that checks credentials."""
