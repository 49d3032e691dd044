"""No partner at all: a recorded transcript answers, so every number can be recomputed from what was released."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ahh_federated.coordinator.transcript import Exchange, Header
from ahh_federated.errors import Breach
from ahh_federated.wire import Reply, Request

TOLERANCE = 1e-7  # another machine's arithmetic may move a parameter in its last digits


class ReplayLink:
    """Answers each request with what was recorded for it."""

    def __init__(self, header: Header, exchanges: Sequence[Exchange]) -> None:
        self._partners = header.partners
        self._recorded: dict[tuple[str, int], Exchange] = {}
        for each in exchanges:
            step = (each.request.ask, each.request.step)
            if step in self._recorded or not set(each.replies) <= set(header.partners):
                raise Breach(f"the transcript has step {step[1]} of {step[0]!r} twice, or from a partner it does not name")
            if any(reply.request != each.request.id for reply in each.replies.values()):
                raise Breach(f"a reply to step {step[1]} of {step[0]!r} answers another request")
            self._recorded[step] = each

    @property
    def partners(self) -> tuple[str, ...]:
        return self._partners

    def exchange(self, request: Request, partners: Iterable[str]) -> Mapping[str, Reply]:
        recorded = self._recorded.get((request.ask, request.step))
        if recorded is None or not _same(recorded.request, request):
            raise Breach(f"step {request.step} of {request.ask!r} is not what the transcript recorded")
        asked = set(partners)
        if asked != set(recorded.replies):
            raise Breach(f"step {request.step} of {request.ask!r} was recorded from other partners than those now asked")
        return {name: recorded.replies[name] for name in sorted(asked)}


def _same(recorded: Request, request: Request) -> bool:
    if (recorded.study, recorded.run, recorded.kind) != (request.study, request.run, request.kind):
        return False
    if set(recorded.parameters) != set(request.parameters):
        return False
    return all(
        len(values) == len(request.parameters[name])
        and np.allclose(values, request.parameters[name], rtol=TOLERANCE, atol=TOLERANCE)
        for name, values in recorded.parameters.items()
    )
