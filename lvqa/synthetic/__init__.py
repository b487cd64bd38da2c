"""The embedded model: a Qwen2.5-VL in all but size, the made world it was taught on, and its training."""
