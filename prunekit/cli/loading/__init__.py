"""What commands are pointed at: models that they build, folders that they read."""
