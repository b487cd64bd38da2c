"""What must not be possible: to read or write outside the folders, to ask without the token, to bring it down."""

import contextlib
import json
import random
import shutil
import socket
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from servers import call, call_json, running_server

from lvqa.server.errors import ApiError
from lvqa.server.guard import MAX_BODY_BYTES
from lvqa.server.remote import public_address

TOKEN = "a-token-of-some-length"
SEED = 720
NUM_WARM_UP, NUM_REQUESTS = 100, 1000
MAX_GROWTH_BYTES = 50 << 20


@pytest.fixture(scope="module")
def folders(tmp_path_factory, synthetic_video):
    """A folder that is served, and beside it a secret and a link to it."""
    root = tmp_path_factory.mktemp("safety")
    (root / "served").mkdir()
    shutil.copy(synthetic_video(seed=710), root / "served" / "a.mp4")
    shutil.copy(synthetic_video(seed=711), root / "secret.mp4")
    (root / "served" / "link.mp4").symlink_to(root / "secret.mp4")
    (root / "served-too").mkdir()
    shutil.copy(synthetic_video(seed=711), root / "served-too" / "b.mp4")
    return root


@pytest.fixture(scope="module")
def url(tiny, folders):
    with running_server(tiny, folders / "store", folders / "served") as address:
        yield address


@pytest.fixture(scope="module")
def guarded(tiny, folders):
    with running_server(tiny, folders / "store", folders / "served", token=TOKEN) as address:
        yield address


def test_a_link_out_of_the_folders_is_not_followed(url, folders):
    listed = call_json(url, "GET", "/api/videos")[1]
    assert [Path(video["path"]).name for video in listed["videos"]] == ["a.mp4"]
    assert [Path(failure["path"]).name for failure in listed["failures"]] == ["link.mp4"]


@pytest.mark.parametrize(
    "path",
    [
        *("{0}/secret.mp4", "{0}/served/../secret.mp4", "{0}/served/link.mp4", "{0}/served-too/b.mp4", "/etc/passwd"),
        *("{0}/served/%2e%2e/secret.mp4", "{0}/served/a.mp4\0", "/proc/self/root{0}/secret.mp4", "~/x.mp4", "a.mp4"),
    ],
)
def test_paths_outside_are_refused_whether_there_or_not(url, folders, path):
    body = {"path": path.format(folders)}
    status, content = call_json(url, "POST", "/api/videos", body)
    assert status in (403, 404), content
    status, _ = call_json(url, "POST", "/api/videos", {"path": f"file://{path.format(folders)}"})
    assert status in (403, 404)


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "[::1", "0x7f.1"]
)
def test_a_foreign_host_is_refused(url, host):
    assert call_json(url, "GET", "/api/status", host=host)[0] in (400, 403)


@pytest.mark.parametrize("host", ["localhost", "localhost:9", "127.0.0.1:80", "[::1]:8765", "LOCALHOST"])
def test_its_own_names_are_known_at_any_port(url, host):
    assert call_json(url, "GET", "/api/status", host=host)[0] == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://localhost"])
def test_a_page_of_another_site_is_refused(url, origin):
    assert call_json(url, "POST", "/api/ask", {"question": "x"}, origin=origin)[0] == 403
    assert call_json(url, "GET", "/api/videos", origin=origin)[0] == 403


def test_a_form_of_another_site_is_refused_without_an_origin_too(url):
    assert call_json(url, "POST", "/api/ask", {"question": "x"}, sec_fetch_site="cross-site")[0] == 403
    own = f"http://{urlsplit(url).netloc}"
    assert call_json(url, "POST", "/api/ask", {"question": ""}, origin=own, sec_fetch_site="same-origin")[0] == 400


def test_only_who_knows_the_token_may_ask(guarded):
    assert call_json(guarded, "GET", "/api/status")[0] == 401
    for value in (f"Bearer {TOKEN}x", TOKEN, "Bearer", "Basic " + TOKEN, "Bearer \xff"):
        assert call_json(guarded, "GET", "/api/status", authorization=value)[0] == 401
    assert call_json(guarded, "GET", "/api/status", authorization=f"Bearer {TOKEN}")[0] == 200
    assert call_json(guarded, "GET", "/v1/models", authorization=f"bearer {TOKEN}")[0] == 200


def test_a_page_gets_a_cookie_for_the_token(guarded):
    assert call_json(guarded, "POST", "/api/login", {"token": "wrong"})[0] == 401
    status, headers, _ = call(guarded, "POST", "/api/login", {"token": TOKEN})
    cookie = headers["set-cookie"]
    assert status == 204 and "HttpOnly" in cookie and "SameSite=strict" in cookie and TOKEN not in cookie
    assert call_json(guarded, "GET", "/api/status", cookie=cookie.split(";")[0])[0] == 200
    assert call_json(guarded, "GET", "/api/status", cookie="lvqa=0")[0] == 401


def test_every_response_keeps_browsers_safe(url):
    for path in ("/api/status", "/nothing", "/api/videos/x/media"):
        _, headers, _ = call(url, "GET", path)
        assert "default-src 'none'" in headers["content-security-policy"]
        assert (headers["x-content-type-options"], headers["x-frame-options"]) == ("nosniff", "DENY")
        assert headers["cross-origin-resource-policy"] == "same-origin" and "access-control-allow-origin" not in headers


def test_bodies_are_bounded(tiny, tmp_path):
    with running_server(tiny, tmp_path, max_upload_mib=1) as address:
        assert call_json(address, "POST", "/api/ask", b"x" * 10, content_length=str(MAX_BODY_BYTES + 1))[0] == 413
        assert call_json(address, "PUT", "/api/uploads/a.mp4", b"x" * ((1 << 20) + 1))[0] == 413
        assert not [*tmp_path.rglob("*.tmp")] and not [*tmp_path.rglob("a.mp4")]


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "0.0.0.0", "10.0.0.1", "192.168.1.1", "169.254.169.254", "::1", "::ffff:127.0.0.1"],
)
def test_private_addresses_are_never_fetched(host):
    with pytest.raises(ApiError, match="is not a public host"):
        public_address(host, 80)


@pytest.mark.slow
def test_private_addresses_are_refused_where_urls_are_allowed(tiny, tmp_path, url):
    with running_server(tiny, tmp_path, allow_urls=True) as address:
        for target in (f"{url}/a.mp4", "http://[::1]/a.mp4", "http://2130706433/a.mp4", "http://0x7f000001/a.mp4"):
            assert call_json(address, "POST", "/api/videos", {"url": target})[0] in (403, 502)
        for target in ("ftp://example.org/a.mp4", "http://user:pw@example.org/a.mp4", "http://example.org:0/a.mp4"):
            assert call_json(address, "POST", "/api/videos", {"url": target})[0] == 400
        assert call_json(address, "POST", "/api/videos", {"url": "https://example.org/page"})[0] == 415
        assert call_json(address, "POST", "/api/videos", {"url": "http://x/\r\nHost: y/a.mp4"})[0] == 400


@pytest.mark.slow
def test_logs_have_no_token_and_no_question(tiny, folders, caplog):
    caplog.set_level("DEBUG")
    caplog.set_level("DEBUG", logger="lvqa")  # a command with --quiet leaves it higher
    options = {"token": TOKEN, "log_requests": True}
    with running_server(tiny, folders / "store", folders / "served", **options) as address:
        body = {"question": "What is my secret?", "frames": 4, "method": "uniform"}
        assert call_json(address, "POST", "/api/ask", body, authorization=f"Bearer {TOKEN}")[0] == 200
        assert call_json(address, "GET", f"/api/videos?token={TOKEN}")[0] == 401
    assert any("POST /api/ask 200" in message for message in caplog.messages)
    assert not any(TOKEN in message or "secret?" in message for message in caplog.messages)


# --- many hostile requests ------------------------------------------------------------------------------------------

DOTS = [
    "../",
    "..%2f",
    "%2e%2e/",
    "%2e%2e%2f",
    "..\\",
    "..%5c",
    "%252e%252e%252f",
    "....//",
    "..%c0%af",
    "/",
    "%00",
    ";/../",
]
PLACES = ["/api/videos/{0}/media", "/api/videos/{0}", "/api/uploads/{0}", "/api/runs/{0}/rows", "/{0}", "/api/jobs/{0}"]
ODD_VALUES = [None, -1, 0, 1e308, "", "x" * 9000, [], {}, True, "\ud800", "\0", ["a"] * 100, {"url": "x"}, [[[[]]]]]


def hostile_request(rng: random.Random, secret: Path, video_id: str) -> tuple[str, str, bytes | None, dict[str, str]]:
    """Return method, path, body and headers of a request that no honest client sends."""
    kind = rng.choice(["traversal", "body", "types", "headers", "foreign", "upload"])
    headers = {"host": "localhost"}
    if kind == "traversal":
        name = "".join(rng.choices(DOTS, k=rng.randint(1, 8))) + rng.choice([str(secret)[1:], "etc/passwd"])
        return rng.choice(["GET", "DELETE", "PUT"]), rng.choice(PLACES).format(name), None, headers
    if kind == "body":
        body = rng.choice([b"{", b"\xff" * 50, b"[" * 100_000, b'{"a":' * 9000, rng.randbytes(500), b"null"])
        return "POST", rng.choice(["/api/ask", "/api/search", "/v1/chat/completions"]), body, headers
    if kind == "types":
        return "POST", *typed_body(rng, secret, video_id), headers
    if kind == "headers":
        headers |= {
            rng.choice(["range", "cookie", "authorization", "accept", "x-y"]): "a" * rng.choice([10, 3000, 90_000])
        }
        return "GET", f"/api/videos/{video_id}/media", None, headers
    if kind == "foreign":
        headers = rng.choice([{"host": "evil.example"}, {"host": "localhost", "origin": "https://evil.example"}])
        return rng.choice(["GET", "POST"]), "/api/videos", None, headers
    name = "".join(rng.choices(DOTS, k=2)) + rng.choice(["evil.mp4", "evil.sh", ".mp4", "a\\b.mkv"])
    return "PUT", f"/api/uploads/{name}", rng.randbytes(rng.randint(0, 3000)), headers


def typed_body(rng: random.Random, secret: Path, video_id: str) -> tuple[str, bytes]:
    """Return a path and a body with values of wrong types, and with paths that lead outside."""
    keys = ["video", "question", "options", "frames", "method", "image", "voice", "history", "stream", "query", "top"]
    body = {key: rng.choice(ODD_VALUES) for key in rng.sample(keys, 3)}
    body |= rng.choice([{"video": str(secret)}, {"video": f"file://{secret}"}, {"video": video_id}, {}])
    if rng.random() < 0.4:
        part = {
            "type": "video_url",
            "video_url": {"url": rng.choice([f"file://{secret}", "data:video/mp4;base64,QUJD"])},
        }
        body = {"model": "lvqa", "messages": [{"role": "user", "content": rng.choice([[part], *ODD_VALUES])}]}
        return "/v1/chat/completions", json.dumps(body).encode()
    return rng.choice(["/api/ask", "/api/search", "/api/videos"]), json.dumps(body).encode()


def send_raw(url: str, method: str, path: str, body: bytes | None, headers: dict[str, str], *, cut: bool) -> int:
    """Send a request by hand, so that no library mends it. Returns its status; 0 where it was cut off or refused."""
    parts = urlsplit(url)
    lines = [f"{method} {path.replace(' ', '%20')} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
    lines += ["connection: close", "content-type: application/json", f"content-length: {len(body or b'')}", "", ""]
    data = "\r\n".join(lines).encode("latin-1", "replace") + (body or b"")
    address = (parts.hostname, parts.port)
    with socket.create_connection(address, timeout=60) as connection, contextlib.suppress(OSError):
        connection.sendall(data[: len(data) // 2] if cut else data)
        if not cut:
            first = connection.makefile("rb").readline()
            return int(first.split()[1]) if first.startswith(b"HTTP/1.1 ") else 0
    return 0


@pytest.mark.slow
def test_a_thousand_hostile_requests_change_nothing(url, folders):
    rng, process = random.Random(SEED), psutil.Process()
    video_id = call_json(url, "GET", "/api/videos")[1]["videos"][0]["id"]
    outside = {path: path.stat().st_mtime_ns for path in folders.rglob("*") if "store" not in path.parts}
    secret = (folders / "secret.mp4").read_bytes()[:64]
    for question in ({"question": "What?", "video": video_id}, {"question": "What?", "library": True}):
        assert call_json(url, "POST", "/api/ask", question)[0] == 200  # what the first question takes is no leak
    memory, statuses = 0, []
    for i in range(NUM_WARM_UP + NUM_REQUESTS):
        if i == NUM_WARM_UP:
            memory = process.memory_info().rss
        request = hostile_request(rng, folders / "secret.mp4", video_id)
        statuses.append(send_raw(url, *request, cut=rng.random() < 0.15))
    assert call_json(url, "GET", "/api/status")[0] == 200
    assert process.memory_info().rss - memory < MAX_GROWTH_BYTES
    assert 500 not in statuses, statuses
    assert {path: path.stat().st_mtime_ns for path in folders.rglob("*") if "store" not in path.parts} == outside
    assert [path.name for path in (folders / "store" / "index" / "uploads").iterdir()] == []
    assert len(call_json(url, "GET", "/api/videos")[1]["videos"]) == 1
    assert secret and call_json(url, "POST", "/api/ask", {"question": "What?", "method": "uniform"})[0] == 200
