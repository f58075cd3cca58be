"""One of two words, with a probability that the prompt states: the mixing curve."""
