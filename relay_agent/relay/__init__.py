"""One command from the queue to its answer: the rules, and the five kinds of threads that apply them."""
