"""Image towers opened for prompts and tokens: which towers can be, and how each kind is reached into."""
