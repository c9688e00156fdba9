"""Recipes: how to export the models that are published, as data; one YAML file each."""
