"""Talking to a server that fails, loses connections and ends tokens: what is tried again, and what never is."""

from __future__ import annotations

import threading

import httpx
import pytest
from berth.client import Client
from berth.config import ConfigFile, Login
from berth.errors import ApiError, NotFound, ServerFailed, Unauthenticated, Unreachable
from berth.follow import parse_events
from berth.jobs import Jobs, checked_path
from berth.session import Patience, Session, segment
from berth.tokens import HeldTokens, TokenPair

from tests.client.fake_berth import FakeBerth

REQUEST = {"name": "x", "appId": "berth.image", "notes": {"berth": {"image": "docker://a"}}}


def answering(*answers: object) -> tuple[Session, list[httpx.Request], list[float]]:
    """A session whose server gives these answers in turn (an exception is raised); the requests and pauses it made."""
    left, requests, pauses = list(answers), list[httpx.Request](), list[float]()

    def handle(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[return-value]

    session = Session(
        "http://berth.test",
        HeldTokens(TokenPair("a.e30.c")),
        transport=httpx.MockTransport(handle),
        sleep=pauses.append,
    )
    return session, requests, pauses


def fine(result: object = None) -> httpx.Response:
    return httpx.Response(200, json={"status": "success", "message": "ok", "result": result, "metadata": {}})


def wrong(status: int, **headers: str) -> httpx.Response:
    return httpx.Response(status, json={"status": "error", "message": "no", "result": None}, headers=headers)


LOST = httpx.ReadError("connection reset")
REFUSED = httpx.ConnectError("connection refused")


@pytest.mark.parametrize("answer", [LOST, REFUSED, wrong(503), wrong(502), wrong(429)])
def test_a_read_is_tried_again(answer: object) -> None:
    session, requests, pauses = answering(answer, fine([1]))
    assert session.get("/v3/jobs/list") == [1]
    assert (len(requests), len(pauses)) == (2, 1)


@pytest.mark.parametrize("answer", [LOST, REFUSED, wrong(503)])
def test_a_creation_is_tried_again_under_the_same_key(answer: object) -> None:
    session, requests, _ = answering(answer, fine({}))
    session.create("/v3/jobs/submit", REQUEST)
    keys = {request.headers["Idempotency-Key"] for request in requests}
    assert (len(requests), len(keys)) == (2, 1)


@pytest.mark.parametrize("answer", [LOST, wrong(503)])
def test_a_change_without_a_key_that_may_have_arrived_is_sent_once(answer: object) -> None:
    session, requests, _ = answering(answer)
    with pytest.raises((Unreachable, ServerFailed)):
        session.post("/v3/jobs/x/cancel")
    assert len(requests) == 1


def test_a_change_that_never_left_is_tried_again() -> None:
    session, requests, _ = answering(REFUSED, fine({}))
    session.post("/v3/jobs/x/cancel")
    assert len(requests) == 2


def test_what_the_server_refuses_is_not_tried_again() -> None:
    session, requests, _ = answering(wrong(400))
    with pytest.raises(ApiError, match="no") as caught:
        session.create("/v3/jobs/submit", REQUEST)
    assert (caught.value.status, len(requests)) == (400, 1)


def test_pauses_grow_heed_retry_after_and_end() -> None:
    session, requests, pauses = answering(*[wrong(503, **{"Retry-After": "3"})] * 2, *[wrong(503)] * 2)
    with pytest.raises(ServerFailed):
        session.get("/v3/jobs/list")
    assert len(requests) == Patience().tries
    assert pauses[0] >= 3
    assert pauses[1] >= 3
    assert pauses[2] < 3


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, text="<html>a proxy</html>"),
        httpx.Response(200, json=[1, 2]),
        httpx.Response(307, headers={"Location": "/elsewhere"}),
    ],
)
def test_an_answer_that_is_no_envelope_is_said_to_be_none(answer: httpx.Response) -> None:
    session, _, _ = answering(answer)
    with pytest.raises(Unreachable, match="no Tapis envelope"):
        session.get("/v3/jobs/list")


def test_an_error_without_an_envelope_keeps_its_status() -> None:
    session, _, _ = answering(httpx.Response(404, text="nothing here"))
    with pytest.raises(NotFound, match="nothing here"):
        session.get("/v3/elsewhere")


@pytest.mark.parametrize("name", ["..", ".", ""])
def test_a_name_that_would_change_the_path_is_refused(name: str) -> None:
    with pytest.raises(Exception, match="is not a name"):
        segment(name)


def test_hostile_names_stay_one_segment() -> None:
    assert segment("a/../b?c#d%2e") == "a%2F..%2Fb%3Fc%23d%252e"


@pytest.mark.parametrize("path", ["../x", "a/../../x", "a\0b"])
def test_a_path_that_leaves_the_output_is_refused(path: str) -> None:
    with pytest.raises(Exception, match="leads out"):
        checked_path(path)


# -- tokens ------------------------------------------------------------------------------------------------------


def test_a_token_that_no_longer_holds_is_renewed_in_the_middle_of_work(client: Client, fake: FakeBerth) -> None:
    fake.revoke()
    assert client.jobs.submit(REQUEST).status == "PENDING"
    assert len(fake.jobs) == 1


def test_a_token_that_is_about_to_end_is_renewed_before_it_is_sent(url: str, fake: FakeBerth) -> None:
    fake.token_life_s = 30.0
    with Client(url) as client:
        client.login("alice", "secret")
        fake.token_life_s = 3600.0
        list(client.jobs.list())
    assert [path for _, path, _, _ in fake.requests] == ["/v3/oauth2/tokens", "/v3/oauth2/tokens", "/v3/jobs/list"]


def test_without_a_refresh_token_the_servers_401_reaches_the_user(url: str) -> None:
    with Client(url, token="a.e30.c") as client, pytest.raises(Unauthenticated, match="no longer holds"):
        client.jobs.get("x")


def test_commands_that_run_at_once_spend_a_refresh_token_once(url: str, fake: FakeBerth) -> None:
    with Client(url) as first:
        ConfigFile().remember(Login(url, "alice", first.login("alice", "secret")))
    fake.revoke()
    failed: list[BaseException] = []

    def work() -> None:
        try:
            with Client(url) as client:
                list(client.jobs.list())
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    grants = [body["grant_type"] for _, path, _, body in fake.requests if path == "/v3/oauth2/tokens"]
    assert grants == ["password", "refresh_token"]


# -- jobs --------------------------------------------------------------------------------------------------------


def test_a_submission_whose_answer_was_lost_leaves_one_job(url: str, fake: FakeBerth) -> None:
    real = httpx.HTTPTransport()
    lose = [True]

    class Losing(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            response = real.handle_request(request)
            if request.url.path == "/v3/jobs/submit" and lose:
                lose.clear()
                response.read()
                raise httpx.ReadError("the connection was cut")
            return response

    with Client(url, transport=Losing()) as client:
        client.login("alice", "secret")
        job = client.jobs.submit(REQUEST)
    assert list(fake.jobs) == [job.uuid]


def test_lists_go_on_from_page_to_page(client: Client, fake: FakeBerth) -> None:
    for number in range(250):
        fake.add_job({"name": str(number)})
    assert [job.name for job in client.jobs.list()] == [str(number) for number in reversed(range(250))]
    assert len(list(client.jobs.list(7))) == 7


def test_a_log_is_followed_without_a_gap_or_a_repetition_when_connections_break(
    client: Client, fake: FakeBerth
) -> None:
    job = fake.add_job({"name": "x"})
    fake.cut_streams = 2
    events = list(client.jobs.follow(job["uuid"]))
    assert "".join(event.data for event in events) == fake.log["stdout"]
    assert (events[-1].status, events[-1].condition) == ("FINISHED", "NORMAL_COMPLETION")
    asked = [headers["last-event-id"] for _, path, headers, _ in fake.requests if path.endswith("/logs")]
    assert asked == ["0", "4", str(len("one\ntwo\u2028still two\n".encode()))]


def test_a_log_that_stays_unreachable_is_given_up() -> None:
    session, requests, _ = answering(*[REFUSED] * 200)
    from berth.follow import LOST_AFTER_TRIES, follow

    with pytest.raises(Unreachable):
        list(follow(session, "/v3/jobs/x/logs", "stdout", 0))
    assert len(requests) == LOST_AFTER_TRIES + 1


def test_waiting_outlasts_a_server_that_restarts_but_not_one_that_is_gone() -> None:
    running, ended = ({"uuid": "u", "status": status} for status in ("RUNNING", "FINISHED"))
    session, _, _ = answering(fine(running), *[REFUSED] * 40, wrong(503), fine(ended))
    assert Jobs(session).wait("u").status == "FINISHED"
    session, _, _ = answering(*[REFUSED] * 40)
    with pytest.raises(Unreachable):
        Jobs(session).wait("u")


def test_a_request_that_times_out_is_given_up_after_a_while() -> None:
    session, requests, _ = answering(*[httpx.ReadTimeout("late")] * 10)
    clock = iter(range(0, 1000, 31))
    session.now = lambda: float(next(clock))
    with pytest.raises(Unreachable, match="did not answer in time"):
        session.get("/v3/jobs/list")
    assert len(requests) == 2


def test_events_are_read_as_the_standard_says() -> None:
    lines = ["", ": comment", "data: one", "data:two", "id: 7", "", "event: end", "data: {}", "", "data: cut off"]
    events = [(event.event, event.data, event.id) for event in parse_events(lines)]
    assert events == [("message", "one\ntwo", "7"), ("end", "{}", None)]
