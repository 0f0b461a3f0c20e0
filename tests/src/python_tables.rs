//! The tables of the protocol as a module of the Python library, so that no number is typed twice.

use protocol::errors::{ERRORS, Retry};
use protocol::kinds::KINDS;
use protocol::limits;
use std::fmt::Write as _;

const HEAD: &str = r#""""The tables of the protocol: kinds of frames, errors, limits.

Made from the tables of the crate `protocol` (`UPDATE=1 cargo fresh`); do not edit.
"""

from typing import Final, NamedTuple


class ErrorRow(NamedTuple):
    """One row of the table of errors (docs/errors.md)."""

    number: int
    name: str
    whose: str
    ran: str
    closes: bool
    #: Whether asking again can help: `never`, `soon` or `later`.
    retry: str
    text: str
    advice: str


"#;

/// The text of `client/python/src/isect/_tables.py`.
pub fn module() -> String {
    let mut out = HEAD.to_owned();
    let numbers = [
        ("HEADER_BYTES", limits::HEADER_BYTES as u64),
        ("VERSION", limits::VERSION.into()),
        ("CONTROL_BODY_BYTES_MAX", limits::CONTROL_BODY_BYTES_MAX as u64),
        ("BODY_BYTES_DEFAULT", limits::BODY_BYTES_DEFAULT as u64),
        ("BODY_BYTES_MAX", limits::BODY_BYTES_MAX as u64),
        ("NAME_BYTES_MAX", limits::NAME_BYTES_MAX as u64),
        ("VALUE_BYTES_MAX", limits::VALUE_BYTES_MAX as u64),
        ("LINES_MAX", limits::LINES_MAX as u64),
        ("CONCURRENCY_MAX", limits::CONCURRENCY_MAX.into()),
        ("DEADLINE_MS_MAX", limits::DEADLINE_MS_MAX),
        ("PRIORITY_DEFAULT", limits::PRIORITY_DEFAULT.into()),
        ("CLIENT_PORT", limits::CLIENT_PORT.into()),
        ("ISDARGMAX", limits::ISDARGMAX as u64),
    ];
    for (name, value) in numbers {
        let _ = writeln!(out, "{name}: Final = {value}");
    }
    let words = [
        ("INTERVENTION", String::from_utf8_lossy(limits::INTERVENTION).into_owned()),
        ("OP_SERVICE", limits::OP_SERVICE.to_owned()),
        ("BUS_SERVICE", limits::BUS_SERVICE.to_owned()),
        ("WORKER_SECRET_VARIABLE", limits::WORKER_SECRET_VARIABLE.to_owned()),
        ("HOST_VARIABLE", limits::HOST_VARIABLE.to_owned()),
        ("TOKEN_VARIABLE", limits::TOKEN_VARIABLE.to_owned()),
        ("TOKEN_FILE_VARIABLE", limits::TOKEN_FILE_VARIABLE.to_owned()),
        ("CA_VARIABLE", limits::CA_VARIABLE.to_owned()),
        ("CERT_VARIABLE", limits::CERT_VARIABLE.to_owned()),
        ("KEY_VARIABLE", limits::KEY_VARIABLE.to_owned()),
    ];
    for (name, value) in words {
        let _ = writeln!(out, "{name}: Final = {}", quoted(&value));
    }
    out.push('\n');
    for row in KINDS {
        let name = row.name.to_uppercase().replace('-', "_");
        let _ = writeln!(out, "{name}: Final = {}", row.number);
    }
    out.push_str(
        "\n#: Names of the kinds of frames, by number.\nKINDS: Final[dict[int, str]] = {\n",
    );
    for row in KINDS {
        let _ = writeln!(out, "    {}: {},", row.number, quoted(row.name));
    }
    out.push_str("}\n\n#: The errors that isect itself makes, by number.\n");
    out.push_str("ERRORS: Final[dict[int, ErrorRow]] = {\n");
    for row in ERRORS {
        let retry = match row.retry {
            Retry::Never => "never",
            Retry::Soon => "soon",
            Retry::Later => "later",
        };
        let closes = if row.closes { "True" } else { "False" };
        let (number, name) = (row.number, quoted(row.name));
        let (whose, ran, retry) = (quoted(row.whose.word()), quoted(row.ran.word()), quoted(retry));
        let _ = writeln!(out, "    {number}: ErrorRow(");
        let _ = writeln!(out, "        {number}, {name}, {whose}, {ran}, {closes}, {retry},");
        let _ = writeln!(out, "        {},", quoted(row.text));
        let _ = writeln!(out, "        {},", quoted(row.advice));
        out.push_str("    ),\n");
    }
    out + "}\n"
}

/// A Python literal of a text.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
