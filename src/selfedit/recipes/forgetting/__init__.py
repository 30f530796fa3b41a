"""What a writer forgets while it learns, by reinforcement or by imitation: the program behind world-forgetting."""
