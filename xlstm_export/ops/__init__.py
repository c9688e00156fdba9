"""The operator vocabulary: one catalogue, from which every backend's view is derived."""
