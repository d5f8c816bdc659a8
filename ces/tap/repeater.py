"""``twistd ces-repeater``."""

from __future__ import annotations

import dataclasses
import os

from twisted.application.service import IService

from ces.config.settings import SettingError
from ces.repeater.settings import RepeaterSettings
from ces.tap.options import RoleOptions


class Options(RoleOptions[RepeaterSettings]):
    """The options of a repeater."""

    program = "ces-repeater"
    summary = "A repeater: carries events between a hub and systems outside."
    settings_class = RepeaterSettings

    def complete(self, settings: RepeaterSettings) -> RepeaterSettings:
        """Check the files that settings name, and make their paths absolute."""
        settings = super().complete(settings)
        if settings.routes:
            from ces.repeater.routes_file import RoutesError, load

            try:
                load(settings.routes)
            except RoutesError as error:
                raise SettingError(str(error)) from None
        return dataclasses.replace(
            settings,
            routes=os.path.abspath(settings.routes) if settings.routes else "",
            spool=os.path.abspath(settings.spool) if settings.spool else "",
        )


def makeService(options: Options) -> IService:
    """The repeater as a service on the global reactor of Twisted."""
    from twisted.internet import reactor

    from ces.ops.collector import calm
    from ces.ops.descriptors import raise_limit
    from ces.ops.logging import LogLevels
    from ces.repeater.service import make_repeater_service

    calm()
    levels = LogLevels(options.settings.log_level)
    fault = raise_limit(options.settings.descriptors)
    if fault is not None:
        levels.logger("ces.repeater").warn("{fault}", fault=fault)
    return make_repeater_service(options.settings, reactor, levels)
