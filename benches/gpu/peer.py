"""The parts of benches/peer that the GPU's benchmarks use."""

import importlib.util

from common import HERE

_spec = importlib.util.spec_from_file_location("peer_run", HERE.parent / "peer" / "run.py")
_peer = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_peer)
make_tokenizer, SHAPES = _peer.make_tokenizer, _peer.SHAPES
