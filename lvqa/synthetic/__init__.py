"""The synthetic world with its videos and questions, and the weights of the embedded model, which was trained on it."""
