"""What importing lvqa sets for the libraries that it loads later."""

import os
import subprocess
import sys

import pytest

SETTINGS = {"MKL_CBWR": "AUTO,STRICT", "OMP_WAIT_POLICY": "PASSIVE"}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("own", [None, "user's own"])
def test_a_setting_of_the_libraries_is_made_where_the_user_has_none(name, own):
    environment = {key: value for key, value in os.environ.items() if key != name}
    if own is not None:
        environment[name] = own
    script = f"import os, lvqa; print(os.environ[{name!r}])"
    result = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == (own or SETTINGS[name])
