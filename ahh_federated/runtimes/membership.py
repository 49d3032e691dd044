"""Whether a node is still a member: the doctor's knock at a coordinator's door."""

from __future__ import annotations

from collections.abc import Callable

from ahh_federated.node.home import Consortium, NodeHome


def knocking(home: NodeHome) -> Callable[[Consortium], str]:
    """A call to a consortium's coordinator with this node's key.  It raises Misuse or Unreachable when that gets no answer."""

    def knock(consortium: Consortium) -> str:
        from ahh_federated.runtimes.flower import supernode  # brings Flower

        file = home.node_id_path(consortium.name)
        supernode.knock(supernode.Membership(consortium.name, consortium.address, consortium.ca.encode(), home.key.private, file))
        return f"{consortium.name} admits this node's key"

    return knock
