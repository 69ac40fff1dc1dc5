"""One module for each kind of foreign text: what is called with it, and what must hold whatever it is."""
