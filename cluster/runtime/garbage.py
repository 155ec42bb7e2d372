"""When Python looks for garbage: hardly ever while a command imports its packages.

Python looks through its youngest objects after each 700 new ones, and now and then through all.
Packages make 470,000 objects that stay: the imports of `score` took 2.5 s of CPU time, and 2.0 s
without a look (medians of 7).
"""

import gc

_USUAL = gc.get_threshold()
# New objects before a look: more than imports make, and a bound for verbs that never resume.
_RARE = 500_000


def delay() -> None:
    """Look rarely from now on, as a command begins with imports."""
    gc.set_threshold(_RARE)


def resume() -> None:
    """Look as usual again, where `delay` was called. What is there by now is left out for good:
    nearly all of it is code."""
    if gc.get_threshold()[0] == _RARE:
        gc.freeze()
        gc.set_threshold(*_USUAL)
