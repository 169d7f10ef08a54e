"""Many front ends, many workers. Only `app` knows Ray; the rest is plain objects that can be tried without it."""
