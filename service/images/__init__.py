"""Images on their way in: limits first, then decoded to the pixels that the image tower takes."""
