"""What is read of time in a question; the sentences are our own."""
# ruff: noqa: RUF001 (questions in other languages)

from __future__ import annotations

import math
import subprocess
import sys
import time
from pathlib import Path

import pytest
from annotation_files import lvbench_line, lvbench_row
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lvqa.synthetic.questions import ask_about
from lvqa.synthetic.script import write_script
from lvqa.temporal import TemporalReading, read_temporal

HOUR = 3600.0

TIMES = {
    # Clock times.
    "What does she pour into the bowl at 21:40?": [1300],
    "At 0:05, what is written on the door?": [5],
    "21:40: who enters?": [1300],
    "Who is seen [21:40]?": [1300],
    "WHAT HAPPENS AT 21:40?": [1300],
    "Who speaks at 0:41:02.5?": [2462.5],
    "Who speaks at 00:41:02:12?": [2462],
    'At "12:30", who speaks?': [750],
    "What is on the desk at 00:41:02 in the video?": [2462],
    "Who is on stage at the 12:30 mark?": [750],
    "What is the score at 21:40?": [1300],
    "Who scores at 45:10?": [2710],
    "What does the clock on the wall show at 23:45?": [1425],
    "What does the teacher read at 12:07?": [727],
    "What is the dog doing at １２：３０?": [750],
    "Is the red car still there by 17:05?": [1025],
    "What do we see at 3:16?": [196],
    "What is the tailor doing at 1:20?": [80],
    'The man says "come in" at 5:10. Who comes?': [310],
    "How does the crowd react at 12:12, and why?": [732],
    "Compare the garden at 10:15 and at 40:30.": [615, 2430],
    "Which of them is taller, the tree at 10:15 or the one at 40:30?": [615, 2430],
    # Spans of clock times.
    "What happens from 12:52 to 13:41?": [(772, 821)],
    "What happens between 01:10 and 01:20?": [(70, 80)],
    "Summarize 00:15-00:22.": [(15, 22)],
    "Summarize 00:15 – 00:22.": [(15, 22)],
    "Summarize 00:15—00:22.": [(15, 22)],
    "Describe 12:00~13:00 in one sentence.": [(720, 780)],
    "What is best for a title of 50:20-50:46?": [(3020, 3046)],
    "Who dances from 41:27-0:41:35?": [(2487, 2495)],
    "What does the pilot do from 12:10 until 12:50?": [(730, 770)],
    "What is shown between 20:15 and 18:00?": [(1080, 1215)],
    "What happens from 58:00 to 75:00?": [(3480, 3600)],
    "Who waves from the 21:40 mark to the 22:10 mark?": [(1300, 1330)],
    "Who waves between 21:40 & 22:10?": [(1300, 1330)],
    "What changes from 5:00 to 6:00, and who leaves at 7:30?": [(300, 360), 450],
    # Minutes and seconds in words.
    "What happens in the 12th minute?": [(660, 720)],
    "What happens in the twelfth minute of the video?": [(660, 720)],
    "Who enters in the twenty-second minute?": [(1260, 1320)],
    "Who is on the screen at minute 12?": [720],
    "Describe minute twelve.": [720],
    "What happens from minute 12 to minute 14?": [(720, 840)],
    "Summarize minutes 12-14.": [(720, 840)],
    "What is cooked between the 12th and the 14th minute?": [(660, 840)],
    "After 50 min 20 s, who takes the floor?": [3020],
    "Who sings after 20 minutes and 30 seconds?": [1230],
    "What can be seen at 90 seconds?": [90],
    "What can be seen at ninety seconds?": [90],
    "What is on the table at 12m30s?": [750],
    "What is on the table at 0h12m30s?": [750],
    "Who waves at 12'30\"?": [750],
    "What does he hold at the 30-second mark?": [30],
    "What does he hold about 5 minutes into the video?": [300],
    "Five minutes in, what does he hold?": [300],
    "Who is there at one and a half minutes?": [90],
    "Who is there after half an hour?": [1800],
    "Who speaks an hour into the video?": [3600],
    "Who speaks after 0h20min?": [1200],
    "Who speaks for the first 5 minutes?": [(0, 300)],
    "What is seen in the last 1:30 of the video?": [(3510, 3600)],
    "What is seen in the video's first minute?": [(0, 60)],
    "Who waves between the 5-minute mark and the 10-minute mark?": [(300, 600)],
    "What is shown in the first 30 seconds?": [(0, 30)],
    "What is shown in the first thirty seconds of the video?": [(0, 30)],
    "What is shown during the first minute?": [(0, 60)],
    "Who is seen in the last two minutes?": [(3480, 3600)],
    "Who is seen in the final minute of the video?": [(3540, 3600)],
    "What is he doing between 12 and 14 minutes?": [(720, 840)],
    "What is he doing from 2 minutes to 3 min 30?": [(120, 210)],
    "What is he doing from 2 minutes to 3 minutes 30 seconds?": [(120, 210)],
    "What is shown from 30 to 45 seconds?": [(30, 45)],
    "What is seen 10 seconds before the end of the video?": [3590],
    "Who is there two minutes before the video ended?": [3480],
    "Who is there 20 seconds after the start of the video?": [20],
    "What happens in the second half of the video?": [(1800, 3600)],
    "What happens in the last quarter of the film?": [(2700, 3600)],
    "What is shown in the first 10% of the video?": [(0, 360)],
    # Other languages.
    "第12分钟发生了什么？": [(660, 720)],
    "12分30秒时他在做什么？": [750],
    "在21：40，桌子上有什么？": [1300],
    "第12分30秒到第13分钟发生了什么？": [(750, 780)],
    "从12分30秒到13分10秒发生了什么？": [(750, 790)],
    "前30秒出现了谁？": [(0, 30)],
    "最后两分钟出现了谁？": [(3480, 3600)],
    "Was passiert in der 12. Minute?": [(660, 720)],
    "Was passiert im 12. Minute?": [(660, 720)],
    "Was sieht man bei Minute 12?": [720],
    "Was passiert nach 12 Minuten?": [720],
    "Wer tritt in den ersten 30 Sekunden auf?": [(0, 30)],
    "Was geschieht von 12:52 bis 13:41?": [(772, 821)],
    "¿Qué pasa a los 12 minutos?": [720],
    "¿Qué ocurre en el minuto 12?": [720],
    "¿Quién aparece en los primeros 30 segundos?": [(0, 30)],
    "¿Qué pasa en los últimos dos minutos?": [(3480, 3600)],
    "¿Qué pasa entre 10:15 y 10:30?": [(615, 630)],
    "Que se passe-t-il à la 12e minute ?": [(660, 720)],
    "Que se passe-t-il après 12 minutes ?": [720],
    "Que voit-on dans les 30 premières secondes ?": [(0, 30)],
    "Que se passe-t-il de 10:15 à 10:30 ?": [(615, 630)],
}

NO_TIMES = (
    # Scores and results.
    "Who scored when it was 2:1?",
    "The home team won 21:15; who was the captain?",
    "Who serves when the score is 12:10?",
    "Who served at a score of 12:10?",
    "Who leads 15:12?",
    "What did they do after losing 25:23?",
    "Who won the vote 48:52?",
    "Who was happy when the set ended 25:23?",
    "In which hall did they beat Norway 21:12?",
    "Which team won 2:1 (21:15, 18:21, 21:10)?",
    "Is the map's scale 1:50 or 1:25?",
    # Verses, ratios, dates, addresses.
    "What does John 3:16 say?",
    "Which book is opened when he quotes Genesis 12:15-12:20?",
    "Who reads from 1 Corinthians 13:04?",
    "Which psalm does she quote, Psalm 23:14?",
    "Does the man recite verse 12:15?",
    "Which TV is 16:9?",
    "Is the laptop's screen a 16:10 display?",
    "Which model has a scale of 1:24?",
    "Is the syrup mixed 1:10 or more?",
    "Is the ratio 10:15?",
    "Why does the picture's ratio change from 16:10 to 21:09?",
    "Was it recorded on 2024-05-12 10:15?",
    "What happened on 12/05/2024 at 10:15?",
    "What happened on May 5, 2024 at 10:15?",
    "Is the shop open 24:7?",
    "Which price is $1:20?",
    "Which device has the address 00:1A:22:33:44:55?",
    "Who sits in Room 12:30?",
    # Hours of the day, and what a clock shows.
    "Who stands below a clock that shows 10:15?",
    "Who stands below the clock which reads 10:15?",
    'What is beside the clock that shows "10:15"?',
    "Which city is named below the sign 'KIOTO 4:07PM'?",
    "What does he eat at 4:07 p.m.?",
    "What does he eat at 8:30 in the morning?",
    "What does he do at 11:45 at night?",
    "Does the meeting on Monday at 10:15 take place?",
    "What happens every day at 12:30?",
    "Which alarm is set for 6:30?",
    "Who comes when it is 10:15?",
    "What is the time in Tokyo, 21:40 local time?",
    "Who catches the 10:15 train?",
    "Why is the shop open from 9:00 until 17:00 on weekdays?",
    "What are the opening hours, 9:00-17:00?",
    "Who is at the airport at 14:20 UTC?",
    "What stands on the table when the timer shows 2:30?",
    "Who has the ball with 2:30 left?",
    "Who waits until the shop opens at 9:00?",
    "Which series airs at 20:15?",
    "Who sees the timer count down from 10:00 to 00:00?",
    "Which final 3:16 did they win?",
    "Whose watch stopped at 10:15?",
    "Who shoots with 10:15 on the game clock?",
    "Who shoots when the game clock hits 10:15?",
    "What is on the stove when the timer is at 02:30?",
    "Who comes at 9:00 in the morning and leaves at 17:00?",
    # Durations.
    "Who ran the race in 12:53?",
    "Who finished with a time of 10:15?",
    "How long does he wait, for 5:00 or more?",
    "Which song lasts 3:20?",
    "How many minutes does the cake bake?",
    "Why does she bake it for 10 minutes?",
    "What does he do every 30 seconds?",
    "What does the five-minute timer do?",
    "Why does it take 12 minutes to fill?",
    "Who arrives 10 minutes later?",
    "Who arrives 10 minutes after the doctor?",
    "Why does he take a 5-minute break?",
    "What is added after 15 minutes in the oven?",
    "Wait a second, who is he?",
    "What changes after a minute?",
    "What happens after the second collision?",
    "Who scores in the 12th minute of the match?",
    "Who enters in the last minute of the match?",
    "Why did he change his mind at the last minute?",
    "What happened in the last 24 hours?",
    "How far are the runners after 800 m?",
    "Who was famous in the 90s?",
    # Beyond the video, and no number at all.
    "What happens at 75:00?",
    "Who enters at 1:20:30?",
    "What happens in the 90th minute?",
    "What happens after 2 hours?",
    "Which colour is the second car from the left?",
    "What is the man with the number 12 doing?",
    "How many cars are red?",
    "比赛第12分钟谁进球了？",
    "上午10:15他在做什么？",
    "他跑了12分30秒吗，用时12分30秒？",
    "Was passiert um 10:15 Uhr?",
    "¿Qué hace a las 10:15 de la mañana?",
    "Que fait-il à 10:15 du matin ?",
)

ORDER = {
    # Parts of the video.
    "What is on the table at the beginning of the video?": "the beginning",
    "What is the weather like in the opening scene?": "the beginning",
    "How does the video start?": "the beginning",
    "What is seen in the first few seconds?": "the beginning",
    "At the start, who holds the umbrella?": "the beginning",
    "What is shown at the end of the film?": "the end",
    "Who is alone in the final scene?": "the end",
    "How does the video end?": "the end",
    "Who wins in the end?": "the end",
    "Who is named in the end credits?": "the end",
    "What is cooked in the middle of the video?": "the middle",
    "Halfway through the video, who arrives?": "the middle",
    "视频开头出现了什么？": "the beginning",
    "视频结尾出现了什么？": "the end",
    "Was sieht man am Anfang?": "the beginning",
    "¿Qué se ve al final del video?": "the end",
    "Que voit-on au début de la vidéo ?": "the beginning",
    # The first and the last of several.
    "What colour is the car when it is seen for the first time?": "the first time",
    "Where is the first time that a car is seen?": "the first time",
    "Who leaves the room first?": "the first time",
    "Who is the last person who speaks?": "the last time",
    "When does she smile for the last time?": "the last time",
    "这辆车第一次出现在哪里？": "the first time",
    "Wo ist das Auto zum ersten Mal zu sehen?": "the first time",
    # Before and after.
    "What happened after the cup fell?": "after",
    "What does she do right before she leaves?": "before",
    "He opens the box. What does he do next?": "after",
    "He opens the box. What does he do then?": "after",
    "What happens immediately afterwards?": "after",
    "What was he doing prior to the call?": "before",
    "杯子掉下来之后发生了什么？": "after",
    "Was passiert, nachdem er geht?": "after",
    # Several.
    "What happens after 20:00?": "20:00; after",
    "What does she do before 20:00?": "20:00; before",
    "What did he do after she sang for the last time?": "the last time; after",
    "Who is at the door from 12:52 to 13:41, and who at the end?": "12:52-13:41; the end",
    # Nothing.
    "What stands at the end of the street?": "",
    "What is the man in the middle wearing?": "",
    "What is said at the beginning of the concert?": "",
    "What happens from the beginning to the end?": "",
    "How long will the concert last?": "",
    "Who wins first place?": "",
    "What is her first name?": "",
    "Who lives on the first floor?": "",
    "Is it a first-person view?": "",
    "Who is in the last row?": "",
    "What did she wear last year?": "",
    "Who is second to last?": "",
    "Who looks after the child?": "",
    "Who is the boy named after?": "",
    "Have they met before?": "",
    "Who stands before the judge?": "",
    "What do the before-and-after pictures show?": "",
    "What happened before and after the storm?": "",
    "Who sits next to the driver?": "",
    'Who wrote "After the First Day"?': "",
    "Was he then a student?": "",
}


def spans(*times: float | tuple[float, float]) -> tuple[tuple[float, float], ...]:
    return tuple(named if isinstance(named, tuple) else (named, named) for named in times)


@pytest.mark.parametrize(("text", "times"), TIMES.items())
def test_a_named_time_is_read(text, times):
    assert read_temporal(text, HOUR).spans == spans(*times)


@pytest.mark.parametrize("text", NO_TIMES)
def test_what_only_looks_like_a_time_is_not_read(text):
    assert read_temporal(text, HOUR).spans == ()


@pytest.mark.parametrize(("text", "reading"), ORDER.items())
def test_words_of_order_are_read(text, reading):
    assert read_temporal(text, HOUR).text == reading


def test_an_amount_without_a_time_is_none_and_the_rest_is_read():
    reading = read_temporal(
        "After waiting for 10 minutes, what does she do at 12:30, and who is there in the end?", HOUR
    )
    assert reading == TemporalReading(spans(750), position="end", relation="after")
    assert reading.text == "12:30; the end; after"
    assert read_temporal("Who is it?", HOUR) == TemporalReading() and TemporalReading().text == ""


def test_a_time_is_read_in_the_hours_of_a_long_video_only():
    text = "Who speaks at 1:20:30, and after 1 h 50 min?"
    assert read_temporal(text, 2 * HOUR).spans == spans(4830, 6600)
    assert read_temporal(text, 1.5 * HOUR).spans == spans(4830)
    assert read_temporal(text, HOUR).spans == ()


def test_two_numbers_are_minutes_and_seconds_unless_a_unit_says_hours():
    assert read_temporal("Who is there at 1:20?", 3 * HOUR).spans == spans(80)
    assert read_temporal("Who is there at 1:20 h?", 3 * HOUR).spans == spans(4800)


def test_a_span_ends_with_the_video():
    assert read_temporal("What happens from 58:00 to 75:00?", HOUR).spans == spans((3480, 3600))
    assert read_temporal("What is shown in the last 2 minutes?", 60.0).spans == ()


@pytest.mark.parametrize("duration", [0.0, -1.0, math.nan])
def test_no_time_lies_in_a_video_without_duration(duration):
    assert read_temporal("Who is there at 1:20, and in the last 10 seconds?", duration).spans == ()


WORDS = (
    "at from to between and the first last 30 12 1:20 21:40 2:1 16:9 12th minute minutes seconds 1h20m 4:07PM of video "
    "- ' \" ? , end beginning before after then a half second hour % 第 12分30秒 前 è 0 999:59 1:02:03 next"
)
PIECES = st.sampled_from(WORDS.split())
TEXTS = st.one_of(st.text(max_size=200), st.lists(PIECES, max_size=40).map(" ".join), st.lists(PIECES).map("".join))


@pytest.mark.slow
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(TEXTS, st.floats())
def test_any_text_gives_a_reading_within_the_video(text, duration):
    reading = read_temporal(text, duration)
    assert all(0 <= start <= end <= duration and math.isfinite(end) for start, end in reading.spans)
    assert bool(reading.text) == (reading != TemporalReading())


@pytest.mark.slow
@pytest.mark.parametrize(
    "piece",
    [
        *(
            "1:20 ",
            "12:30, and ",
            "1",
            "a",
            " ",
            "\n",
            "(",
            "'",
            '"a ',
            "1 h ",
            "the first ",
            "half an ",
            "from 12 to ",
        ),
        *("in the ", "minute 12 ", "第12分", "how long ", "12:30-", "12th ", "at the end of ", "score of "),
    ],
)
def test_a_long_text_is_read_in_linear_time(piece):
    """It takes 0.1 s of the processor; a pattern that tries all pairs of places takes six at least."""
    text = (piece * 100_000)[:100_000]
    start = time.process_time()
    read_temporal(text, HOUR)
    assert time.process_time() - start < 3


def test_the_times_of_synthetic_questions_are_read_and_no_others():
    script = write_script(700, 30)
    questions = ask_about(script, 40)
    readings = {question.text: read_temporal(question.text, script.duration_seconds) for question in questions}
    assert {text for text, reading in readings.items() if reading.spans} == {text for text in readings if ":" in text}
    for question in questions:
        for start, end in readings[question.text].spans:
            assert start <= question.evidence_seconds[1] and question.evidence_seconds[0] <= end


def run_script(path: Path) -> subprocess.CompletedProcess[str]:
    script = Path(__file__).parents[1] / "scripts" / "check_named_times.py"
    return subprocess.run([sys.executable, str(script), str(path)], capture_output=True, text=True)


@pytest.mark.slow
def test_the_script_counts_named_times_and_names_disagreements(tmp_path):
    options = "\n(A) at 0:05\n(B) at 0:10\n(C) never\n(D) later"
    questions = {
        "near": ("Who waves at 12:30?", "12:33-12:40"),
        "far": ("Who waves at 14:00?", "20:00-20:10"),
        "clock": ("Who stands below the clock that shows 10:15?", "01:00-01:00"),
        "words": ("Who waves in the 12th minute?", "11:10-11:20"),
        "unknown": ("Who waves at 16:00?", "None-None"),
        "none": ("Who waves after the last storm?", "05:00-05:00"),
    }
    rows = [
        lvbench_row(uid, question=text + options, time_reference=reference)
        for uid, (text, reference) in questions.items()
    ]
    path = tmp_path / "own.jsonl"
    path.write_text(lvbench_line("Cm73ma6Ibcs", *rows))
    result = run_script(path)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "6 questions",
        "3 name a clock time, 2 of them with an annotated time",
        "1 of 2 lie within 5 s of it",
        "  far: read 14:00, annotated 20:00-20:10: Who waves at 14:00?",
        "1 have a colon between digits, and no time was read",
        "  clock: read nothing, annotated 1:00-1:00: Who stands below the clock that shows 10:15?",
        "1 minutes or seconds in words",
        "1 occurrence: last",
        "1 relation: after",
    ]
    path.write_text("{")
    assert run_script(path).returncode == 1 and run_script(path).stderr.startswith("Error: ")
