"""Where the command starts."""

import gc


def main() -> None:
    """Entry point of the console script and of ``python -m prunekit``."""
    gc.disable()  # nothing is garbage while the command is put together; the callback of ``app`` turns it on again
    try:
        from prunekit.cli.app import main as command

        command()
    finally:
        gc.enable()
