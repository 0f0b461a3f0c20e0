//! The variables of a case, and what a value is compared with.

use std::collections::BTreeMap;

/// Names and values that a case has met.
#[derive(Clone, Debug, Default)]
pub(super) struct Variables(BTreeMap<String, String>);

impl Variables {
    pub(super) fn set(&mut self, name: &str, value: String) {
        self.0.insert(name.to_owned(), value);
    }

    /// The text with the values of `${name}` in it; a text that is `$name` is that value.
    ///
    /// # Errors
    /// A variable has no value.
    pub(super) fn fill(&self, text: &str) -> Result<String, String> {
        let of = |name: &str| {
            let known = self.0.get(name).cloned();
            known.ok_or_else(|| format!("the variable '{name}' has no value"))
        };
        if let Some(name) = name_of(text) {
            return of(name);
        }
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            out += before;
            let (name, after) = after.split_once('}').ok_or("'${' without '}'")?;
            out += &of(name)?;
            rest = after;
        }
        Ok(out + rest)
    }

    /// Whether a value is as it is to be. `_` is any value, `a|b` one of several, `1..9` a number
    /// between these; a variable that has no value takes it.
    ///
    /// # Errors
    /// Why it is not.
    pub(super) fn compare(&mut self, wanted: &str, value: &str) -> Result<(), String> {
        if wanted == "_" {
            return Ok(());
        }
        if let Some(name) = name_of(wanted)
            && !self.0.contains_key(name)
        {
            self.set(name, value.to_owned());
            return Ok(());
        }
        let filled = self.fill(wanted)?;
        if filled == value || filled.split('|').any(|one| is_in(one, value)) {
            return Ok(());
        }
        Err(match filled == wanted {
            true => format!("{value}, expected {wanted}"),
            false => format!("{value}, expected {wanted}, which is {filled}"),
        })
    }
}

/// The name of `$name`.
fn name_of(text: &str) -> Option<&str> {
    let name = text.strip_prefix('$')?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    (!name.is_empty() && name.chars().all(is_name)).then_some(name)
}

fn is_in(wanted: &str, value: &str) -> bool {
    let range = wanted.split_once("..");
    let range = range.and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    match (range, value.parse::<i128>()) {
        (Some((first, last)), Ok(number)) => (first..=last).contains(&number),
        (Some(_) | None, _) => wanted == value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_compared_with_a_range_a_choice_or_a_variable() {
        let mut all = Variables::default();
        for (wanted, value, is_right) in [
            ("_", "anything", true),
            ("1..9", "9", true),
            ("1..9", "10", false),
            ("-9..-1", "-5", true),
            ("a|b", "b", true),
            ("a|b", "c", false),
            ("0|5..7", "6", true),
            ("$s", "17", true),
            ("$s", "17", true),
            ("$s", "18", false),
            ("x${s}y", "x17y", true),
            ("${t}", "1", false),
        ] {
            assert_eq!(all.compare(wanted, value).is_ok(), is_right, "{wanted}: {value}");
        }
        assert_eq!(all.fill("${s}00"), Ok("1700".to_owned()));
        assert!(all.fill("$t").is_err());
    }
}
