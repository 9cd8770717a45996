"""Whom https trusts: libcurl's wheel brings no certificates, and knows only its builder's path to them."""

import os
import ssl

from schemas.errors import RunError


def certificates() -> str:
    """The file of authorities that this machine trusts (SSL_CERT_FILE counts), else certifi's. Raises RunError."""
    system = ssl.get_default_verify_paths().cafile
    if system and os.path.isfile(system):
        return system
    try:
        import certifi
    except ImportError:
        raise RunError(
            "no certificates of trusted authorities were found on this machine, so no https URL could be fetched; "
            "install the system's ca-certificates, or set SSL_CERT_FILE to such a file"
        ) from None
    return certifi.where()
