"""Training: what a model sees and in which order, the objective, the loop."""
