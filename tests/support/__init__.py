"""What the tests share: random networks, ways to compare models bit by bit, masked references."""
