"""Files and folders: weights without pickle, folders that are written whole or not at all."""
