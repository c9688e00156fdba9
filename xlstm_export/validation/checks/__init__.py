"""What is compared: each check yields results that the tolerance rule has judged."""
