//! The table of built-in services as the page about them shows it.

use broker::engine::builtin::BUILT_IN;
use protocol::ids::BUILTIN_IDS;
use std::fmt::Write as _;

/// The table of docs/builtin.md.
pub fn page() -> String {
    let mut out = String::from(
        "| service | id | runs | its rights | its settings | what it does |\n\
         | --- | --- | --- | --- | --- | --- |\n",
    );
    for (row, id) in BUILT_IN.iter().zip(BUILTIN_IDS..) {
        let rights: Vec<String> = row.rights.iter().map(|role| format!("`{role}`")).collect();
        let settings = row.settings.iter().map(|(setting, value)| {
            let row = setting.row();
            format!("`{}={}`", row.name, row.written(*value))
        });
        let settings: Vec<String> = settings.collect();
        let _ = writeln!(
            out,
            "| `{}` | {id} | {} | {} | {} | {} |",
            row.name,
            row.begins(),
            rights.join(", "),
            settings.join(", "),
            row.text
        );
    }
    out
}
