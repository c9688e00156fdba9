"""Emitters: ``emit(g, x, layer, place)`` for each kind of layer, in a file of the kind's name.

Each opens its own scope; what stands before it is named in the scope outside.
"""
