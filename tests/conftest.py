"""For all tests: Ctrl-C reaches the programs that they start, also where a shell in the background has blocked it."""

import signal

signal.signal(signal.SIGINT, signal.default_int_handler)
