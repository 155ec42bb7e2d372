"""The program `python -m jobs VERB`, whose verbs are in `jobs/cli/`."""

from cluster.runtime import stopping

if __name__ == "__main__":
    stopping.listen()
    from models.packages import require_packages

    with require_packages():
        from jobs.cli.command import main

    stopping.run(main)
