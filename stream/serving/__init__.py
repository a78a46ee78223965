"""What other processes ask of the coefficients: scores and one entity's belief."""
