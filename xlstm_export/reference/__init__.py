"""A ModelSpec evaluated in torch: the float64 reference, and references of lower precision."""
