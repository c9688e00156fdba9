"""The kinds of layer, one file each; ``model.layer`` says what such a file holds."""
