//! Lists of the variants of an enum that the compiler holds to be whole.

/// An array of values of an enum: `all_variants![State: Up, Waiting(7), Ended { code: 1 }]`. It
/// doesn't compile if a variant is missing; a variant may stand there twice, with other values.
#[macro_export]
macro_rules! all_variants {
    ($name:ident:
        $($variant:ident $(($($value:expr),*))? $({ $($field:ident: $of:expr),* })?),*
    ) => {{
        #[allow(unreachable_patterns, reason = "a variant may stand there twice")]
        const fn is_whole(value: &$name) {
            match value {
                $($name::$variant { .. } => {})*
            }
        }
        let all = [$($name::$variant $(($($value),*))? $({ $($field: $of),* })?),*];
        all.iter().for_each(is_whole);
        all
    }};
}

#[cfg(test)]
mod tests {
    #[test]
    fn values_of_all_kinds_of_variants_stand_as_they_were_given() {
        #[derive(Debug, PartialEq)]
        enum Any {
            Unit,
            Tuple(u8, u8),
            Fields { a: u8 },
        }
        let all = all_variants![Any: Fields { a: 1 }, Unit, Tuple(2, 3), Fields { a: 4 }];
        assert_eq!(all, [Any::Fields { a: 1 }, Any::Unit, Any::Tuple(2, 3), Any::Fields { a: 4 }]);
    }
}
