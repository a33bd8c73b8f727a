//! Deliberately broken deciders. Each wraps the production rules and breaks one thing; the
//! invariants must catch every one of them, or they prove nothing.
