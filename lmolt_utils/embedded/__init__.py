"""The embedded scale: a corpus and tiny models that stand in for the hub (no download, no account).

The corpus is made by rules (:mod:`~lmolt_utils.embedded.molecules`, :mod:`~lmolt_utils.grammar.rules`,
:mod:`~lmolt_utils.embedded.captions`); the models are trained on it by ``make embedded-models``.
"""
