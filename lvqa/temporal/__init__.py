"""Read what a question says about time, by rule and without a model: "What does she say at 21:40?"

An embedding does not know the time of a clip, so what a question says of it is read from its text: clock times
(`clocks`), minutes and seconds in words (`amounts`), and words of order (`order`). Precision comes first: a time that
may be a score, a verse or an hour of the day is not read.
"""

from lvqa.temporal.reading import TemporalReading, read_temporal

__all__ = ["TemporalReading", "read_temporal"]
