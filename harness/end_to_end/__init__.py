"""From the last touch of a swipe to its words, as one: features, encoder, search in a lexicon."""
