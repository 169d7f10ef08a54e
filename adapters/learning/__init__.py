"""What methods learn with: fits on support images, their losses, and the parts of single methods."""
