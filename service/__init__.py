"""The serving side: HTTP in, class scores out. Imports `adapters`, never the other way round."""
