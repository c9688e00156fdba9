"""Comparing two sessions and saying what is true."""
