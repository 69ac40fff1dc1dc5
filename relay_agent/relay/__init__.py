"""The way of one command from the queue to its answer: the rules, and the five threads that run them."""
