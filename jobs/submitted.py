"""The command of a submitted job: `python -m jobs.submitted VERB …` marks the results of a verb.

Ray keeps one log of a job, which mixes stdout and stderr. Here each line of stdout begins with a
mark, so that the submitter can write results to its stdout and the rest to its stderr.
"""

from cluster.runtime import stopping

if __name__ == "__main__":
    stopping.listen()
    from typing import TextIO, cast

    from models.packages import require_packages

    with require_packages():
        from jobs.cli.command import main
        from jobs.remote.marked_lines import MarkedLines

    stopping.run(lambda: main(lambda stream: cast(TextIO, MarkedLines(stream))))
