"""Torch: ``evaluate(x, layer, place)`` for each kind of layer, in a file of the kind's name."""
