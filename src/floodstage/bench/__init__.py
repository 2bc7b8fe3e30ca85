"""Floor 6: measure it. Arms, runs, records and the tables made from them."""
