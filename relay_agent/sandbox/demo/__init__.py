"""`make demo`: the whole way of a command, shown on a platform of its own."""
