"""``make embedded-models``: train the shipped models from nothing and measure them."""

import argparse

from tools.embedded_models.build import GROUPS, build

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--only", nargs="+", choices=GROUPS, default=tuple(GROUPS), help="train only these")
print(build(log=lambda line: print(line, flush=True), only=parser.parse_args().only).to_string(na_rep="-"))
