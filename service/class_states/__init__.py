"""Label set and method to class state: found hot, in the store, or made once for everybody who waits."""
