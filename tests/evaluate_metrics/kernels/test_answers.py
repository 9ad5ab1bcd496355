"""The strict parser against a table of judged answers."""

import pytest

from defect_hub.evaluate_metrics.kernels import parse_yes_no
from tests.evaluate_metrics.kernels.answers import EITHER, VERDICTS


@pytest.mark.parametrize(("answer", "verdict"), VERDICTS)
def test_the_verdict_is_the_reader_s(answer, verdict):
    assert parse_yes_no(answer) is verdict


@pytest.mark.parametrize(("answer", "verdict"), EITHER)
def test_where_readers_differ_the_opposite_is_still_wrong(answer, verdict):
    assert parse_yes_no(answer) in {verdict, None}


@pytest.mark.parametrize(("answer", "verdict"), VERDICTS)
def test_case_and_white_space_around_do_not_matter(answer, verdict):
    assert parse_yes_no(f"\n {answer.upper()}\t") is parse_yes_no(f" {answer.lower()} \n") is verdict
