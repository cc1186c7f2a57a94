//! The domain in plain types: nodes, users, preauth keys, and the tailnet that holds them.
