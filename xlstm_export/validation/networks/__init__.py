"""A bundle of a user's network against the network itself."""
