"""What racing self-edits for the inner loops saves and costs: the program behind the recipe world-racing."""
