"""TLS and mutual TLS with certificates made for the test."""

import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from services.runtime.auth import KeyStore, Role
from services.runtime.channels import open_channel
from services.runtime.server import Server
from services.runtime.settings import Settings
from tests.runtime.echo import NAME, EchoServicer, echo_service, send


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate for `name` (and localhost) by the folder's authority: (certificate, key)."""
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    request, extensions = folder / f"{name}.csr", folder / f"{name}.ext"
    extensions.write_text(f"subjectAltName=DNS:{name},DNS:localhost,IP:127.0.0.1\n")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(request), "-subj", f"/CN={name}")
    authority = ["-CA", str(folder / "ca.crt"), "-CAkey", str(folder / "ca.key"), "-CAcreateserial"]
    openssl("x509", "-req", "-in", str(request), *authority, "-out", str(certificate), "-extfile", str(extensions))
    return certificate, key


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority, and certificates `ingest` and `stranger` of it."""
    folder = tmp_path_factory.mktemp("tls")
    files = ["-keyout", str(folder / "ca.key"), "-out", str(folder / "ca.crt")]
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test authority", *files)
    for name in ("ingest", "features", "stranger"):
        make_certificate(folder, name)
    return folder


@pytest.fixture
async def server(certificates: Path, keys: KeyStore, tmp_path: Path) -> AsyncIterator[Server]:
    settings = Settings(
        data_dir=tmp_path,
        tls_certificate_file=certificates / "ingest.crt",
        tls_key_file=certificates / "ingest.key",
        tls_client_ca_file=certificates / "ca.crt",
        tls_service_names=("features",),
    )
    service = echo_service(EchoServicer())
    policies = {**service.policies, f"/{NAME}/Echo": frozenset({Role.READ, Role.SERVICE})}
    async with Server.open(settings, [type(service)(**{**vars(service), "policies": policies})], keys=keys) as opened:
        yield opened


def channel(server: Server, certificates: Path, name: str | None, **options: str) -> grpc.aio.Channel:
    own = (certificates / f"{name}.crt", certificates / f"{name}.key") if name else (None, None)
    return open_channel(
        f"localhost:{server.port}",
        ca_file=certificates / "ca.crt",
        certificate_file=own[0],
        key_file=own[1],
        **options,  # type: ignore[arg-type]
    )


async def test_a_service_is_known_by_its_certificate(server: Server, certificates: Path) -> None:
    async with channel(server, certificates, "features", project="shop") as opened:
        assert await send(opened, "Echo", "who") == ["shop service"]


async def test_another_certificate_of_the_authority_still_needs_a_key(
    server: Server, certificates: Path, keys: KeyStore
) -> None:
    async with channel(server, certificates, "stranger") as opened:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await send(opened, "Echo", "who")
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
    _, secret = await keys.create("shop", [Role.READ])
    async with channel(server, certificates, "stranger", key=secret) as opened:
        assert await send(opened, "Echo", "who") == ["shop read"]


async def test_without_a_certificate_or_in_plaintext_there_is_no_connection(server: Server, certificates: Path) -> None:
    async with channel(server, certificates, None) as opened:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await send(opened, "Echo", "who")
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    async with grpc.aio.insecure_channel(f"localhost:{server.port}") as plain:
        with pytest.raises(grpc.aio.AioRpcError):
            await send(plain, "Echo", "who")


async def test_a_renewed_certificate_is_served_without_a_restart(
    certificates: Path, keys: KeyStore, tmp_path: Path
) -> None:
    own = {suffix: tmp_path / f"own.{suffix}" for suffix in ("crt", "key")}

    def use(name: str) -> None:
        for suffix, path in own.items():
            path.write_bytes((certificates / f"{name}.{suffix}").read_bytes())

    use("ingest")
    settings = Settings(data_dir=tmp_path, insecure=True, tls_certificate_file=own["crt"], tls_key_file=own["key"])

    async def reaches(server: Server, name: str) -> bool:
        credentials = grpc.ssl_channel_credentials((certificates / "ca.crt").read_bytes())
        options = [("grpc.ssl_target_name_override", name), ("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.secure_channel(f"127.0.0.1:{server.port}", credentials, options) as opened:
            try:
                return await send(opened, "Echo", "x", timeout=10) == ["x"]
            except grpc.aio.AioRpcError:
                return False

    async with Server.open(settings, [echo_service(EchoServicer())], keys=keys) as server:
        assert (await reaches(server, "ingest"), await reaches(server, "features")) == (True, False)
        use("features")
        assert (await reaches(server, "ingest"), await reaches(server, "features")) == (False, True)
