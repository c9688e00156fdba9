"""A validation report as JSON and as Markdown."""
