"""Single sign-on against made-up answers of a provider; a real one is in tests/console/test_sign_on.py."""

import hmac
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet
from webauthn.helpers import bytes_to_base64url

from hotspare.access.access import Access
from hotspare.access.passwords import hash_password
from hotspare.access.provider import Begun, Provider, ProviderFile, RoleByClaim, read_provider
from hotspare.access.roles import Grant, Role
from hotspare.errors import ConfigError, LoginRefused, ProviderUnavailable, UsageError

ISSUER = "https://login.example"
NONCE = "the nonce of this login"
BACK = "https://hotspare.example/login/sign-on/back"
KEY = ECKey.generate_key("P-256", {"kid": "1", "use": "sig", "alg": "ES256"})
KEYS: Any = KeySet([KEY]).as_dict(private=False)
PASSWORD = "correct horse battery"
KEPT = hash_password(PASSWORD)
SAID = ProviderFile(
    name="Example",
    issuer=ISSUER,
    client_id="hotspare",
    client_secret_file="unused",
    make_users=True,
    roles=(
        RoleByClaim(claim="groups", value="admins", role=Role.ADMIN),
        RoleByClaim(claim="groups", value="tenants", role=Role.VIEWER, tag="prod"),
    ),
)


class ToldProvider(Provider):
    """Says what a test has it say."""

    told: dict[str, Any]

    def address(self, begun: Begun) -> str:
        return begun.state

    def claims(self, code: str, begun: Begun) -> dict[str, Any]:
        return self.told


@pytest.fixture
def provider() -> ToldProvider:
    made = ToldProvider(SAID, "secret")
    made.told = {"sub": "7", "preferred_username": "Olga", "groups": ["tenants"]}
    return made


@pytest.fixture
def access(tmp_path: Path, provider: Provider, monkeypatch: pytest.MonkeyPatch) -> Iterator[Access]:
    # A hash takes a tenth of a second and 64 MiB, and none of these tests is about it.
    monkeypatch.setattr("hotspare.access.users.hash_password", lambda _: KEPT)
    opened = Access(tmp_path, provider)
    opened.users.add("anna", PASSWORD, [Grant(role=Role.ADMIN)])
    opened.setup_code = None
    yield opened
    opened.close()


def come(access: Access, **came: str) -> str:
    assert access.sign_on is not None
    state, flow = access.sign_on.begin(BACK)
    token, _ = access.log_in_by_sign_on(flow, {"state": state, "code": "x", **came}, BACK, "here")
    return token.user


def signed(key: Any = KEY, algorithm: str = "ES256", **changed: Any) -> str:
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": "hotspare", "sub": "7", "exp": now + 300, "iat": now, "nonce": NONCE}
    claims = {name: value for name, value in {**claims, **changed}.items() if value is not None}
    header = {"alg": algorithm, "kid": "1"}
    return jwt.encode(header, claims, key, algorithms=[algorithm])


def test_a_token_as_it_has_to_be_is_believed(provider: ToldProvider) -> None:
    assert provider.verified(signed(), KEYS, NONCE)["sub"] == "7"
    several = signed(aud=["other", "hotspare"], azp="hotspare")
    assert provider.verified(several, KEYS, NONCE)["sub"] == "7"


def by_public_key() -> str:
    """Sign with the provider's public key as if that were a secret; the library refuses to."""
    head = bytes_to_base64url(b'{"alg":"HS256","kid":"1"}')
    body = f"{head}.{signed().split('.')[1]}"
    return f"{body}.{bytes_to_base64url(hmac.digest(KEY.as_pem(private=False), body.encode(), 'sha256'))}"


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(signed(nonce="of another login"), id="nonce"),
        pytest.param(signed(nonce=None), id="no nonce"),
        pytest.param(signed(aud="another program"), id="audience"),
        pytest.param(signed(aud=None), id="no audience"),
        pytest.param(signed(aud=["other", "hotspare"]), id="several audiences"),
        pytest.param(signed(azp="other"), id="authorized party"),
        pytest.param(signed(iss="https://evil.example"), id="issuer"),
        pytest.param(signed(exp=int(time.time()) - 120), id="expired"),
        pytest.param(signed(exp=None), id="for ever"),
        pytest.param(signed(sub=None), id="nobody"),
        pytest.param(signed(key=ECKey.generate_key("P-256", {"kid": "1"})), id="signature"),
        pytest.param(by_public_key(), id="public key as secret"),
        pytest.param(signed().rpartition(".")[0] + ".", id="no signature"),
        pytest.param("nonsense", id="nonsense"),
    ],
)
def test_a_token_that_is_not_is_refused(provider: ToldProvider, token: str) -> None:
    with pytest.raises(LoginRefused):
        provider.verified(token, KEYS, NONCE)


def test_a_token_without_an_algorithm_is_refused(provider: ToldProvider) -> None:
    body = signed().split(".")[1]
    nothing = "eyJhbGciOiJub25lIn0"  # {"alg":"none"}
    for signature in ("", "AAAA"):
        with pytest.raises(LoginRefused, match="cannot be believed"):
            provider.verified(f"{nothing}.{body}.{signature}", KEYS, NONCE)


def test_who_comes_for_the_first_time_is_made_a_user_with_roles_by_claims(
    access: Access, provider: ToldProvider
) -> None:
    assert come(access) == come(access) == "olga"
    olga = access.users.get("olga")
    assert olga.grants == (Grant(role=Role.VIEWER, tag="prod"),)
    assert not olga.has_password
    provider.told["groups"] = ["admins", "others"]
    come(access)
    assert access.users.get("olga").is_admin
    assert access.audit.newest(1)[0].detail == {"by": "single sign-on", "issuer": ISSUER}


def test_such_users_have_no_password_here(access: Access) -> None:
    come(access)
    # The last is what is hashed where there is none, so that it takes as long.
    for guess in ("", PASSWORD, "nobody has this password"):
        with pytest.raises(LoginRefused):
            access.users.check("olga", guess, None)
    with pytest.raises(UsageError, match="single sign-on"):
        access.users.change("olga", password=PASSWORD)


def test_who_has_lost_all_roles_stays_out_and_what_was_issued_may_nothing(
    access: Access, provider: ToldProvider
) -> None:
    come(access)
    provider.told["groups"] = []
    with pytest.raises(LoginRefused, match="gives a role"):
        come(access)
    assert access.users.get("olga").grants == ()
    provider.told |= {"sub": "8", "preferred_username": "otto"}
    with pytest.raises(LoginRefused, match="gives a role"):
        come(access)
    assert [user.name for user in access.users.all()] == ["anna", "olga"]


def test_users_who_are_disabled_stay_out(access: Access) -> None:
    come(access)
    access.users.change("olga", disabled=True)
    with pytest.raises(LoginRefused, match="disabled"):
        come(access)
    assert access.audit.newest(1)[0].outcome == "login"


def test_nobody_becomes_another_user_by_name(access: Access, provider: ToldProvider) -> None:
    come(access)
    for name in ("anna", "olga"):  # of this server; of another who came from the provider
        provider.told |= {"sub": "8", "preferred_username": name}
        with pytest.raises(LoginRefused, match="another user"):
            come(access)
    for wrong in ("", None, 7, "o/../lga", "x" * 64):
        provider.told["preferred_username"] = wrong
        with pytest.raises(LoginRefused, match="no name"):
            come(access)


def test_a_name_that_changes_at_the_provider_stays_here(access: Access, provider: ToldProvider) -> None:
    come(access)
    provider.told["preferred_username"] = "anna"
    assert come(access) == "olga"


def test_without_making_users_an_admin_makes_them_before(tmp_path: Path) -> None:
    provider = ToldProvider(
        ProviderFile(name="Example", issuer=ISSUER, client_id="hotspare", client_secret_file=""), "secret"
    )
    provider.told = {"sub": "7", "preferred_username": "olga"}
    access = Access(tmp_path, provider)
    access.setup_code = None
    with pytest.raises(LoginRefused, match="none is made"):
        come(access)
    access.users.add("olga", None, [Grant(role=Role.OPERATOR)])
    assert come(access) == "olga"
    assert access.users.get("olga").grants == (Grant(role=Role.OPERATOR),)
    access.close()


def test_only_the_browser_that_was_sent_comes_back_and_once(access: Access) -> None:
    assert access.sign_on is not None
    state, flow = access.sign_on.begin(BACK)
    other_state, other_flow = access.sign_on.begin(BACK)
    for kept, shown in ((flow, other_state), (other_flow, state), ("", state), (flow, ""), (flow, "ä")):
        with pytest.raises(LoginRefused, match="too long ago, or used already"):
            access.log_in_by_sign_on(kept, {"state": shown, "code": "x"}, BACK, "here")
    access.log_in_by_sign_on(flow, {"state": state, "code": "x"}, BACK, "here")
    with pytest.raises(LoginRefused, match="used already"):
        access.log_in_by_sign_on(flow, {"state": state, "code": "x"}, BACK, "here")


def test_what_the_provider_refuses_is_said(access: Access) -> None:
    with pytest.raises(LoginRefused, match="access_denied"):
        come(access, error="access_denied")
    with pytest.raises(LoginRefused, match="another provider"):
        come(access, iss="https://evil.example")


def test_before_the_first_user_nobody_comes_that_way(access: Access) -> None:
    access.setup_code = "code"
    with pytest.raises(LoginRefused, match="yet"):
        come(access)


def test_a_provider_that_is_down_is_said_to_be(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret\n")
    file = tmp_path / "sign-on.toml"
    text = (
        f'name = "Example"\nissuer = "http://127.0.0.1:9"\nclient_id = "x"\nclient_secret_file = "{secret}"\n'
    )
    file.write_text(text)
    provider = read_provider(file)
    with pytest.raises(ProviderUnavailable, match="Example does not answer"):
        provider.end_address(BACK)
    for wrong in (
        text.replace("127.0.0.1", "login.example"),
        text + "nonsense = 1\n",
        text + 'scopes = ["x"]\n',
        "",
    ):
        file.write_text(wrong)
        with pytest.raises(ConfigError):
            read_provider(file)
