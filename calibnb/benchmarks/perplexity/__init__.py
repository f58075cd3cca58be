"""Language modelling: how well ordinary text is predicted."""
