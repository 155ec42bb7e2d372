"""The command of a submitted job: `python -m jobs.submitted VERB …` is `python -m jobs VERB …`,
with its results told apart from its log.

Ray keeps one log of a job, in which stdout and stderr are one. Here each line of stdout begins
with a mark, so that the submitter gives a result on its own stdout, and the rest on stderr.
"""

from typing import TextIO, cast

from jobs.remote.marked_lines import MarkedLines

if __name__ == "__main__":
    from jobs.__main__ import main

    main(lambda stream: cast(TextIO, MarkedLines(stream)))
