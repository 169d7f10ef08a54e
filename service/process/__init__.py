"""How this process uses the machine: cores, allocator, native threads."""
