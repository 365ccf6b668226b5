"""The newcomer's path of README.md, walked in a fresh clone."""
