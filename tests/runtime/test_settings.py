"""Settings from the environment."""

from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import ValidationError

from services.runtime.settings import Settings, SettingsError


class ShopSettings(Settings):
    name: ClassVar[str] = "shop"
    shelves: int = 3


def test_variables_with_the_prefix_are_read_and_others_are_not() -> None:
    settings = ShopSettings.load(
        "INKLING_SHOP", {"INKLING_SHOP_SHELVES": "5", "INKLING_SHOP_PORT": "7001", "PORT": "x"}
    )
    assert (settings.shelves, settings.port, settings.host) == (5, 7001, "127.0.0.1")


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [("INKLING_SHOP_PROT", "INKLING_SHOP_PORT"), ("INKLING_SHOP_SHELFS", "INKLING_SHOP_SHELVES")],
)
def test_an_unknown_variable_is_refused_with_the_nearest_name(variable: str, nearest: str) -> None:
    with pytest.raises(SettingsError, match=f"unknown variable {variable}: did you mean {nearest}"):
        ShopSettings.load("INKLING_SHOP_", {variable: "1"})


def test_a_value_that_does_not_fit_is_named_but_never_quoted() -> None:
    with pytest.raises(SettingsError, match="INKLING_SHOP_PORT") as caught:
        ShopSettings.load("INKLING_SHOP", {"INKLING_SHOP_PORT": "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_secrets_are_not_in_the_representation() -> None:
    assert "k" * 40 not in repr(ShopSettings(service_key="k" * 40, paging_secret="k" * 40))


def test_databases_are_files_of_the_data_folder_unless_given() -> None:
    settings = ShopSettings(data_dir=Path("/data"))
    assert settings.database_url == "sqlite:////data/shop.db"
    assert settings.auth_database_url == "sqlite:////data/auth.db"
    assert ShopSettings(database_url="postgresql://db/x").database_url == "postgresql://db/x"


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1


def test_listening_beyond_loopback_needs_tls_or_an_explicit_word() -> None:
    with pytest.raises(SettingsError, match="not loopback"):
        ShopSettings.load("S", {"S_HOST": "0.0.0.0"})
    for word in ("S_INSECURE", "S_ALLOW_PLAINTEXT"):
        assert ShopSettings.load("S", {"S_HOST": "0.0.0.0", word: "true"}).host == "0.0.0.0"
    tls = {"S_TLS_CERTIFICATE_FILE": "/tls.crt", "S_TLS_KEY_FILE": "/tls.key"}
    assert ShopSettings.load("S", {"S_HOST": "::", **tls}).host == "::"
    for host in ("localhost", "::1", "[::1]", "127.0.0.2", "unix:/run/shop.sock"):
        assert ShopSettings.load("S", {"S_HOST": host}).host == host


@pytest.mark.parametrize(
    "variables",
    [
        {"S_TLS_CERTIFICATE_FILE": "/tls.crt"},
        {"S_TLS_CLIENT_CA_FILE": "/ca.crt"},
        {"S_SERVICE_KEY": "short"},
        {"S_KEEPALIVE_SECONDS": "1"},
        {"S_LOG_LEVEL": "CHATTY"},
    ],
)
def test_half_made_settings_are_refused(variables: dict[str, str]) -> None:
    with pytest.raises(SettingsError):
        ShopSettings.load("S", variables)


def test_several_names_are_separated_by_commas() -> None:
    settings = ShopSettings.load("S", {"S_TLS_SERVICE_NAMES": "features.inkling, ingest.inkling"})
    assert settings.tls_service_names == ("features.inkling", "ingest.inkling")
