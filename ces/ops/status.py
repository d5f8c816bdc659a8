"""Builds the envelope of ``GET /status`` in the form that the fleet's monitoring decodes."""

from __future__ import annotations

from collections.abc import Mapping


def envelope(
    bin: str, version: str, uptime_seconds: float, info: Mapping[str, object], sick: str | None
) -> dict[str, object]:
    """The answer to ``GET /status``.

    :param bin: the program, for example ``ces-hub``.
    :param uptime_seconds: time since the start, in seconds.
    :param info: the role's own fields.
    :param sick: why the role cannot do its work, as a sentence; shown as ``info.reason``. None when it can.
    """
    return {
        "bin": bin,
        "statuscode": "healthy" if sick is None else "sick",
        "version": version,
        "uptime": go_duration(uptime_seconds),
        "info": dict(info) if sick is None else {"reason": sick, **info},
    }


def go_duration(seconds: float) -> str:
    """Format whole seconds as Go's ``time.Duration`` does (``1h2m3s``), for the fleet's monitoring.

    A unit is shown when it or a larger one is not zero. Hours may exceed 24.
    """
    minutes, rest = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
