"""Requests keep the bundle that they started with; it is closed when the last of them is done."""

import asyncio

from fakes import FakeRecommender, FakeUpstream, make_gateway
from preforch_models.bundle import Bundle
from preforch_service.gateway import Gateway
from preforch_service.recommendation.active_bundle import InForce, LoadedBundle, assemble
from preforch_service.settings import ServeSettings
from preforch_service.telemetry.metrics import Metrics

SETTINGS = ServeSettings.model_validate({"path": "run"})


def loaded(bundle: Bundle, revision: str) -> tuple[LoadedBundle, FakeRecommender]:
    recommender = FakeRecommender()
    return assemble(
        SETTINGS, bundle.model_copy(update={"revision": revision}), recommender, Metrics()
    ), recommender


def test_a_bundle_is_closed_when_it_is_replaced_and_its_last_user_is_done(bundle: Bundle) -> None:
    (old, old_recommender), (new, new_recommender) = loaded(bundle, "old"), loaded(bundle, "new")
    bundles = InForce(old)
    with bundles.lease() as first:
        with bundles.lease() as second:
            bundles.replace(new)
            with bundles.lease() as third:
                assert (first, second, third) == (old, old, new)
        assert not old_recommender.closed
    assert old_recommender.closed
    assert not new_recommender.closed
    assert bundles.current is new
    bundles.close()
    assert new_recommender.closed


def test_a_bundle_without_users_is_closed_at_once_also_after_a_failure(bundle: Bundle) -> None:
    (old, old_recommender), (new, _) = loaded(bundle, "old"), loaded(bundle, "new")
    bundles = InForce(old)
    try:
        with bundles.lease():
            raise ValueError
    except ValueError:
        pass
    bundles.replace(new)
    assert old_recommender.closed


def test_closing_closes_what_is_still_used_too(bundle: Bundle) -> None:
    (old, old_recommender), (new, new_recommender) = loaded(bundle, "old"), loaded(bundle, "new")
    bundles = InForce(old)
    with bundles.lease():
        bundles.replace(new)
        bundles.close()
        assert (old_recommender.closed, new_recommender.closed) == (True, True)


async def weigh_while_replacing(gateway: Gateway, new: LoadedBundle) -> tuple[str, str]:
    """The revisions that a decision made during a replacement and one after it announce."""

    async def weigh() -> str:
        with gateway.bundles.lease() as leased:
            (decision,) = await leased.weigher.decide(["hello"], None)
        return decision.bundle

    running_one = asyncio.create_task(weigh())
    await asyncio.sleep(0)
    gateway.bundles.replace(new)
    return await running_one, await weigh()


def test_a_decision_announces_the_bundle_that_it_was_made_with(bundle: Bundle) -> None:
    slow = FakeRecommender(delay=0.05)
    gateway = make_gateway(bundle, recommender=slow)
    new, _ = loaded(bundle, "new")
    assert asyncio.run(weigh_while_replacing(gateway, new)) == (bundle.revision, "new")
    assert slow.closed


def test_the_template_check_of_an_engine_that_comes_back_passes_with_another_bundle(bundle: Bundle) -> None:
    upstream = FakeUpstream()
    gateway = make_gateway(bundle, upstream=upstream)
    gateway.bundles.replace(loaded(bundle, "new")[0])
    upstream.down = True
    assert not asyncio.run(gateway.readiness.check())
    upstream.down = False
    assert asyncio.run(gateway.readiness.check())
