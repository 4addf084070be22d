"""The report as one page: its summary is right, every table is there, texts stay text, nothing is loaded."""

import re
from collections.abc import Iterator, Sequence
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from markupsafe import escape
from preforch_training.report.page.render import render_page
from preforch_training.report.page.summary import duration, policy_lines, summarise_report
from preforch_training.report.policies.plan import ALL_TESTS, Contender
from preforch_training.report.policies.records import PolicyReport
from preforch_training.report.records import Report, StageCost
from preforch_training.report.tables import sections_of
from preforch_training.statistics.bootstrap import Interval
from preforch_training.statistics.document import Block, Bullets, Section, Table
from preforch_training.statistics.predictors import CONSTANT, SHUFFLED, TRUE, UNIFORM
from report_samples import CURVES, POLICIES, make_report, make_study, true_weights

MARKUP = "</script><img src='https://example.com/x' onerror=alert(1)>"


@pytest.fixture(scope="module")
def report() -> Report:
    """Two more policies, of which one reads no weights, a study, a warning; markup where users write text."""
    others = (Contender("sft", Path("sft"), reads_weights=False), Contender("other", Path("other")))
    made = make_report(true_weights, policies=(*others, *POLICIES))
    return made.model_copy(
        update={
            "study": make_study(),
            "overrides": (f"run.name = {MARKUP}",),
            "warnings": (f"{MARKUP} is no better than a constant",),
            "stages": (
                StageCost(stage=f"policy/{MARKUP}", seconds=4000.4, peak_memory_mib=900.0),
                StageCost(stage="data", seconds=99.0, peak_memory_mib=1234.5),
            ),
        }
    )


@pytest.fixture(scope="module")
def page(report: Report) -> str:
    return render_page(report, CURVES)


def tables_in(blocks: Sequence[Block]) -> Iterator[Table]:
    for block in blocks:
        if isinstance(block, Table):
            yield block
        elif isinstance(block, Section):
            yield from tables_in(block.blocks)


def summary_of(page: str) -> str:
    """Its text, without tags."""
    part = page.partition('<section id="summary">')[2].partition("</section>")[0]
    return unescape(re.sub(r"<[^>]+>", "", part))


def test_the_summary_holds_every_number_it_is_made_of(report: Report, page: str) -> None:
    text, policy = summary_of(page), report.policy
    assert policy is not None
    reached = [verdict for verdict in report.verdicts if verdict.reached]
    assert f"{len(reached)} of {len(report.verdicts)} targets are reached." in text
    for verdict in report.verdicts:
        missed = f"Missed: {verdict.name} is {verdict.interval}, wanted {verdict.target}."
        assert (missed in text) == (not verdict.reached)
    (worth,) = [u for u in policy.utilities if str(u.arm) == "online recommended" and u.split == ALL_TESTS]
    assert f"its utility on {worth.utility.groups} test prompts is {worth.utility}." in text
    for found in policy.differences:
        if found.split == ALL_TESTS and str(found.first) == "online recommended":
            name = found.second.arm if found.second.policy == "online" else found.second.policy
            assert f"{name} (difference {found.difference})" in text
    for control in policy.control:
        if (control.policy, control.split, control.measure) == ("online", "test_topic", "true"):
            assert f"{control.objective} {control.spearman}" in text
    assert (
        f"took 1 h 8 min, the longest policy/{MARKUP} (1 h 6 min). Memory peaked at 1234 MiB in data." in text
    )
    assert "Warnings: 1, listed below." in text


def with_differences(policy: PolicyReport, bounds: dict[str, tuple[float, float]]) -> PolicyReport:
    """The served policy's differences to its own other weights replaced."""
    changed = tuple(
        entry.model_copy(
            update={
                "difference": Interval(
                    value=sum(bounds[entry.second.arm]) / 2,
                    low=bounds[entry.second.arm][0],
                    high=bounds[entry.second.arm][1],
                    groups=9,
                )
            }
        )
        for entry in policy.differences
        if entry.second.policy == policy.served and entry.first.arm == "recommended"
    )
    return policy.model_copy(update={"differences": changed})


def test_a_difference_counts_only_where_its_interval_leaves_zero_out(report: Report) -> None:
    assert report.policy is not None
    bounds = {CONSTANT: (0.1, 0.3), UNIFORM: (-0.3, -0.1), SHUFFLED: (-0.1, 0.1), TRUE: (0.0, 0.2)}
    text = " ".join(policy_lines(with_differences(report.policy, bounds)))
    assert (
        "that is above `best constant` (difference 0.200 [0.100, 0.300]); "
        "below `uniform` (difference -0.200 [-0.300, -0.100]); "
        "not told apart from `shuffled f` (difference 0.000 [-0.100, 0.100]), "
        "`true weights` (difference 0.100 [0.000, 0.200])."
    ) in text
    assert "Against other policies" not in text


def test_whether_the_served_policy_listens_is_said_by_its_least_obedient_objective(report: Report) -> None:
    assert report.policy is not None
    deaf = Interval(value=0.1, low=-0.2, high=0.4, groups=9)
    control = tuple(
        entry.model_copy(update={"spearman": deaf}) if entry.objective == "humor" else entry
        for entry in report.policy.control
    )
    assert "It listens:" in policy_lines(report.policy)[-1]
    (*_, last) = policy_lines(report.policy.model_copy(update={"control": control}))
    assert last.startswith("It does not listen in every objective:")
    assert f"humor {deaf}" in last


def test_a_run_without_policies_and_one_whose_policy_reads_nothing_are_summarised() -> None:
    assert "No policy is served." in summarise_report(make_report(true_weights, policies=())).items
    deaf = make_report(true_weights, policies=[Contender("offline", Path("sft"), reads_weights=False)])
    text = " ".join(summarise_report(deaf).items)
    assert "`offline` is served: it reads no weights, its utility on 54 test prompts is 0.500" in text
    assert "reads no weights, so that nothing can be asked of it" in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (3599, "59 min 59 s"), (7260, "2 h 1 min")]
)
def test_a_duration_is_told_in_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_page_holds_every_table_of_the_report_whole(report: Report, page: str) -> None:
    tables = list(tables_in(sections_of(report)))
    assert page.count("<table>") == len(tables) > 15
    assert page.count("<tr>") == sum(1 + len(table.rows) for table in tables)
    for table in tables:
        assert f">{escape(table.caption)}</caption>" in page or "`" in table.caption
        for cell in (cell for row in table.rows for cell in row if isinstance(cell, Interval)):
            assert f'data-value="{cell.value!r}" title="{cell.groups} prompts">{cell}</td>' in page
    assert page.count("<td><strong>no</strong></td>") == sum(
        cell is False for table in tables for row in table.rows for cell in row
    )
    assert any(isinstance(block, Bullets) for section in sections_of(report) for block in section.blocks)


class Outline(HTMLParser):
    """Tags with their attributes, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def outline(page: str) -> Outline:
    outline = Outline()
    outline.feed(page)
    return outline


def test_texts_of_users_stay_text(page: str, outline: Outline) -> None:
    assert MARKUP not in page
    assert page.count(str(escape(MARKUP))) >= 4
    assert not [tag for tag, _ in outline.tags if tag == "img"]
    assert len([tag for tag, _ in outline.tags if tag == "script"]) == 3


def test_the_page_names_nothing_outside_of_itself(page: str, outline: Outline) -> None:
    for _, attributes in outline.tags:
        assert not {"src", "srcset", "data"} & set(attributes)
        assert (attributes.get("href") or "#").startswith("#")
    assert "default-src 'none'" in page
    style = page.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    assert len(page.encode()) < 3_000_000


def test_the_page_has_a_language_a_title_ordered_headings_and_links_that_lead_somewhere(
    report: Report, page: str, outline: Outline
) -> None:
    assert ("html", {"lang": "en"}) in outline.tags
    assert "<title>Report of recommended, seed 0</title>" in page
    levels = [int(tag[1]) for tag, _ in outline.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [str(attributes["href"])[1:] for tag, attributes in outline.tags if tag == "a"]
    assert len(links) == 2 + len(sections_of(report))
    assert set(links) <= set(ids)
