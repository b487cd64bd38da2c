"""Copy a folder of synthetic questions with every named time wrong: what does a wrong time cost?

    python scripts/shift_named_times.py FOLDER NEW_FOLDER 20        20 s later or earlier
    python scripts/shift_named_times.py FOLDER NEW_FOLDER random    any time of the video

The videos are linked, not copied; questions that name no time are left out.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from pathlib import Path

CLOCK = re.compile(r"\b(\d+):(\d\d)(?=\?)")


def shifted(text: str, by: str, duration_seconds: float, rng: random.Random) -> str:
    """Return a question's text with its time moved, and kept inside the video."""
    minutes, seconds = map(int, CLOCK.findall(text)[0])
    time = 60 * minutes + seconds
    if by == "random":
        moved = rng.uniform(0, duration_seconds - 1)
    else:
        inside = [time + sign * int(by) for sign in (1, -1) if 0 <= time + sign * int(by) < duration_seconds]
        moved = rng.choice(inside)
    return CLOCK.sub(f"{int(moved) // 60:02d}:{int(moved) % 60:02d}", text)


def shift(folder: Path, new_folder: Path, by: str) -> int:
    """Write the new folder, and return how many questions it has."""
    rng, lines, number = random.Random(16), [], 0
    for line in (folder / "video_info.meta.jsonl").read_text(encoding="utf-8").splitlines():
        video = json.loads(line)
        kept = []
        for question in video["qa"]:
            text, _, options = question["question"].partition("\n")
            if CLOCK.search(text):
                text = shifted(text, by, 60 * video["video_info"]["duration_minutes"], rng)
                kept.append(question | {"question": f"{text}\n{options}"})
        number += len(kept)
        if kept:
            lines.append(json.dumps(video | {"qa": kept}))
    new_folder.mkdir(parents=True, exist_ok=True)
    (new_folder / "videos").unlink(missing_ok=True)
    (new_folder / "videos").symlink_to((folder / "videos").resolve())
    (new_folder / "video_info.meta.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return number


def main() -> None:
    """Read the arguments, write the folder, and say how many questions it has."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("new_folder", type=Path, metavar="NEW_FOLDER")
    parser.add_argument("by", metavar="SECONDS|random")
    arguments = parser.parse_args()
    if arguments.by != "random" and not arguments.by.isdecimal():
        parser.error(f"SECONDS must be a whole number or random, got {arguments.by!r}")
    print(f"{shift(arguments.folder, arguments.new_folder, arguments.by)} questions name a time, now a wrong one")


if __name__ == "__main__":
    main()
