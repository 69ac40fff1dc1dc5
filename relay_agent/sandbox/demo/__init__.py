"""`make demo`: commands from end to end, on a platform started for it."""
