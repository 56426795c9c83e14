"""TLS credentials from mounted files, read again when they change: certificates are renewed under a running server."""

from pathlib import Path

import grpc

from services.runtime.settings import Settings


def server_credentials(settings: Settings) -> grpc.ServerCredentials | None:
    """TLS as the settings say, mutual with `tls_client_ca_file`; None means plaintext. Raises OSError."""
    if settings.tls_certificate_file is None or settings.tls_key_file is None:
        return None
    files = _Files(settings.tls_certificate_file, settings.tls_key_file, settings.tls_client_ca_file)
    return grpc.dynamic_ssl_server_credentials(
        files.read(),
        files.read_if_changed,  # type: ignore[arg-type]  # the stubs forget that None means unchanged
        require_client_authentication=settings.tls_client_ca_file is not None,
    )


class _Files:
    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        self._paths = [path for path in (certificate, key, client_ca) if path is not None]
        self._seen: list[tuple[int, int]] = []

    def read(self) -> grpc.ServerCertificateConfiguration:
        self._seen = self._stamps()
        certificate, key, *client_ca = (path.read_bytes() for path in self._paths)
        return grpc.ssl_server_certificate_configuration([(key, certificate)], client_ca[0] if client_ca else None)

    def read_if_changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Asked by gRPC at each handshake; None keeps what it has."""
        try:
            return None if self._stamps() == self._seen else self.read()
        except OSError:
            return None  # between the removal of the old files and the new ones

    def _stamps(self) -> list[tuple[int, int]]:
        return [(status.st_mtime_ns, status.st_ino) for status in (path.stat() for path in self._paths)]


def client_credentials(
    ca_file: Path | None, certificate_file: Path | None = None, key_file: Path | None = None
) -> grpc.ChannelCredentials:
    """TLS to a server of `ca_file` (None: the well-known authorities), with our own certificate for mutual TLS."""
    return grpc.ssl_channel_credentials(
        root_certificates=ca_file.read_bytes() if ca_file else None,
        private_key=key_file.read_bytes() if key_file else None,
        certificate_chain=certificate_file.read_bytes() if certificate_file else None,
    )
