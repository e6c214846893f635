"""Reference recommenders: random, popularity, recency, best static slate, myopic and look-ahead oracle."""
