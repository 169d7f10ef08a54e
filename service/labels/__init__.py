"""Label sets: uploaded, kept, planned, served, fitted."""
