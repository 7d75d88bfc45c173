"""``make embedded-models``: train the shipped models from nothing and measure them."""

import argparse

from tools.embedded_models.build import build

argparse.ArgumentParser(description=__doc__).parse_args()
print(build().to_string(na_rep="-"))
