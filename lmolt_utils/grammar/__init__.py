"""One grammar of L+M-24's captions, used in two directions.

:mod:`~lmolt_utils.grammar.forms` holds the sentence forms as data; :mod:`~lmolt_utils.grammar.compose` writes captions
from property sets with them, :mod:`~lmolt_utils.grammar.decompose` reads property sets and atomic facts out of
captions, and :mod:`~lmolt_utils.grammar.vocabulary` says which names there are. ``decompose(compose(p)) == p``.
"""
