"""Where a bundle that failed goes wrong, and what would explain it."""
