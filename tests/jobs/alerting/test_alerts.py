"""Messages to webhooks, against real servers on this machine: what arrives, and what never does."""

import ipaddress
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from jobs.alerting import alerts
from jobs.alerting.addresses import find_problem, parse_networks
from jobs.alerting.webhook import ALLOWED, Undelivered, parse_webhook
from jobs.spec.spec import Spec, SpecRefused, load
from models.refusal import Refusal
from tests.receiver import Receiver, receiving


@pytest.fixture
def receiver() -> Iterator[Callable[..., Receiver]]:
    with ExitStack() as servers:
        yield lambda context=None: servers.enter_context(receiving(context))


SPEC = """\
name: cards
input: {uri: lake/cards}
columns:
  amount: {role: numeric}
detector: {name: pca}
threshold: {policy: quantile}
output: {uri: out}
alerts:
  - {webhook: CARDS_WEBHOOK, when: [refused, committed]}
"""


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Spec:
    monkeypatch.delenv("CARDS_WEBHOOK", raising=False)
    monkeypatch.delenv(ALLOWED, raising=False)
    path = tmp_path / "cards.yaml"
    path.write_text(SPEC)
    return load(path)


def test_subscribed_events_arrive(
    spec: Spec, receiver: Callable[..., Receiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = receiver()
    monkeypatch.setenv("CARDS_WEBHOOK", f"http://{chat.host}/services/token?x=1")
    monkeypatch.setenv(ALLOWED, f"hooks.example.com, {chat.host}")
    hostile = "2026-01-01: <!channel>\r\n\x1b[31m\u202egnp.exe & more"
    alerts.send(spec, "refused", hostile, day="2026-01-01", flagged=7)
    alerts.send(spec, "failed", "nobody asked for this one")
    assert chat.requests == [
        (
            "/services/token?x=1",
            {
                "text": r"cards: 2026-01-01: &lt;!channel&gt; \x1b[31m\u202egnp.exe &amp; more",
                "watch": "cards",
                "event": "refused",
                "day": "2026-01-01",
                "flagged": 7,
            },
        )
    ]


def test_a_busy_receiver_is_retried_and_a_redirect_is_not_followed(
    receiver: Callable[..., Receiver],
) -> None:
    busy, other = receiver(), receiver()
    hosts = [busy.host, other.host]
    busy.answers = [(503, {"Retry-After": "86400"})]
    parse_webhook(f"http://{busy.host}/hook", hosts).post({})
    assert len(busy.requests) == 2
    for code in (301, 302, 303, 307, 308):
        busy.answers = [(code, {"Location": f"http://{other.host}/secret"})]
        with pytest.raises(Undelivered, match=f"answered {code}: redirects are not followed"):
            parse_webhook(f"http://{busy.host}/hook", hosts).post({})
    assert other.requests == []


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test")])
    now = datetime.now(UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    plain = serialization.NoEncryption()
    certificate, secret = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(pem))
    secret.write_bytes(key.private_bytes(pem, private, plain))
    return certificate, secret


def test_a_certificate_that_nobody_vouches_for_is_not_spoken_to(
    receiver: Callable[..., Receiver], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    chat = receiver(context)
    hook = parse_webhook(f"https://{chat.host}/hook", [chat.host])
    with pytest.raises(Undelivered):
        hook.post({"event": "failed"})
    assert chat.requests == []
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    hook.post({"event": "failed"})
    assert chat.requests == [("/hook", {"event": "failed"})]


NEVER = [
    "169.254.169.254",
    "169.254.170.2",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "[fd00:ec2::254]",
    "[fd00:ec2::23]",
    "[fd20:ce::254]",
    "[fd00:c1::a9fe:a9fe]",
    "[fd00:42::42]",
    "[fe80::1]",
    "[fe80::a9fe:a9fe]",
    "[::ffff:169.254.169.254]",
    "[::ffff:100.100.100.200]",
    "[2002:a9fe:a9fe::1]",  # 6to4
    "[2002:a83f:8110::]",  # 6to4 of 168.63.129.16
    "[64:ff9b::a9fe:a9fe]",  # NAT64
    "[64:ff9b:1::a9fe:a9fe]",
    "[2001:0:a9fe:a9fe::]",  # Teredo, by its server
    "[2001:0:4136:e378:8000:63bf:5601:5601]",  # Teredo, by its client
    "[2a00:1450::5efe:a9fe:a9fe]",  # ISATAP
    "[::a9fe:a9fe]",
    "2852039166",  # 169.254.169.254 as inet_aton reads it
    "0xa9fea9fe",
    "0251.0376.0251.0376",
    "0.0.0.0",
    "[::]",
    "224.0.0.1",
    "[ff02::1]",
]
LOCAL = [
    *("localhost", "127.1", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]"),
    *("10.1.2.3", "172.16.0.1", "192.168.0.1", "100.64.0.1", "198.18.0.1", "240.0.0.1"),
    *("[fc00::1]", "[::ffff:10.0.0.1]", "[2002:a00:1::]", "[64:ff9b::a00:1]", "[2001:db8::1]"),
]


@pytest.mark.parametrize("host", NEVER)
def test_a_metadata_service_is_never_called_even_if_its_address_is_listed(host: str) -> None:
    listed = [host, host.strip("[]"), "0.0.0.0/0", "::/0"]
    with pytest.raises(Refusal, match="webhooks are not sent there"):
        parse_webhook(f"https://{host}/latest/meta-data", listed).post({})


@pytest.mark.parametrize("host", LOCAL)
def test_an_address_outside_of_the_internet_is_called_only_if_it_is_listed(host: str) -> None:
    resolved = socket.getaddrinfo(host.strip("[]"), 443, type=socket.SOCK_STREAM)[0][4][0]
    assert find_problem(str(resolved))
    assert find_problem(str(resolved), parse_networks(["203.0.113.0/24", "a.example:443"]))
    assert find_problem(str(resolved), parse_networks(["0.0.0.0/0", "::/0"])) is None


def test_addresses_of_the_internet_are_called() -> None:
    for address in ("93.184.216.34", "2606:2800:220:1::1", "::ffff:93.184.216.34"):
        assert find_problem(address) is None
    assert find_problem("64:ff9b::5db8:d822") is None  # 93.184.216.34 behind NAT64


def test_a_listed_network_allows_a_listed_name_there() -> None:
    hook = parse_webhook("https://localhost/x", ["localhost", "127.0.0.0/8", "::1"])
    with pytest.raises(Undelivered, match="localhost: "):  # nobody answers there
        hook.post({})
    for listed in (["127.0.0.0/8"], ["10.0.0.0/8"]):
        with pytest.raises(Refusal, match="is not in the list"):
            parse_webhook(f"https://{listed[0]}", listed)


def test_a_name_is_resolved_once_and_the_checked_address_is_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A DNS server that answers a harmless address first, and the metadata service's next."""
    answers = iter(["93.184.216.34", "169.254.169.254", "169.254.169.254"])
    asked, connected = [], []

    def resolve(host: str, port: int, *_: object, **__: object) -> list[tuple[object, ...]]:
        asked.append(host)
        literal = host.replace(".", "").isdigit()
        address = host if literal else next(answers)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    def connect(self: socket.socket, address: tuple[str, int]) -> None:
        connected.append(address[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(Undelivered, match=r"^rebinding\.example: "):
        parse_webhook("https://rebinding.example/", ["rebinding.example"]).post({})
    assert asked.count("rebinding.example") == 1
    assert set(connected) == {"93.184.216.34"}


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("https://evil.example/x", "is not in the list of ANOMARAY_WEBHOOK_HOSTS"),
        ("https://hooks.example.com.evil.example/x", "is not in the list"),
        ("https://hooks.example.com:8443/x", "hooks.example.com:8443 is not in the list"),
        ("https://notteams.example/x", "is not in the list"),
        ("https://hooks.example.com@evil.example/", "without user and password"),
        ("http://hooks.example.com/x", "expected https://, found http://"),
        ("file:///etc/passwd", "such as https://host/path"),
        ("gopher://hooks.example.com/", "such as https://host/path"),
        ("https://[::1/", "such as https://host/path"),
        ("hooks.example.com/x", "such as https://host/path"),
        (f"https://{'a' * 64}.example/x", "such as https://host/path"),
        (f"https://{'a.' * 130}example/x", "such as https://host/path"),
        ("https://a..example/x", "such as https://host/path"),
        ("https://hooks.example.com/" + "x" * 2_000, "of at most 2,000 characters"),
        ("https://hooks.example.com/a b", "such as https://host/path"),
        ("https://hooks.example.com/\r\nHost: x", "such as https://host/path"),
        ("https://hooks.example.com/\x01", "such as https://host/path"),
        ("https://hööks.example/x", "such as https://host/path"),
        ("https://hooks.example.com:99999/x", "such as https://host/path"),
        ("https://hooks.example.com:-1/x", "such as https://host/path"),
    ],
)
def test_a_host_that_is_not_listed_is_refused_before_its_name_is_resolved(
    url: str, message: str
) -> None:
    with pytest.raises(Refusal) as told:
        parse_webhook(url, ["hooks.example.com", "*.teams.example"])
    assert message in str(told.value)
    assert "/x" not in str(told.value).replace("https://host/path", "")
    assert len(str(told.value)) < 300


def test_a_wildcard_allows_the_names_below_it() -> None:
    assert (
        parse_webhook("https://a.b.teams.example/x", ["*.teams.example"]).host
        == "a.b.teams.example"
    )
    with pytest.raises(Refusal):
        parse_webhook("https://teams.example/x", ["*.teams.example"])


def test_a_webhook_never_shows_its_token(
    spec: Spec, receiver: Callable[..., Receiver], monkeypatch: pytest.MonkeyPatch, capfd: object
) -> None:
    chat = receiver()
    chat.answers = [(404, {})]
    monkeypatch.setenv("CARDS_WEBHOOK", f"http://{chat.host}/a-secret-token")
    monkeypatch.setenv(ALLOWED, chat.host)
    assert "token" not in repr(alerts.find_webhook(spec.alerts[0]))
    alerts.send(spec, "committed", "done")  # does not fail the night
    assert len(chat.requests) == 1
    said = capfd.readouterr()  # type: ignore[attr-defined]
    assert "127.0.0.1 answered 404" in said.err
    assert "token" not in said.err + said.out


def test_check_names_what_an_alert_lacks(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = alerts.find_problems(spec)
    assert line.endswith(
        "cards.yaml:9: alerts.0.webhook: the environment variable CARDS_WEBHOOK is not set; "
        "expected the URL of a webhook"
    )
    monkeypatch.setenv("CARDS_WEBHOOK", "https://hooks.example.com/x")
    assert "hooks.example.com:443 is not in the list" in alerts.find_problems(spec)[0]
    monkeypatch.setenv(ALLOWED, "hooks.example.com")
    assert alerts.find_problems(spec) == ()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("CARDS_WEBHOOK", "https://hooks.example.com/token", "the name of an environment variable"),
        ("committed]", "comitted]", "alerts.0.when.1: expected"),
    ],
)
def test_a_wrong_alert_is_told_with_its_line(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = tmp_path / "cards.yaml"
    path.write_text(SPEC.replace(old, new))
    with pytest.raises(SpecRefused) as told:
        load(path)
    assert message in str(told.value)
    assert "cards.yaml:9: " in str(told.value)
