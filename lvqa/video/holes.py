"""Find the parts of a file that belong to no packet, and so to no frame: they are overwritten, or never came."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lvqa.video.container import open_stream, packets_of_all_streams
from lvqa.video.timeline import Timeline

MIN_HOLE_BYTES = 16384
"""How many bytes in a row belong to no packet, at least, before that is taken for damage; containers have heads."""

_MIN_PAUSE_SECONDS, _MIN_PAUSE_STEPS = 1.0, 4
"""How long no frame follows, at least, before bytes are looked at: so long, and so many times the usual step."""


def describe_holes(path: Path, timeline: Timeline) -> tuple[str, ...]:
    """Return a line if frames are missing because nothing of a part of the file can be read, or no line.

    A pause between two frames is damage where the file has many bytes there that belong to no packet of any stream. In
    an ordinary pause there are none, or those of the sound.

    Raises:
        VideoError, av.error.FFmpegError: The file can't be read as a video.
    """
    steps = np.diff(timeline.frame_seconds)
    if timeline.packet_ticks is None or steps.max(initial=0) <= _MIN_PAUSE_SECONDS:
        return ()
    min_pause = max(_MIN_PAUSE_SECONDS, _MIN_PAUSE_STEPS * float(np.median(steps)))
    if steps.max() <= min_pause:
        return ()
    starts, ends, seconds = _read_packets(path)
    holes = starts[1:] - np.maximum.accumulate(ends)[:-1]
    lost = []
    for i in np.flatnonzero(holes >= MIN_HOLE_BYTES).tolist():
        before, after = seconds[: i + 1], seconds[i + 1 :]
        before, after = before[~np.isnan(before)], after[~np.isnan(after)]
        if len(before) and len(after) and after[0] - before[-1] > min_pause:
            lost.append((float(before[-1]), float(after[0]), int(holes[i])))
    if not lost:
        return ()
    spans = ", ".join(f"from {before:.0f} to {after:.0f} s" for before, after, _ in lost[:3])
    more = f" and {len(lost) - 3} times more" if len(lost) > 3 else ""
    num_bytes = sum(hole for _, _, hole in lost)
    return (f"{num_bytes:,} bytes of it can't be read: the frames {spans}{more} are missing",)


def _read_packets(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return where each packet begins and ends in the file, in this order, and its second; NaN if it is no picture."""
    with open_stream(path) as stream:
        start = float((stream.start_time or 0) * (stream.time_base or 0))
        rows = [
            (
                packet.pos,
                packet.pos + packet.size,
                np.nan
                if packet.pts is None or packet.stream_index != stream.index
                else float(packet.pts * packet.time_base) - start,
            )
            for packet in packets_of_all_streams(stream)
            if packet.pos is not None
        ]
    table = np.array(sorted(rows), dtype=np.float64).reshape(-1, 3)
    return table[:, 0], table[:, 1], table[:, 2]
