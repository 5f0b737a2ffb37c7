"""Words out of encodings: greedy, beam search, lexicon, accuracy."""
