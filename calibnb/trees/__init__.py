"""Trees of answers: tries, one forward pass over a tree, exact search, sampling."""
