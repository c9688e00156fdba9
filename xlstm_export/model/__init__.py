"""The one description of a model between checkpoint and graph."""
