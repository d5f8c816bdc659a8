"""The messenger as a service, for ``.tac`` files and a MultiService."""

from __future__ import annotations

from twisted.application.service import Service
from twisted.internet.defer import Deferred

from ces.messenger.messenger import Messenger


class MessengerService(Service):
    """Connects the messenger when it starts and closes it when it stops."""

    def __init__(self, messenger: Messenger) -> None:
        self.messenger = messenger

    def startService(self) -> None:
        """Connect; the service counts as started whether the hub is there or not."""
        super().startService()
        self.messenger.connect()

    def stopService(self) -> Deferred[None]:
        """Close; fires when the connection is gone."""
        super().stopService()
        return self.messenger.close()
