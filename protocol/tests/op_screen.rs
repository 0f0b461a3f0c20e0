//! Tests of tables on terminals: only an overlong name is cut, and wide characters keep the columns
//! aligned.

use protocol::op::reply::{Align, Block, Column, OpReply, Value};

fn column(title: &'static str, align: Align) -> Column {
    Column { title, key: title, width: 12, align }
}

fn table(names: &[&str]) -> OpReply {
    let columns =
        vec![column("name", Align::Right), column("id", Align::Right), column("text", Align::Left)];
    let row = |name: &&str| {
        let words = "some words that flow on and on".to_owned();
        vec![Value::Text((*name).to_owned()), Value::Number(7), Value::Text(words)]
    };
    let rows = names.iter().map(row).collect();
    OpReply::block(Block::Table { name: "x", title: String::new(), columns, rows })
}

#[test]
fn a_long_name_is_cut_on_a_terminal_and_nowhere_else() {
    let long = "n".repeat(200);
    let reply = table(&["a", &long]);
    for columns in [40, 80, 120] {
        let text = reply.screen(columns);
        assert!(text.contains('…') && !text.contains(&long), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= columns.into()), "{text}");
        assert!(text.lines().any(|line| line.ends_with("on and on")), "{text}");
    }
    assert!(reply.text().contains(&long));
    assert!(reply.screen(400).contains(&long));
    assert_eq!(table(&["a"]).screen(80), table(&["a"]).text());
}

#[test]
fn wide_characters_keep_the_columns_straight() {
    let text = table(&["日本", "ab", "e\u{301}"]).text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[1].find('7'), Some(23 + 2), "{text}");
    assert_eq!(lines[2].find('7'), Some(23), "{text}");
    assert_eq!(lines[3].find('7'), Some(23 + 2), "{text}");
}

#[test]
fn a_record_flows_at_its_blanks_on_a_terminal_and_nowhere_else() {
    let reason = "it ended five times before it was ready, and never logged in to the broker";
    let fields = vec![("id", Value::Number(7)), ("reason", Value::Text(reason.to_owned()))];
    let record = Block::Record { name: "worker", prefix: "worker->", width: 0, fields };
    let reply = OpReply::block(record);
    let text = reply.screen(40);
    assert!(text.starts_with("worker->id = 7\nworker->reason = \"it ended five\n    "), "{text}");
    assert!(text.lines().all(|line| line.len() <= 40), "{text}");
    assert!(reply.text().contains(reason));
}
