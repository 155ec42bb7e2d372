"""The installed command `anomaray`: runs the checkout that the wheel carries as its data.

The folders keep their import names, which are too general for site-packages: only the processes of
this command see them, at the front of their path.
"""

import sys
from pathlib import Path


def main() -> None:
    """Run a verb."""
    sys.path.insert(0, str(Path(__file__).with_name("checkout")))
    from cluster.runtime import stopping

    stopping.listen()
    from jobs.cli.command import main as command

    stopping.run(command)
