"""One emitter per kind of layer."""
