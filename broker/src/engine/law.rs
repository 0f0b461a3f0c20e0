//! One law of the engine: what must hold after each step. `laws` and the machines check them.

/// Returns an error from the function that uses it if the law does not hold.
macro_rules! law {
    ($holds:expr, $($text:tt)*) => {
        if !$holds {
            return Err(format!($($text)*));
        }
    };
}
pub(crate) use law;
