//! Fuzzes operator commands. Laws: parsing never panics; a parsed command, written and parsed
//! again, is the same; a script equals its lines.

use protocol::op::parse::{parse, parse_bytes, parse_script, quote};

/// A text: as one command, as a script, as a word to be quoted.
pub fn command(data: &[u8]) {
    if let Ok(request) = parse_bytes(data) {
        let written = request.to_string();
        match parse(&written) {
            Ok(read) => {
                assert_eq!(read, request, "{written}");
                assert_eq!(read.to_string(), written);
            }
            Err(error) => panic!("{request:?} is written as {written}: {error}"),
        }
    }
    let Ok(text) = str::from_utf8(data) else { return };
    if text.contains('\n') {
        for (number, line) in parse_script(text) {
            assert!(number >= 1 && number <= text.lines().count());
            assert!(!line.is_empty() && !line.contains('\n'));
            let _ = parse(line);
        }
    } else {
        word(text);
    }
}

/// A word that a command may contain is quoted and read back.
fn word(text: &str) {
    let is_sayable = !text.chars().any(|c| c.is_control() && c != '\t');
    let command = format!("config worker echo h1 /x {}", quote(text));
    match (parse(&command), is_sayable) {
        (Ok(request), true) => {
            let again = parse(&request.to_string()).expect("what was written is read");
            assert_eq!(again, request);
        }
        (Err(error), true) => assert!(error.text.contains("bytes"), "{command}: {error}"),
        (Ok(request), false) => panic!("{command:?} is understood as {request:?}"),
        (Err(_), false) => {}
    }
}
