"""Every method of the project keeps the contract that ``spikebench check`` checks."""

import pytest

from harness.checks import CHECKS, Subject
from harness.registry import Registries
from harness.spec import parse_variant


@pytest.fixture(scope="module", params=[*Registries().methods.names(), "ottt[update=online]", "psn[variant=sliding,order=4]"])
def subject(request):
    return Subject(request.param)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_method_keeps_the_contract(check, subject):
    check(subject)


@pytest.mark.parametrize("name", Registries().methods.names())
def test_claims_are_about_tasks_and_methods_by_their_names(name):
    registries = Registries()
    for claim in registries.methods.load(name).card.claims:
        assert claim.task in ("any", *registries.tasks.names())
        for label in filter(None, (claim.against, claim.instead, claim.variant)):
            plugin, options = parse_variant(label.partition("@T=")[0])
            registries.methods.load(plugin).parse_options(options)
