"""What others ask of the coefficients: scores, an entity's belief, what is left to come."""
