"""``twistd ces-repeater``."""

from __future__ import annotations

import dataclasses
import os
import socket

from twisted.application.service import IService

from ces.config.settings import SettingError
from ces.repeater.settings import RepeaterSettings
from ces.tap.options import RoleOptions


class Options(RoleOptions[RepeaterSettings]):
    """The options of a repeater."""

    program = "ces-repeater"
    summary = "Carry events between a hub and what lies outside it."
    settings_class = RepeaterSettings

    def complete(self, settings: RepeaterSettings) -> RepeaterSettings:
        """Name the repeater after the host, and check the routes file.

        Paths are made absolute: twistd may go to another directory before they are used.
        """
        if settings.routes:
            from ces.repeater.routes_file import RoutesError, load

            try:
                load(settings.routes)
            except RoutesError as error:
                raise SettingError(str(error)) from None
        return dataclasses.replace(
            settings,
            id=settings.id or socket.gethostname(),
            routes=os.path.abspath(settings.routes) if settings.routes else "",
            spool=os.path.abspath(settings.spool) if settings.spool else "",
        )


def makeService(options: Options) -> IService:
    """The repeater as a service on Twisted's global reactor."""
    from twisted.internet import reactor

    from ces.ops.collector import calm
    from ces.ops.logging import LogLevels
    from ces.repeater.service import make_repeater_service

    calm()
    return make_repeater_service(options.settings, reactor, LogLevels(options.settings.log_level))
