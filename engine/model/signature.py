"""Ed25519 signatures of models, so that write access to the registry is not enough to change the model that scores.

A signature is 64 bytes in a file beside the model's (fraud.onnx.sig), or the tag `signature` of a registered version in hex. It
signs a line with the registered name and version of the model, and the SHA-256 of its file, so a signed model cannot be passed
off as another version or another model.
Source: RFC 8032, by the package `cryptography`, which is imported only where there is a key.
"""

from __future__ import annotations

from pathlib import Path

from saker.engine.errors import ModelRefused

TAG = "signature"


class KeyUnusable(ModelRefused):
    """The file is no Ed25519 key in PEM."""


#: Of a file that is in no registry.
FILE = "file"


def _statement(identity: str, sha256: str) -> bytes:
    return f"saker model {identity} {sha256}\n".encode()


def sign(identity: str, sha256: str, private_key: Path) -> bytes:
    """64 bytes; raises `KeyUnusable`. identity: fraud/7, or `FILE`. sha256: in hex."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(private_key.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise KeyUnusable(f"{private_key}: expected an Ed25519 private key in PEM without a password: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyUnusable(f"{private_key}: expected an Ed25519 private key: `openssl genpkey -algorithm ed25519`")
    return key.sign(_statement(identity, sha256))


def check(name: str, identity: str, sha256: str, signature: bytes | None, public_key: Path) -> None:
    """Raises `ModelRefused` if the model is not signed by the key under this identity, `KeyUnusable` for a bad key."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(public_key.read_bytes())
    except (OSError, ValueError) as error:
        raise KeyUnusable(f"{public_key}: expected an Ed25519 public key in PEM: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise KeyUnusable(f"{public_key}: expected an Ed25519 public key: `openssl pkey -in KEY -pubout`")
    if signature is None:
        raise ModelRefused(f"model {name}: expected a signature by {public_key}, it has none: `saker models sign`")
    try:
        key.verify(signature, _statement(identity, sha256))
    except InvalidSignature:
        raise ModelRefused(
            f"model {name}: its signature is not one of this file as {identity} by {public_key}: `saker models sign`"
        ) from None
