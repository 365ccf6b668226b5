"""``python -m prunekit``: the command, for launchers that start Python modules."""

from prunekit.cli.main import main

main()
