"""Replaces every message that the agent makes of a failure by nonsense: what is still diagnosed was decided by fields."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from relay_agent.core.errors import JournalError, PlatformError
from relay_agent.core.failures import Obstacle
from relay_agent.core.models import Failure
from relay_agent.transport.errors import TransportFault
from relay_agent.transport.policy import Verdict

NONSENSE = "zzz"


def reword(patch: pytest.MonkeyPatch) -> None:
    """Replace the text of each failure at its making."""
    for kind, place in ((TransportFault, 2), (PlatformError, 2), (JournalError, 1), (Failure, 2), (Obstacle, 1)):
        patch.setattr(kind, "__init__", _with_nonsense(kind.__init__, place))
    patch.setattr(TransportFault, "message", property(lambda _: NONSENSE))
    patch.setattr(Verdict, "message", property(lambda _: NONSENSE))


def _with_nonsense(original: Callable[..., None], place: int) -> Callable[..., None]:
    """The initialiser, with nonsense for the argument at that place (counted with `self`)."""

    def init(*given: Any, **named: Any) -> None:
        for name in ("message", "reason"):
            if name in named:
                named[name] = NONSENSE
        original(*given[:place], *([NONSENSE] if len(given) > place else []), *given[place + 1 :], **named)

    return init
