//! Who sees whom, and what a packet filter lets through.
