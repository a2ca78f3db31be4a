//! Breaks of the relay, each of which the simulation must notice.
//!
//! [`mutation!`](crate::mutation!) stands at the place that a break changes. Without the feature `mutations` it is the
//! constant `false`, so no other build carries a break. With it, one break at most is switched on for the process.

/// Whether the break of this name is switched on; `false` in a build without the feature `mutations`.
#[cfg(not(feature = "mutations"))]
#[macro_export]
macro_rules! mutation {
    ($name:literal) => {
        false
    };
}

/// Whether the break of this name is switched on.
#[cfg(feature = "mutations")]
#[macro_export]
macro_rules! mutation {
    ($name:literal) => {
        $crate::mutation::is_on($name)
    };
}

#[cfg(feature = "mutations")]
static CHOSEN: std::sync::OnceLock<String> = std::sync::OnceLock::new();

/// Switches one break on for the rest of the process. A second call changes nothing.
#[cfg(feature = "mutations")]
pub fn choose(name: &str) {
    let _ = CHOSEN.set(name.to_owned());
}

/// Whether the break of this name is switched on.
#[cfg(feature = "mutations")]
#[must_use]
pub fn is_on(name: &str) -> bool {
    CHOSEN.get().is_some_and(|chosen| chosen == name)
}
