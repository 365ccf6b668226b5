"""What commands say while they work and when they end: the console, a sign of life, bars, notices."""
