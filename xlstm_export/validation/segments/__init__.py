"""A model that does not fit: compared part by part, each over the whole rollout before the next."""
