"""The pages in a real browser: what a person does with them, and what a person sees."""

import json
import re
import shutil

import pytest
from axe_playwright_python.sync_playwright import Axe
from runs import copy_of
from servers import call_json, running_server

from lvqa.evaluation import is_correct
from lvqa.records import Answer, Candidate, Caveats, Clip, Counts, Question, QuestionKind
from lvqa.video import inspect_video
from lvqa.web import write_bundle, write_page

pytestmark = [pytest.mark.browser, pytest.mark.slow]

QUESTION, OPTIONS = "What colour is the ball?", ["red", "blue", "green"]
SIZES = {"wide": {"width": 1440, "height": 900}, "narrow": {"width": 390, "height": 844}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, synthetic_video):
    folder = tmp_path_factory.mktemp("watched")
    shutil.copy(synthetic_video(minutes=2, seed=712), folder / "a.mp4")
    shutil.copy(synthetic_video(seed=711), folder / "b.mp4")
    return folder


@pytest.fixture(scope="module")
def url(tiny, tmp_path_factory, folder, run):
    copy = copy_of(run, tmp_path_factory.mktemp("runs"))
    settings = ("selection.frames=8", "video.clip_seconds=8")
    with running_server(tiny, tmp_path_factory.mktemp("store"), folder, runs=(copy,), overrides=settings) as address:
        yield address


@pytest.fixture
def open_page(browser, url):
    """Open pages; a test fails with any error that a page's script meets, or anything that it wants from elsewhere."""
    contexts, errors = [], []

    def note_request(request):
        if not request.url.startswith((url, "file:", "data:", "blob:")):
            errors.append(f"asks {request.url}")

    def make(address, *, size="wide", scheme="light"):
        contexts.append(browser.new_context(viewport=SIZES[size], color_scheme=scheme, accept_downloads=True))
        page = contexts[-1].new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", note_request)
        page.goto(address if "://" in address else url + address)
        return page

    yield make
    for context in contexts:
        context.close()
    assert errors == []


def videos_of(url):
    return call_json(url, "GET", "/api/videos")[1]["videos"]


def ask(page, question, options=()):
    """Type a question as a person does, and wait for both answers."""
    page.get_by_role("textbox", name="question", exact=True).fill(question)
    if options:
        page.locator(".ask details").first.evaluate("(element) => { element.open = true; }")
        page.get_by_label("options").fill("\n".join(options))
    page.get_by_role("button", name=re.compile("^Ask")).click()
    page.wait_for_function("() => document.querySelector('.ask .primary').disabled === false")
    assert page.locator(".answer-column").count() == 2, page.locator(".status").inner_text()


def player_seconds(page):
    return page.evaluate("() => document.querySelector('.player video').currentTime")


def cut_off(page):
    """Return what is wider than the page, outside of what scrolls by itself."""
    return page.evaluate("""() => {
        const isWide = (element) => element.getBoundingClientRect().right > document.documentElement.clientWidth + 1;
        const scrolls = (element) => element.closest(".wide-table, .timeline-box, [hidden]");
        const all = [...document.querySelectorAll("main *")];
        return all.filter((one) => isWide(one) && !scrolls(one)).map((one) => one.outerHTML.slice(0, 120));
    }""")


def assert_accessible(page):
    """No serious finding of axe, the checker."""
    findings = [
        (violation["id"], [node["html"][:150] for node in violation["nodes"][:3]])
        for violation in Axe().run(page).response["violations"]
        if violation["impact"] in ("serious", "critical")
    ]
    assert findings == []


# --- the library -----------------------------------------------------------------------------------------------------


def test_videos_are_added_indexed_searched_and_forgotten(open_page, url, synthetic_video, tmp_path):
    page = open_page("/")
    cards = page.locator(".videos .card")
    page.wait_for_selector(".videos .card")
    assert cards.count() == 2
    shutil.copy(synthetic_video(seed=713), tmp_path / "sent <b>.mp4")
    page.set_input_files("input[type=file]", tmp_path / "sent <b>.mp4")
    page.wait_for_function("() => document.querySelectorAll('.videos .card').length === 3")
    sent = page.locator(".videos .card", has_text="sent")
    sent.get_by_role("button", name="Index").click()
    sent.get_by_text("indexed", exact=True).wait_for()
    page.get_by_role("searchbox").fill("a red ball")
    page.get_by_role("button", name="Search").click()
    hit = page.locator(".card", has=page.get_by_role("link", name="open the video here")).first
    hit.wait_for()
    hit.get_by_role("button").click()
    page.wait_for_function("() => { const v = document.querySelector('.card video'); return v && v.readyState > 1; }")
    page.get_by_label("path of a video on the server").fill("/etc/passwd")
    page.get_by_role("button", name="Add by path").click()
    page.get_by_text("is not in the folders that are served").wait_for()
    page.on("dialog", lambda dialog: dialog.accept())
    sent.get_by_role("button", name="Delete").click()
    page.wait_for_function("() => document.querySelectorAll('.videos .card').length === 2")
    assert len(videos_of(url)) == 2


# --- the workbench ---------------------------------------------------------------------------------------------------


def test_a_question_is_answered_and_its_evidence_played(open_page, url):
    video = videos_of(url)[0]
    page = open_page(f"/videos/{video['id']}")
    page.wait_for_selector(".player video")
    ask(page, QUESTION, OPTIONS)
    body = {"video": video["id"], "question": QUESTION, "options": OPTIONS}
    _, answer = call_json(url, "POST", "/api/ask", body)
    _, uniform = call_json(url, "POST", "/api/ask", {**body, "method": "uniform"})
    columns = page.locator(".answer-column")
    for column, expected in zip(columns.all(), (answer, uniform), strict=True):
        assert f"{expected['option']}. {expected['answer']}" in column.locator(".answer").inner_text()
        scores = column.locator(".options td.number").all_inner_texts()
        assert scores == [f"{score:.3f}" for score in expected["option_scores"]]
        labels = [button.get_attribute("aria-label") for button in column.locator(".frame").all()]
        times = [frame["time_seconds"] for frame in expected["frames"]]
        assert labels == [f"frame at {int(t) // 60}:{int(t) % 60:02d}" for t in times]
    shown_clips = [clip for clip in answer["evidence"] if clip["frames"]]
    second = shown_clips[1]
    card = page.locator(".evidence .card").nth(1)
    assert f"rerank {second['rerank_score']:.2f}" in card.inner_text()
    card.locator(".card-play").click()
    is_there = "(start) => Math.abs(document.querySelector('.player video').currentTime - start) < 0.5"
    page.wait_for_function(is_there, arg=second["start_seconds"])
    page.wait_for_function("() => !document.querySelector('.player video').paused")
    page.wait_for_function("() => document.querySelector('.player video').paused", timeout=60_000)  # at the clip's end
    assert abs(player_seconds(page) - second["end_seconds"]) < 1


def test_a_follow_up_has_its_own_evidence_and_a_reload_restores_both(open_page, url):
    video = videos_of(url)[0]
    page = open_page(f"/videos/{video['id']}")
    page.wait_for_selector(".player video")
    ask(page, QUESTION, OPTIONS)
    ask(page, "And what comes right after that?")
    turns = page.locator(".conversation li")
    assert turns.count() == 2 and turns.nth(1).get_attribute("aria-current") == "true"
    _, first = call_json(url, "POST", "/api/ask", {"video": video["id"], "question": QUESTION, "options": OPTIONS})
    history = [{"question": QUESTION, "answer": first["answer"]}]
    follow_up = {"video": video["id"], "question": "And what comes right after that?", "history": history}
    _, second = call_json(url, "POST", "/api/ask", follow_up)
    cards = page.locator(".evidence .card").evaluate_all("(cards) => cards.map((card) => Number(card.dataset.start))")
    assert cards[: len([clip for clip in second["evidence"] if clip["frames"]])] == [
        clip["start_seconds"] for clip in second["evidence"] if clip["frames"]
    ]
    answers = turns.all_inner_texts()
    page.evaluate("() => { document.querySelector('.player video').currentTime = 33; }")
    page.wait_for_function("() => /[#&]t=33/.test(location.hash)")
    page.reload()
    page.wait_for_function("() => document.querySelectorAll('.conversation li').length === 2")
    page.wait_for_function("() => document.querySelector('.ask .primary').disabled === false")
    assert turns.all_inner_texts() == answers and abs(player_seconds(page) - 33) < 0.5
    turns.nth(0).get_by_role("button").click()
    assert first["answer"] in page.locator(".answer-column .answer").first.inner_text()


def test_keys_and_the_timeline_move_the_player(open_page, url):
    page = open_page(f"/videos/{videos_of(url)[0]['id']}")
    page.wait_for_function("() => document.querySelector('.player video')?.readyState > 0")
    box = page.locator(".timeline-box").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_function("() => Math.abs(document.querySelector('.player video').currentTime - 60) < 1")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => Math.abs(document.querySelector('.player video').currentTime - 65) < 1")
    page.keyboard.press(" ")
    page.wait_for_function("() => !document.querySelector('.player video').paused")
    page.keyboard.press("/")
    assert page.evaluate("() => document.activeElement.getAttribute('aria-label')") == "question"
    before = page.locator(".timeline-box svg").bounding_box()["width"]
    page.get_by_role("button", name="zoom in").click()
    assert page.locator(".timeline-box svg").bounding_box()["width"] == pytest.approx(2 * before, abs=2)
    page.mouse.move(box["x"] + 100, box["y"] + 20)
    page.wait_for_function("() => { const i = document.querySelector('.tip img'); return i && i.naturalWidth > 0; }")


def test_settings_reach_the_question_and_a_bad_one_is_one_line(open_page, url):
    page = open_page(f"/videos/{videos_of(url)[1]['id']}")
    page.wait_for_selector(".player video")
    page.locator(".ask details").evaluate("(element) => { element.open = true; }")
    settings = page.get_by_label("settings, one a line")
    settings.fill("rerank.pool=2")
    ask(page, QUESTION)
    reranked = [text for text in page.locator(".evidence .card").all_inner_texts() if "rerank" in text]
    assert len(reranked) == 2
    settings.fill("model.name=/etc/passwd")
    page.get_by_role("textbox", name="question", exact=True).fill("Why?")
    page.get_by_role("button", name=re.compile("^Ask")).click()
    page.get_by_text("settings must be one of").wait_for()


def test_what_is_saved_is_the_answer(open_page, url, tmp_path):
    page = open_page(f"/videos/{videos_of(url)[0]['id']}")
    page.wait_for_selector(".player video")
    ask(page, QUESTION, OPTIONS)

    def save(name):
        with page.expect_download() as download:
            page.locator(".exports").get_by_text(name).click()
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        return path

    starts = page.locator(".evidence .card").evaluate_all("(cards) => cards.map((card) => Number(card.dataset.start))")
    rows = save("times (CSV)").read_text().splitlines()
    assert rows[0] == "rank,start_seconds,end_seconds,embed_score,rerank_score,frames_seconds"
    assert sorted(float(row.split(",")[1]) for row in rows[1:]) == sorted(starts)
    assert re.match(r"1\n00:0\d:\d\d,000 --> 00:0\d:\d\d,000\nWhat colour", save("subtitles (SRT)").read_text())
    assert "* FROM CLIP NAME: a.mp4" in save("cuts (EDL)").read_text()
    stored = open_page(save("this page (HTML)").as_uri())
    stored.wait_for_selector(".answer-column")
    assert stored.locator(".answer").all_inner_texts() == page.locator(".answer").all_inner_texts()
    assert stored.locator(".frame img").count() == page.locator(".frame img").count()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_cut_off_and_everything_has_a_name(open_page, url, size, scheme):
    page = open_page("/", size=size, scheme=scheme)
    page.wait_for_selector(".videos .card")
    assert cut_off(page) == []
    assert_accessible(page)
    page.goto(f"{url}/videos/{videos_of(url)[0]['id']}")
    page.wait_for_selector(".player video")
    ask(page, QUESTION, OPTIONS)
    page.locator(".evidence .card img").first.wait_for()
    assert cut_off(page) == []
    assert_accessible(page)


def test_a_video_that_the_browser_cannot_play_is_previewed(browser, open_page, tiny, tmp_path, synthetic_video):
    """HEVC in Matroska: Debian's Chromium plays neither."""
    import av

    from lvqa.video.excerpts import clip_bytes

    (tmp_path / "clip.mp4").write_bytes(clip_bytes(inspect_video(synthetic_video()), 0, 50))
    with av.open(tmp_path / "clip.mp4") as source, av.open(tmp_path / "odd.mkv", "w") as target:
        (stream,) = source.streams.video
        out = target.add_stream("mpeg4", rate=stream.average_rate)
        out.width, out.height, out.pix_fmt = stream.width, stream.height, "yuv420p"
        for frame in source.decode(stream):
            frame.pict_type = 0
            target.mux(out.encode(frame))
        target.mux(out.encode(None))
    (tmp_path / "clip.mp4").unlink()
    with running_server(tiny, tmp_path / "store", tmp_path) as url:
        context = browser.new_context(viewport=SIZES["wide"])
        page = context.new_page()
        page.goto(f"{url}/videos/{videos_of(url)[0]['id']}")
        page.wait_for_selector(".player[data-mode=preview]")
        page.get_by_text("a preview is made").wait_for()
        box = page.locator(".timeline-box").bounding_box()
        page.mouse.click(box["x"] + box["width"] * 0.8, box["y"] + box["height"] / 2)
        page.wait_for_function("() => Math.abs(document.querySelector('.player video').currentTime - 10) < 1")
        assert page.locator(".player .time").inner_text().startswith(("0:39", "0:40"))
        context.close()


def test_a_page_asks_for_the_token(browser, tiny, tmp_path, folder):
    token = "a token that nobody guesses"
    with running_server(tiny, tmp_path / "store", folder, token=token) as url:
        context = browser.new_context()
        page = context.new_page()
        page.goto(url)
        page.get_by_label("token").fill("wrong")
        page.get_by_role("button", name="Enter").click()
        page.get_by_text("not the token").wait_for()
        page.get_by_label("token").fill(token)
        page.get_by_role("button", name="Enter").click()
        page.wait_for_selector(".videos .card img")
        (cookie,) = context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict") and token not in json.dumps(cookie)
        context.close()


# --- runs ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundled")
    write_bundle([copy_of(run, folder)], folder / "b")
    return (folder / "b" / "index.html").as_uri()


@pytest.mark.parametrize("place", ["server", "disk"])
def test_a_wrong_answer_is_found_in_three_clicks(open_page, run, bundle, place):
    page = open_page("/runs" if place == "server" else bundle)
    if place == "server":
        page.locator(".runs a").click()
    wrong = [row for row in run.rows if row["arm"] == "uniform" and not is_correct(row)]
    page.locator(".accuracy tr", has_text="uniform").get_by_role("link", name=f"{len(wrong)} wrong").click()
    page.get_by_text(f"{len(wrong)} of {run.num_questions} questions").wait_for()
    page.locator(".question-row").first.click()
    first = page.locator(".answer-column").first
    assert "wrong" in first.locator(".answer").inner_text() and "uniform" in first.locator("h3").inner_text()
    assert page.locator("h1").last.inner_text() == wrong[0]["question"]
    page.wait_for_function("() => document.querySelector('.player video').readyState > 0")
    assert player_seconds(page) == pytest.approx(wrong[0]["evidence_seconds"][0], abs=0.5)
    assert page.locator(".answer-column .frame img").first.evaluate("(image) => image.naturalWidth > 0")
    assert cut_off(page) == []
    page.get_by_role("button", name="all questions").click()
    page.get_by_text(f"{len(wrong)} of").wait_for()
    page.go_back()
    page.locator(".answer-column").first.wait_for()


def test_filters_list_what_the_rows_say(open_page, run, bundle):
    page = open_page(bundle)
    page.wait_for_selector(".question-row")

    def listed():
        return int(page.locator("p", has_text=re.compile(r"\d+ of \d+ questions")).inner_text().split()[0])

    def rows(arm, budget):
        return {row["question_id"]: row for row in run.rows if (row["arm"], row["budget"]) == (arm, budget)}

    page.get_by_label("arm", exact=True).select_option(label="freeret, 4")
    page.get_by_label("this arm is").select_option("right")
    freeret, uniform = rows("freeret", 4), rows("uniform", 4)
    assert listed() == sum(map(is_correct, freeret.values()))
    page.get_by_label("and other arm").select_option(label="uniform, 4")
    page.get_by_label("the other arm is").select_option("wrong")
    assert listed() == sum(is_correct(freeret[key]) and not is_correct(uniform[key]) for key in freeret)
    page.get_by_role("button", name="clear the filters").click()
    assert listed() == run.num_questions
    word = run.rows[0]["options"][0]
    page.get_by_label("text", exact=True).fill(word.upper())
    texts = {row["question_id"]: " ".join([row["question"], *row["options"], row["question_id"]]) for row in run.rows}
    assert listed() == sum(word.lower() in text.lower() for text in texts.values())


def test_a_note_is_kept(open_page, url, run):
    page = open_page("/runs/run#question=1")
    page.get_by_label("note", exact=True).fill("look at the sign")
    page.get_by_text("saved").wait_for()
    page.goto(f"{url}/runs/run")
    page.get_by_label("notes", exact=True).select_option("1")
    page.get_by_text(re.compile(r"^1 of ")).wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="save notes").click()
    assert "look at the sign" in download.value.path().read_text()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_of_a_run_are_accessible(open_page, bundle, size, scheme):
    page = open_page(bundle, size=size, scheme=scheme)
    page.wait_for_selector(".question-row")
    assert cut_off(page) == []
    assert_accessible(page)
    page.locator(".question-row").first.click()
    page.wait_for_selector(".answer-column")
    assert cut_off(page) == []
    assert_accessible(page)


def test_a_run_that_grows_is_shown_as_it_grows(open_page, tiny, browser, run, tmp_path):
    copy = copy_of(run, tmp_path)
    lines = (copy / "answers.jsonl").read_text().splitlines(keepends=True)
    (copy / "answers.jsonl").write_text("".join(lines[:14]))
    with running_server(tiny, tmp_path / "store", has_model=False, runs=(copy,)) as url:
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"{url}/runs/run")
        page.get_by_text("14 answers, 0 failed; the run goes on").wait_for()
        with (copy / "answers.jsonl").open("a") as file:
            file.write("".join(lines[14:]))
        page.get_by_text(f"{len(lines)} answers, 0 failed").wait_for(timeout=30_000)
        context.close()


# --- the page of one answer ------------------------------------------------------------------------------------------


def test_a_page_shows_what_the_method_did(open_page, synthetic_video, tmp_path):
    video = inspect_video(synthetic_video())
    known = {"text": "blue", "option": None, "option_scores": (), "model": "tiny", "method": "apportion"}
    known |= {"frames_budget": 8, "frames": (21.0,), "evidence": (), "counts": Counts(), "seconds": {"answer": 1.0}}
    known |= {"time_read": "0:21", "looked_again": True, "question_kind": QuestionKind((0.2, 0.7, 0.1))}
    known |= {"caveats": Caveats(("the file is <i>odd</i>",), 0)}
    write_page(
        tmp_path / "a.html", Answer(question=Question("What is at 0:21?"), index=None, **known), video, evidence=()
    )
    page = open_page((tmp_path / "a.html").as_uri())
    text = page.locator(".answer-column").inner_text()
    for line in ("time read from the question: 0:21", "looked again", "the question is about: order (70.0%)"):
        assert line in text
    assert "1 frame of a budget of 8" in text and page.locator(".warning").inner_text() == "the file is <i>odd</i>"
    assert page.locator(".time-read").count() == 1 and "0:21" in page.locator(".key-read").inner_text()


def test_a_stored_frame_is_enlarged_by_click_and_by_keyboard(open_page, synthetic_video, tmp_path):
    video = inspect_video(synthetic_video())
    clip = Candidate(Clip("v", 30.0, 40.0), embed_score=0.5, rerank_score=0.9)
    question = Question("Which <b>colour</b>?", ("red", "blue"), answer="B", evidence_seconds=(32.0, 36.0))
    known = {"text": "blue", "option": "B", "option_scores": (0.4, 0.6), "model": "tiny", "method": "freeret"}
    known |= {"frames_budget": 8, "frames": (1.0, 30.0, 34.0), "evidence": (clip,), "counts": Counts(), "seconds": {}}
    write_page(tmp_path / "a.html", Answer(question=question, index=None, **known), video, evidence=(clip,))
    page = open_page((tmp_path / "a.html").as_uri())
    page.wait_for_selector(".frame img")
    assert page.locator("h1").inner_text() == question.text
    assert page.locator(".frame.inside").count() == 1
    page.locator(".frame").nth(1).click()
    output = page.locator("dialog output")
    assert output.inner_text().startswith("0:30, frame 2 of 3")
    page.keyboard.press("ArrowRight")
    assert output.inner_text().startswith("0:34, frame 3 of 3")
    page.keyboard.press("ArrowRight")
    assert output.inner_text().startswith("0:01, frame 1 of 3")
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    page.wait_for_function("() => document.querySelector('.player video').readyState > 0")
