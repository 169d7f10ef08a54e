"""HTTP routes: each file turns requests into calls of the parts, and their answers into responses."""
