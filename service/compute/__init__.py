"""The device thread: what waits for it, in which order, and what a batch is made of."""
