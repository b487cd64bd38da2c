"""The door: each command in a module of its own, and what they share in `door.py` and `terminal.py`."""

from lvqa.cli import ask, bench, doctor, evaluate, films, index, plugin, probe, search, selections
from lvqa.cli.door import door as _door
from lvqa.cli.door import main

__all__ = ["main"]

for _command in (
    *(ask.ask, search.search, index.index, evaluate.evaluate, evaluate.report),
    *(films.make_film, films.demo, bench.bench, doctor.doctor, plugin.check_plugin, probe.probe, selections.selections),
):
    _door.add_command(_command)
