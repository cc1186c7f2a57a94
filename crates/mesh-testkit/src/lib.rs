//! Fixtures for tests: a clock to turn, seeded keys, small tailnets.
