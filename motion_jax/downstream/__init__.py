"""What an encoder is worth, and what it has learned: features, probes, protocols."""
