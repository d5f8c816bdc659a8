"""Explains why a connection was lost, in particular because of a certificate.

Twisted has already decided whether a certificate is trusted. This module only words the reason.
"""

from __future__ import annotations

from typing import Any

from OpenSSL.crypto import X509StoreContext, X509StoreContextError
from OpenSSL.SSL import Connection, Error
from service_identity import VerificationError
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure


def why_lost(transport: Any, reason: Failure) -> str:
    """Why a connection was lost, as a text for logs and errors.

    :param transport: the transport of the connection.
    :param reason: the failure that Twisted reported.
    """
    if reason.check(VerificationError):
        return "the other side's certificate is for another name"
    if reason.check(Error) and isinstance(transport, TLSMemoryBIOProtocol):
        fault = _certificate_fault(transport.getHandle())
        if fault is not None:
            return f"the other side's certificate is not trusted: {fault}"
    return reason.getErrorMessage().rstrip(".")


def _certificate_fault(connection: Connection) -> str | None:
    """The fault that OpenSSL finds in the peer's certificates; None without a fault or without certificates.

    Verifies the certificates again, because the connection's own error only says "certificate verify failed".
    """
    shown = connection.get_peer_cert_chain()
    if not shown:
        return None
    store = connection.get_context().get_cert_store()
    if store is None:
        return None
    try:
        X509StoreContext(store, shown[0], shown[1:]).verify_certificate()
    except X509StoreContextError as error:
        return str(error)
    return None
