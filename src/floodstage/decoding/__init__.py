"""Floor 4: the one loop, the rules that judge a draft, what a person may ask of a sample."""
