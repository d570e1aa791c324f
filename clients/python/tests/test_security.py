"""Tokens and TLS of the real server: what they let through, and what clients are told otherwise."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import programs
import pytest
import trustme
import ventral_client
from servers import Server
from test_command_line import lines, run
from test_failures import QUICK
from ventral_client import AsyncClient, Client, Tls

#: The name in the server's certificate.
NAME = "ventral.test"


def write_tokens(path: Path, **tokens: list[str]) -> dict[str, str]:
    """Makes tokens with these options of `server token new`, writes the file of them, and returns them by their names."""
    made: dict[str, str] = {}
    entries: list[str] = []
    for name, options in tokens.items():
        printed = programs.run("server", "token", "new", "--name", name, *options).splitlines()
        token, entry = (line for line in printed if line and not line.startswith("#"))
        made[name] = token
        entries.append(entry)
    path.write_text("\n".join(entries) + "\n", encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def guarded(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, dict[str, str]]]:
    """A server that wants tokens, and some of them."""
    path = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    tokens = write_tokens(
        path,
        everything=[],
        lab=["--models", "lc"],
        operator=["--admin"],
        slow=["--requests-per-second", "1"],
    )
    with Server(repository, "--security-tokens", str(path)) as server:
        yield server, tokens


def test_tokens_open_what_they_are_for(
    guarded: tuple[Server, dict[str, str]], pixels: np.ndarray, tmp_path: Path
) -> None:
    """All models, some models, changes; with every kind of call."""
    server, tokens = guarded
    with Client(server.address, token=tokens["everything"], model="lc") as client:
        assert [model.name for model in client.models()] == ["lc", "other"]
        assert client.activations(pixels, ["fc"])["fc"].shape == (24, 10)
        assert len(client.classify(pixels)) == 24
        for changes in (
            lambda: client.fit_projections(pixels, "fc", "pca"),
            lambda: client.delete_projection("pca.fc"),
        ):
            with pytest.raises(ventral_client.NotAuthorised, match="ask the operator"):
                changes()
    with Client(server.address, token=tokens["lab"]) as client:
        # It sees one model alone, which is so the one that is meant.
        assert [model.name for model in client.models()] == ["lc"]
        assert client.activations(pixels, ["fc"])["fc"].shape == (24, 10)
        with pytest.raises(ventral_client.NotAuthorised, match="ask the operator"):
            client.activations(pixels, ["fc"], model="other")
    with Client(server.address, token=tokens["operator"], model="lc") as client:
        assert client.fit_projections(pixels, "fc", "pca")["fc"].name == "pca.fc"
        assert client.activations(pixels, ["fc"], projections=["pca.fc"])["fc"].shape[0] == 24
        client.delete_projection("pca.fc")

    async def same() -> None:
        async with AsyncClient(server.address, token=tokens["lab"], model="lc") as client:
            assert (await client.activations(pixels, ["fc"]))["fc"].shape == (24, 10)
            # gRPC loses the status of a call that has ended where it still sends.
            for _ in range(10):
                with pytest.raises(ventral_client.NotAuthorised, match="ask the operator"):
                    await client.fit_projections(pixels, "fc", "pca")
                with pytest.raises(ventral_client.UnknownProjection, match="no projection `none`"):
                    await client.activations(pixels, ["fc"], projections=["none"])

    asyncio.run(same())
    token = tmp_path / "token"
    token.write_text(tokens["lab"] + "\n", encoding="utf-8")
    assert lines(run("models", "--address", server.address, "--token-file", token)) == [["lc", "1"]]


def test_without_a_known_token_nothing_is_answered(
    guarded: tuple[Server, dict[str, str]], pixels: np.ndarray
) -> None:
    """The exception says what to do, and the token isn't in it."""
    server, tokens = guarded
    wrong = tokens["lab"][:-1] + ("0" if tokens["lab"][-1] != "0" else "1")
    for token in (None, "", "nonsense", wrong):
        with Client(server.address, token=token, model="lc") as client:
            for call in (
                client.models,
                lambda: client.activations(pixels, ["fc"]),
                lambda: client.fit_projections(pixels, "fc", "pca"),
            ):
                with pytest.raises(ventral_client.NotAuthorised, match="pass token=") as caught:
                    call()
                assert not token or token not in str(caught.value)


def test_a_token_s_rate_is_kept_to(guarded: tuple[Server, dict[str, str]]) -> None:
    """The client comes back when the server says so."""
    server, tokens = guarded
    with Client(server.address, token=tokens["slow"]) as client:
        for _ in range(3):
            assert len(client.models()) == 2
    with (
        Client(server.address, token=tokens["slow"], retries=None) as client,
        pytest.raises(ventral_client.TooMuch, match="later"),
    ):
        for _ in range(10):
            client.models()


class Authority:
    """An authority with the files that a server and a client of it have."""

    def __init__(self, folder: Path) -> None:
        """Signs a certificate for the server's name and one for a client."""
        authority = trustme.CA()
        self.certificate = folder / "authority.pem"
        authority.cert_pem.write_to_path(self.certificate)
        self.server = self._issue(authority, folder / "server", NAME)
        self.client = self._issue(authority, folder / "client", "lab.test")

    @staticmethod
    def _issue(authority: trustme.CA, stem: Path, name: str) -> tuple[Path, Path]:
        issued = authority.issue_cert(name)
        chain, key = stem.with_suffix(".pem"), stem.with_suffix(".key")
        chain.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(key)
        return chain, key


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The server's."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def other_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Somebody else's."""
    return Authority(tmp_path_factory.mktemp("other"))


def test_tls_with_an_authority_of_one_s_own(
    repository: Path, authority: Authority, other_authority: Authority, pixels: np.ndarray
) -> None:
    """Both clients and the command line; not with another's authority, another name, or without TLS."""
    certificate, key = authority.server
    options = ["--tls-certificate", str(certificate), "--tls-key", str(key)]
    trusting = Tls(authorities=authority.certificate, server_name=NAME)
    with Server(repository, *options) as server:
        with Client(f"https://{server.address}", tls=trusting, model="lc") as client:
            assert client.activations(pixels, ["fc"])["fc"].shape == (24, 10)

        async def same() -> None:
            async with AsyncClient(server.address, tls=trusting, model="lc") as client:
                assert (await client.activations(pixels, ["fc"]))["fc"].shape == (24, 10)

        asyncio.run(same())
        for wrong in (
            Tls(authorities=other_authority.certificate, server_name=NAME),
            Tls(authorities=authority.certificate, server_name="elsewhere.test"),
            Tls(authorities=authority.certificate),
            True,
            None,
        ):
            client = Client(server.address, tls=wrong, retries=QUICK)
            with client, pytest.raises(ventral_client.NoServer, match="if and only if"):
                client.models()
        refused = run("models", "--address", server.address, "--authorities", other_authority.certificate)
        assert refused.returncode == 1 and "no server answers" in refused.stderr


def test_mutual_tls(
    repository: Path, authority: Authority, other_authority: Authority, pixels: np.ndarray
) -> None:
    """Only clients with a certificate of the right authority are answered."""
    certificate, key = authority.server
    options = ["--tls-certificate", str(certificate), "--tls-key", str(key)]
    options += ["--tls-client-ca", str(authority.certificate)]

    def tls(client: tuple[Path, Path] | tuple[None, None]) -> Tls:
        return Tls(authority.certificate, certificate=client[0], key=client[1], server_name=NAME)

    with Server(repository, *options) as server:
        with Client(server.address, tls=tls(authority.client), model="lc") as client:
            assert client.activations(pixels, ["fc"])["fc"].shape == (24, 10)
        for wrong in (other_authority.client, (None, None)):
            client = Client(server.address, tls=tls(wrong), retries=QUICK)
            with client, pytest.raises(ventral_client.NoServer, match="TLS"):
                client.models()
    with pytest.raises(ventral_client.InvalidRequest, match=r"nowhere\.pem"):
        Client("localhost", tls=authority.certificate.with_name("nowhere.pem"))
