"""A signature is of one version of one model: no other is served by it, whatever it was signed for."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from saker.engine.errors import ModelRefused
from saker.engine.model.signature import FILE, check, sign

DIGEST, OTHER_DIGEST = "a" * 64, "b" * 64


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    key, private, public = Ed25519PrivateKey.generate(), tmp_path / "key.pem", tmp_path / "key.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.mark.parametrize("identity", ["fraud/1", FILE])
def test_what_was_signed_is_served(identity: str, keys: tuple[Path, Path]) -> None:
    check("fraud/1", identity, DIGEST, sign(identity, DIGEST, keys[0]), keys[1])


@pytest.mark.parametrize(
    ("signed", "served"),
    [
        pytest.param(("fraud/1", DIGEST), ("fraud/2", DIGEST), id="an older file as a newer version"),
        pytest.param(("loans/1", DIGEST), ("fraud/1", DIGEST), id="another model"),
        pytest.param(("fraud/1", DIGEST), ("fraud/1", OTHER_DIGEST), id="another file"),
        pytest.param((FILE, DIGEST), ("fraud/1", DIGEST), id="a file as a version"),
        pytest.param(("fraud/1", DIGEST), (FILE, DIGEST), id="a version as a file"),
    ],
)
def test_nothing_else_is(signed: tuple[str, str], served: tuple[str, str], keys: tuple[Path, Path]) -> None:
    with pytest.raises(ModelRefused, match=f"its signature is not one of this file as {served[0]} by"):
        check("fraud/1", *served, sign(*signed, keys[0]), keys[1])
