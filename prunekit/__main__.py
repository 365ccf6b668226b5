"""``python -m prunekit``: the command, for launchers that start Python modules."""

from prunekit.cli.start import main

main()
