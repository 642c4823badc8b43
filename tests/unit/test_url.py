"""What a URL says of the database; what is wrong with it, without showing it."""

import traceback
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import URL

from pgchannels import ConfigurationError
from pgchannels.database.url import DatabaseUrl, parse_url

PASSWORD = "hunter2"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Without what libpq takes from the environment."""
    for name in ("PGHOST", "PGPORT", "PGTARGETSESSIONATTRS", "PGSERVICEFILE"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def hosts(url: str | URL) -> list[str]:
    """The hosts of a URL, as errors show them."""
    return [str(host) for host in parse_url(url).hosts]


HOSTS = {
    "postgresql://one/db": ["one:5432"],
    "postgresql://one": ["one:5432"],
    "postgres://one:6000": ["one:6000"],
    "postgresql+asyncpg://one:/db": ["one:5432"],
    "postgresql://me:pw@one:1,two:2/db": ["one:1", "two:2"],
    "postgresql://me:p@w@one,two:2/db": ["one:5432", "two:2"],
    "postgresql://one,two/db?port=6000": ["one:6000", "two:6000"],
    "postgresql://one:1,two/db?port=6000": ["one:1", "two:6000"],
    "postgresql://one,two,three/db?port=1,2,3": ["one:1", "two:2", "three:3"],
    "postgresql://one,one:5432,two/db": ["one:5432", "two:5432"],
    "postgresql://[::1]/db": ["[::1]:5432"],
    "postgresql://[::1]:6000,[fe80::1%25eth0]/db": ["[::1]:6000", "[fe80::1%eth0]:5432"],
    "postgresql://%2Fvar%2Frun:6000/db": ["/var/run:6000"],
    "postgresql:///db": ["this machine:5432"],
    "postgresql://": ["this machine:5432"],
    "postgresql:///db?port=6000": ["this machine:6000"],
    "postgresql://:6000/db": ["this machine:6000"],
    "postgresql://me@:6000/db?host=/one": ["/one:6000"],
    "postgresql://me@/db?host=one,two&port=1,2": ["one:1", "two:2"],
    "postgresql://me@/db?host=one,two&port=1,": ["one:1", "two:5432"],
    "postgresql://me@/db?host=one&host=two:2&port=1": ["one:1", "two:2"],
    "postgresql://me@/db?host=one:1&host=two:2": ["one:1", "two:2"],
    "postgresql://me@/db?host=/a/b,/c&port=6000": ["/a/b:6000", "/c:6000"],
    "postgresql://me@/db?host=/a:b,/c:1": ["[/a:b]:5432", "/c:1"],
    "postgresql://me@/db?host=[::1],::2,[::3]:4&port=1": ["[::1]:1", "[::2]:1", "[::3]:4"],
    "postgresql://one/db?host=two": ["one:5432"],
    " postgresql://one/db\n": ["one:5432"],
}


@pytest.mark.parametrize(("url", "expected"), HOSTS.items())
def test_hosts_of_a_url(url: str, expected: list[str]) -> None:
    assert hosts(url) == expected


def test_hosts_of_sqlalchemys_url() -> None:
    for host, port, query, expected in (
        ("one", None, {}, ["one:5432"]),
        ("one", 1, {}, ["one:1"]),
        ("::1", 1, {}, ["[::1]:1"]),
        ("/one", 1, {}, ["/one:1"]),
        ("one,two", None, {"port": "1,2"}, ["one:1", "two:2"]),
        (None, 1, {"host": "/one"}, ["/one:1"]),
        (None, None, {"host": ("one:1", "two:2")}, ["one:1", "two:2"]),
        (None, None, {"host": "one,two", "port": "6000"}, ["one:6000", "two:6000"]),
    ):
        assert hosts(URL.create("postgresql+asyncpg", host=host, port=port, query=query)) == expected


def test_environment_says_what_the_url_leaves_open(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("PGPORT", "1,2")
    assert hosts("postgresql://one,two/db") == ["one:1", "two:2"]
    assert hosts("postgresql://one:3,two/db") == ["one:3", "two:2"]
    environment.setenv("PGHOST", "/three,four:4")
    assert hosts("postgresql:///db") == ["/three:1", "four:4"]
    environment.setenv("PGPORT", "6000")
    assert hosts("postgresql:///db") == ["/three:6000", "four:4"]
    assert hosts("postgresql://one,two/db") == ["one:6000", "two:6000"]


def test_service_says_what_the_url_leaves_open(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    services = tmp_path / "services"
    services.write_text("[shop]\nhost=one,two\nport=1,2\npassword=100%\n[old]\ntarget_session_attrs=standby\n")
    environment.setenv("PGSERVICEFILE", str(services))
    environment.setenv("PGHOST", "three")
    assert hosts("postgresql://?service=shop") == ["one:1", "two:2"]
    assert hosts("postgresql://four:4,five/?service=shop") == ["four:4", "five:2"]
    with pytest.raises(ConfigurationError, match=r"the service of the database, .* is in no service file: add it"):
        parse_url("postgresql://?service=unknown")
    with pytest.raises(ConfigurationError, match="target_session_attrs='standby'"):
        parse_url("postgresql://?service=old")
    services.write_text("no service file")
    with pytest.raises(ConfigurationError, match="service file"):
        parse_url("postgresql://?service=shop")


SERVICES = """
# a comment = of libpq
; a comment = of others
host=outside

[other]
host=two

[shop]
  host = one
  user=postgres
	dbname=shop
password=a:b;c#d%=e
user=too late

[shop]
port=1
"""


def test_service_file_is_read_as_libpq_reads_it(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    services = tmp_path / "services"
    services.write_text(SERVICES)
    environment.setenv("PGSERVICEFILE", str(services))
    url = parse_url("postgresql://?service=shop")
    assert list(map(str, url.hosts)) == ["one:5432"]
    assert (url.user, url.database, url.password) == ("postgres", "shop", "a:b;c#d%=e")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("service=other", "the service file: 'service' stands in a service, which cannot name another: take it out"),
        (
            "servicefile=/x",
            "the service file: 'servicefile' stands in a service, which cannot name another: take it out",
        ),
        (PASSWORD, "the service file .* has a line that is not name=value: correct it"),
    ],
)
def test_service_that_libpq_refuses_is_refused(
    environment: pytest.MonkeyPatch, tmp_path: Path, line: str, reason: str
) -> None:
    services = tmp_path / "services"
    services.write_text(f"[shop]\nhost=one\n {line}\n")
    environment.setenv("PGSERVICEFILE", str(services))
    with pytest.raises(ConfigurationError, match=reason) as raised:
        parse_url("postgresql://?service=shop")
    assert PASSWORD not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize("kind", ["folder", "bytes"])
def test_service_file_that_cannot_be_read_is_named(environment: pytest.MonkeyPatch, tmp_path: Path, kind: str) -> None:
    services = tmp_path / "services"
    services.mkdir() if kind == "folder" else services.write_bytes(b"[shop]\nhost=\xff")
    environment.setenv("PGSERVICEFILE", str(services))
    with pytest.raises(ConfigurationError, match=r"the service file \(PGSERVICEFILE or .*\) cannot be read"):
        parse_url("postgresql://?service=shop")


VARIABLES = {
    "PGSSLCERTMODE": ("allow", "require", "sslcertmode='require' cannot be obeyed"),
    "PGSSLCRLDIR": ("", "/folder", "'sslcrldir' cannot be obeyed by the driver"),
    "PGSSLSNI": ("1", "0", "sslsni='0' cannot be obeyed"),
    "PGSSLCOMPRESSION": ("0", "1", "sslcompression cannot be obeyed"),
    "PGMINPROTOCOLVERSION": ("3.0", "3.2", "min_protocol_version cannot be obeyed"),
    "PGMAXPROTOCOLVERSION": ("latest", "4.0", "max_protocol_version cannot be obeyed"),
    "PGGSSDELEGATION": ("0", "1", "gssdelegation cannot be obeyed"),
}


@pytest.mark.parametrize("variable", VARIABLES)
def test_variable_of_libpq_is_treated_as_its_parameter(environment: pytest.MonkeyPatch, variable: str) -> None:
    harmless, refused, reason = VARIABLES[variable]
    environment.setenv(variable, harmless)
    assert parse_url("postgresql://one/db")
    environment.setenv(variable, refused)
    with pytest.raises(ConfigurationError, match=f"{variable} in the environment: {reason}"):
        parse_url("postgresql://one/db")


def test_tls_that_an_old_variable_requires_is_required(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    services = tmp_path / "services"
    services.write_text("[plain]\nsslmode=disable\n")
    environment.setenv("PGSERVICEFILE", str(services))
    environment.delenv("PGSSLMODE", raising=False)
    environment.setenv("PGREQUIRESSL", "0")
    assert tls_of("postgresql://one/db") == []
    environment.setenv("PGREQUIRESSL", "1")
    assert tls_of("postgresql://one/db") == ["require"]
    assert tls_of("postgresql://one/db?sslmode=prefer") == ["prefer"]
    assert tls_of("postgresql://one/db?ssl=0") == ["disable"]
    assert tls_of("postgresql://one/db?service=plain") == ["disable"]
    environment.setenv("PGSSLMODE", "allow")
    assert tls_of("postgresql://one/db") == ["allow"]


def tls_of(url: str) -> list[str]:
    """The `sslmode` that the driver gets."""
    return parse_qs(urlsplit(parse_url(url).dsn).query).get("sslmode", [])


def test_driver_gets_the_rest(environment: pytest.MonkeyPatch) -> None:
    url = parse_url(
        "postgresql://m%40e:p%2Fw@one/d%3Fb?sslmode=require&options=-c%20a%3Db&host=&sslmode=prefer&user=x+y&empty="
        "&target_session_attrs=primary"
    )
    assert (url.user, url.password, url.database) == ("m@e", "p/w", "d?b")
    assert parse_qs(urlsplit(url.dsn).query) == {"sslmode": ["prefer"]}
    assert url.settings == {"options": "-c a=b"}
    assert "p/w" not in repr(url)
    assert parse_url("postgresql://@/?").user is None


@pytest.mark.parametrize("wanted", ["any", "primary", "read-write", "prefer-standby"])
def test_attribute_that_a_primary_has_is_accepted(environment: pytest.MonkeyPatch, wanted: str) -> None:
    assert parse_url(f"postgresql://one/db?target_session_attrs={wanted}")
    environment.setenv("PGTARGETSESSIONATTRS", wanted)
    assert parse_url("postgresql://one/db")


@pytest.mark.parametrize("wanted", ["standby", "read-only", "primaries"])
def test_attribute_that_a_primary_lacks_is_refused(environment: pytest.MonkeyPatch, wanted: str) -> None:
    reason = "target_session_attrs is none of" if wanted == "primaries" else "takes no writes, and a layer writes"
    with pytest.raises(ConfigurationError, match=reason):
        parse_url(f"postgresql://one/db?target_session_attrs={wanted}")
    environment.setenv("PGTARGETSESSIONATTRS", wanted)
    assert parse_url("postgresql://one/db?target_session_attrs=any")
    with pytest.raises(ConfigurationError, match=reason):
        parse_url("postgresql://one/db")


REFUSED = {
    f"postgresql://me:{PASSWORD}@one:x/db": "port that is no number",
    f"postgresql://me:{PASSWORD}@one:0/db": "port that is no number",
    f"postgresql://me:{PASSWORD}@one:65536/db": "port that is no number",
    f"postgresql://me:{PASSWORD}@one:{'9' * 5000}/db": "port that is no number",
    f"postgresql://me:{PASSWORD}@one:٣/db": "port that is no number",
    f"postgresql://me:{PASSWORD}@[::1/db": "port that is no number",
    f"postgresql://me:{PASSWORD}@/db?host=one,two&port=1,x": "port that is no number",
    f"postgresql://me:{PASSWORD}@one,two/db?port=1,2,3": "2 hosts and 3 ports",
    f"postgresql://me:{PASSWORD}@/db?host=one,two,three&port=1,2": "3 hosts and 2 ports",
    f"postgresql://me:{PASSWORD}@one,/db": "an empty host",
    f"postgresql://me:{PASSWORD}@one..two/db": "a host that is no name",
    f"postgresql://me:12/{PASSWORD}@one/db": "'/' as %2F",
    f"postgresql://me:12#{PASSWORD}@one/db": "'#' as %23",
    f"postgresql://me:12?{PASSWORD}@one/db": "name=value",
    f"postgresql://me:1@2/{PASSWORD}@one/db": "'@' as %40",
    f"postgresql://me:{PASSWORD}%00@one/db": "cannot be sent",
    f"postgresql://me:{PASSWORD}\ud800@one/db": "cannot be sent",
    f"postgresql://one/db?={PASSWORD}": "parameter without a name",
    f"mysql://me:{PASSWORD}@one/db": "postgresql://user:password@host",
    f"postgresql:me:{PASSWORD}@one/db": "postgresql://user:password@host",
    f"me:{PASSWORD}@one/db": "postgresql://user:password@host",
}


@pytest.mark.parametrize(("url", "reason"), REFUSED.items(), ids=range(len(REFUSED)))
def test_what_is_wrong_is_named_and_the_url_is_not_shown(url: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason) as raised:
        parse_url(url)
    assert PASSWORD not in "".join(traceback.format_exception(raised.value))


UNESCAPED = {
    "before a name": "postgresql://me:1?SecretPass=Sup3r@h/db",
    "before a known name": "postgresql://me:1?sslmode=Sup3r@h/db",
    "after a database": "postgresql://me:1/db?SecretPass=Sup3r@h/db",
    "with an @ in the user": "postgresql://me@shop:1?SecretPass=Sup3r@h/db",
    "with an @ in the password": "postgresql://me:1@2?SecretPass=Sup3r@h/db",
    "with an &": "postgresql://me:1?SecretPass=Sup3r&sslmod=1@h/db",
    "without a value": "postgresql://me:1?SecretPass@h/db",
}


@pytest.mark.parametrize("url", UNESCAPED.values(), ids=UNESCAPED.keys())
def test_question_mark_in_a_password_shows_no_part_of_it(url: str) -> None:
    with pytest.raises(ConfigurationError, match="write '\\?' in a password as %3F") as raised:
        parse_url(url)
    told = "".join(traceback.format_exception(raised.value))
    assert not [part for part in ("SecretPass", "Sup3r", "sslmod") if part in told]


def test_at_sign_in_a_parameter_that_is_right_does_no_harm() -> None:
    assert parse_url("postgresql://h/db?user=me@shop").user == "me@shop"
    with pytest.raises(ConfigurationError, match="'sslmod' is no parameter"):
        parse_url("postgresql://h/db?user=me%40shop&sslmod=require")


@pytest.mark.parametrize(("name", "value"), [("PGPORT", "x"), ("PGPORT", "1,2"), ("PGHOST", "a,"), ("PGHOST", "a..b")])
def test_wrong_environment_is_named(environment: pytest.MonkeyPatch, name: str, value: str) -> None:
    environment.setenv(name, value)
    with pytest.raises(ConfigurationError, match=name):
        parse_url("postgresql:///db")


pieces = st.one_of(
    st.sampled_from([*"@:/?#&=%,[] \n\0\ud800", "host=", "port=", "service=", "target_session_attrs=", "::1", "%00"]),
    st.sampled_from(["postgresql", "one", "5432", "99999", "%zz", "%ff", "\u2100", "xn--", "é", "." * 70, "a" * 70]),
    st.text(max_size=5),
)
passwords = st.text(min_size=1, max_size=8).map(lambda text: f"{PASSWORD}{text}{PASSWORD}")


def complaint(url: str | URL) -> str:
    """All that somebody sees of the error, if there is one; of any other error the test fails."""
    try:
        assert isinstance(parse_url(url), DatabaseUrl)
    except ConfigurationError as error:
        return "".join(traceback.format_exception(error))
    return ""


@given(before=st.lists(pieces, max_size=5), password=passwords, after=st.lists(pieces, max_size=10))
@example(before=["me:"], password=PASSWORD, after=["@[one/db"])
@example(before=["me:"], password=f"{PASSWORD}\ud800", after=["@one/db"])
@example(before=["me:"], password=PASSWORD, after=["@\u2100.org/db"])
@example(before=["me:"], password=PASSWORD, after=["@" + "a" * 70])
def test_no_text_shows_its_password_or_raises_anything_else(before: list[str], password: str, after: list[str]) -> None:
    assert PASSWORD not in complaint(f"postgresql://{''.join(before)}{password}{''.join(after)}")


@given(text=st.one_of(st.text(), st.lists(pieces).map("".join)))
def test_no_text_raises_anything_else(text: str) -> None:
    complaint(text)
    complaint(f"postgresql://{text}")


@given(
    user=st.text(),
    password=passwords,
    host=st.lists(pieces, max_size=4).map("".join),
    port=st.none() | st.integers(),
    database=st.text(),
    query=st.dictionaries(st.text() | st.sampled_from(["host", "port", "service"]), st.text() | st.lists(st.text())),
)
def test_no_url_of_sqlalchemys_shows_its_password_or_raises_anything_else(
    user: str, password: str, host: str, port: int | None, database: str, query: dict[str, str | list[str]]
) -> None:
    url = URL.create("postgresql", user, password, host, port, database, query)
    assert PASSWORD not in complaint(url)
