"""What a view declares about the quotas of its requests."""

import pytest
from flask import Flask

from web.http import access_rules


def view() -> str:
    return "done"


@pytest.mark.parametrize("rate", ["uploads", "failures", None])
def test_a_route_can_count_otherwise_and_keeps_what_it_requires(rate: access_rules.Rate | None) -> None:
    app = Flask(__name__, static_folder=None)
    app.add_url_rule("/", "view", access_rules.counts_as(rate)(access_rules.requires("images:upload")(lambda: "done")))
    app.add_url_rule("/other", "other", access_rules.requires("images:upload")(lambda: "done"))
    access_rules.install(app, public_endpoints=["static"])
    rule, other, static = (access_rules.rule_of(app, endpoint) for endpoint in ("view", "other", "static"))
    assert (rule.scopes, rule.counts_as) == (("images:upload",), rate)
    assert other.counts_as == "requests"
    assert static.counts_as is None


def test_the_quota_is_declared_above_what_the_route_requires() -> None:
    with pytest.raises(TypeError, match="view declares no access rule"):
        access_rules.counts_as(None)(view)
