"""At most so many a minute, and none forgotten."""

from ahh_federated.node.quota import Quota


def test_a_minute_has_so_many_and_the_rest_are_counted() -> None:
    now = [100.0]
    quota = Quota(3, lambda: now[0])
    assert [quota.allows() for _ in range(5)] == [True] * 3 + [False] * 2
    assert quota.withheld == 2
    now[0] += 59.0
    assert not quota.allows()
    now[0] += 2.0
    assert [quota.allows() for _ in range(4)] == [True] * 3 + [False]
    assert quota.withheld == 4
