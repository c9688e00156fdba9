"""Text and hidden states on top of a session."""
