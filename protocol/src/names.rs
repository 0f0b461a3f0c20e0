//! Checks the spelling of names: which letters, how long, which words are reserved. Whether a
//! service exists is not checked here.

use crate::limits::{BUS_SERVICE, NAME_BYTES_MAX, OP_SERVICE};
use std::fmt;
use std::sync::Arc;

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameError {
    what: &'static str,
    given: String,
    why: NameFault,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum NameFault {
    Empty,
    TooLong(usize),
    Start(char),
    Letter(char),
    Reserved,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, given, why } = self;
        let shown: String =
            given.chars().take(NAME_BYTES_MAX).flat_map(char::escape_debug).collect();
        match why {
            NameFault::Empty => write!(f, "the {what} name is empty; it needs at least one letter"),
            NameFault::TooLong(size) => write!(
                f,
                "{what} name '{shown}…' has {size} bytes; at most {NAME_BYTES_MAX} are allowed"
            ),
            NameFault::Start(c) => write!(
                f,
                "{what} name '{shown}' begins with {c:?}; it must begin with an ASCII letter"
            ),
            NameFault::Letter(c) => write!(
                f,
                "{what} name '{shown}' contains {c:?}; allowed are ASCII letters, digits, '-', '_' and '.'"
            ),
            NameFault::Reserved => {
                write!(f, "{what} name '{shown}' is a word of the command language; choose another")
            }
        }
    }
}

impl std::error::Error for NameError {}

/// Words that may stand in place of a name in a command; no service may have such a name.
const RESERVED: &[&str] = &["all", "worker", "workers", "service", "services", "host"];

fn check(what: &'static str, given: &str) -> Result<(), NameError> {
    let fault = |why| Err(NameError { what, given: given.to_owned(), why });
    let Some(first) = given.chars().next() else { return fault(NameFault::Empty) };
    if given.len() > NAME_BYTES_MAX {
        return fault(NameFault::TooLong(given.len()));
    }
    if !first.is_ascii_alphabetic() {
        return fault(NameFault::Start(first));
    }
    if let Some(c) =
        given.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_' | '.'))
    {
        return fault(NameFault::Letter(c));
    }
    if RESERVED.contains(&given) {
        return fault(NameFault::Reserved);
    }
    Ok(())
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident, $what:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the spelling.
            ///
            /// # Errors
            /// Says which rule the text breaks.
            pub fn new(given: &str) -> Result<Self, NameError> {
                check($what, given)?;
                Ok(Self(Arc::from(given)))
            }

            /// The name as text: 1 to `NAME_BYTES_MAX` bytes of ASCII.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    )*};
}

names! {
    /// The name of a service.
    ServiceName, "service";
    /// The name of a host, that is of a machine with an execd.
    HostName, "host";
    /// The name of a token, which is its entry's name in a token file.
    TokenName, "token";
}

impl ServiceName {
    /// The name of the operator's service, `op`.
    pub fn op() -> Self {
        Self(Arc::from(OP_SERVICE))
    }

    /// The name of the service for clients that only publish, subscribe or announce, `bus`.
    pub fn bus() -> Self {
        Self(Arc::from(BUS_SERVICE))
    }

    /// Whether this is the operator's service.
    pub fn is_op(&self) -> bool {
        &*self.0 == OP_SERVICE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_at_the_limit_passes_and_one_over_fails() {
        assert!(ServiceName::new(&"a".repeat(NAME_BYTES_MAX)).is_ok());
        let error = ServiceName::new(&"a".repeat(NAME_BYTES_MAX + 1)).unwrap_err().to_string();
        assert!(error.contains("33 bytes; at most 32"), "{error}");
    }

    #[test]
    fn bad_names_say_what_is_wrong_with_them() {
        for (given, part) in [
            ("", "is empty"),
            ("7up", "begins with '7'"),
            ("a b", "contains ' '"),
            ("a\nb", "contains '\\n'"),
            ("é", "begins with 'é'"),
            ("all", "a word of the command language"),
        ] {
            let error = ServiceName::new(given).unwrap_err().to_string();
            assert!(error.contains(part), "{given:?}: {error}");
        }
        assert!(HostName::new("local-host.example_1").is_ok());
    }
}
