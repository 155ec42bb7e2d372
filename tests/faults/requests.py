"""Requests to S3 fail, and listings are late."""

from functools import partial

from tests.faults.fault import fault
from tests.faults.lake import DAY
from tests.faults.processes import Command
from tests.faults.proxy import KINDS, Request, Rule, flipped, hidden
from tests.faults.trial import Play, Trial

# Shares of requests that a fault of S3 strikes.
SHARES = (0.01, 0.1, 0.5)


def _requests_fail(name: str) -> Play:
    def play(trial: Trial) -> None:
        kind, where = KINDS[name]
        share = trial.chance.choice(SHARES)
        trial.moment(f"{share:.0%} of requests")
        rule = trial.rule(Rule(name, kind, share, where))
        for _ in range(2 if share < max(SHARES) else 1):
            if trial.finish(trial.start()) == 0:
                break
        trial.struck(rule.struck > 0)
        assert trial.proxy is not None
        trial.note(f"{rule.struck} of {trial.proxy.requests} requests")
        _lift(trial)
        trial.settle()

    return play


_S3_FAULTS = {
    "500": "requests answered with 500",
    "503": "requests answered with 503 SlowDown",
    "reset": "connections reset",
    "stall": "requests that wait some seconds",
    "truncated": "bodies that break off",
    "flipped": "bodies with a flipped bit",
    "lost-reply": "writes that took place, their reply lost",
    "409": "conditional writes answered with 409",
    "412": "conditional writes answered with 412",
}
for _name, _what in _S3_FAULTS.items():
    # Where half of all requests wait, the day takes five minutes.
    fault(f"s3-{_name}", _what, s3=True, slow=_name == "stall")(_requests_fail(_name))


@fault("s3-input-flipped-once", "each file of the day comes once with a flipped bit", s3=True)
def input_flipped_once(trial: Trial) -> None:
    gates = {"flag_rate": [0, 0.5], "volume": None, "quarantine_rate": 1, "quarantined_files": 99}
    trial.lake.write_spec(gates=gates)
    trial.moment("the first answer")
    rules = [
        trial.rule(Rule(path.name, flipped, where=partial(_is_read, path.name), times=1))
        for path in trial.lake.files()
    ]
    if trial.finish(trial.start()) != 0:
        trial.broken("the command failed, though each file could be read again")
    trial.struck(any(rule.struck for rule in rules))
    trial.settle()


@fault("s3-unchecked-flipped", "flipped bits in files whose pages have no checksums", s3=True)
def unchecked_flipped(trial: Trial) -> None:
    share = trial.chance.choice((0.1, 0.3))
    trial.moment(f"{share:.0%} of the day's bodies")
    trial.lake.drop_checksums()
    rule = trial.rule(Rule("flipped", flipped, share, _is_of_the_day))
    if trial.finish(trial.start()) != 0:
        trial.broken("the command failed, though each file could be read again")
    trial.struck(rule.struck > 0)
    _lift(trial)
    trial.settle()


def _is_of_the_day(request: Request) -> bool:
    return request.method == "GET" and f"flows/day={DAY}/" in request.key


def _is_read(name: str, request: Request) -> bool:
    return request.method == "GET" and request.key.endswith(f"flows/day={DAY}/{name}")


@fault("s3-cuts-a-fifth", "one body in five breaks off, for as long as it takes", s3=True)
def cuts_a_fifth(trial: Trial) -> None:
    trial.moment("20% of bodies")
    kind, where = KINDS["truncated"]
    rule = trial.rule(Rule("truncated", kind, 0.2, where))
    code = trial.finish(trial.start())
    trial.struck(rule.struck > 0)
    if code != 0:
        trial.broken(f"the command ended with {code}, though each request succeeds when repeated")
    trial.settle()


@fault("listing-hides-record", "a listing hides a record of the journal from a restart", s3=True)
def listing_hides_record(trial: Trial) -> None:
    count = trial.chance.randrange(2, 12)
    trial.moment(f"restart after record {count}")
    commands: list[Command] = []
    trial.at_request("record", count, "after", lambda: commands[0].kill())
    commands.append(trial.start())
    commands[0].wait(300)
    _hide(trial, "/tasks/", r"/tasks/")
    trial.settle()


@fault("listing-hides-log", "a listing hides an entry of the table's log", s3=True)
def listing_hides_log(trial: Trial) -> None:
    trial.moment("the newest version, from another bundle's run")
    trial.finish(trial.start())
    trial.lake.promote(trial.lake.base.other)
    _hide(trial, "flags/_delta_log", r"flags/_delta_log/0*1\.json$")
    trial.settle()


@fault("listing-hides-input", "a listing hides a file of the day, until the next run", s3=True)
def listing_hides_input(trial: Trial) -> None:
    file = trial.chance.choice(trial.lake.files()).name
    trial.moment(file)
    # No one can know of it: for as long as it is hidden, the day is what is listed.
    trial.lake.remember(without=file)
    _hide(trial, f"flows/day={DAY}", rf"/{file}$")
    trial.finish(trial.start())
    _lift(trial)
    trial.settle()


def _hide(trial: Trial, prefix: str, pattern: str) -> None:
    """Listings of the prefix lack what matches, some times."""
    times = trial.chance.randrange(1, 4)
    trial.rule(
        Rule("hidden", hidden(pattern), where=lambda r: prefix in r.listed + "/", times=times)
    )
    trial.struck()


def _lift(trial: Trial) -> None:
    assert trial.proxy is not None
    trial.proxy.lift()
