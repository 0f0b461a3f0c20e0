//! Tests of answers as text, as the manual prints it, against goldens.

use bytes::Bytes;
use protocol::op::reply::{Align, Block, Column, OpReply, Value};

fn column(title: &'static str, width: usize, align: Align) -> Column {
    Column { title, key: title, width, align }
}

fn services() -> OpReply {
    let row = |name: &str, id| vec![Value::Text(name.into()), Value::Number(id)];
    OpReply::block(Block::Table {
        name: "services",
        title: String::new(),
        columns: vec![column("service", 32, Align::Right), column("id", 12, Align::Right)],
        rows: vec![row("eat", 3), row("echo", 2), row("op", 1)],
    })
}

#[test]
fn services_come_out_as_in_the_manual() {
    assert_eq!(
        services().text(),
        "                         service          id\n\
         \u{20}                            eat           3\n\
         \u{20}                           echo           2\n\
         \u{20}                             op           1\n"
    );
}

#[test]
fn the_status_page_comes_out_as_in_the_manual() {
    let page = OpReply::block(Block::Record {
        name: "isdData",
        prefix: "isdData.",
        width: 24,
        fields: vec![
            ("configfile", Value::Text(String::new())),
            ("host", Value::Text("isect".into())),
            ("ServiceList", Value::Number(3)),
            ("command_worker", Value::Text("op".into())),
            ("Buckets", Value::Numbers(vec![0, 0, 0, 0, 0, 0])),
        ],
    });
    assert_eq!(
        page.text(),
        "isdData.configfile       = \"\"\n\
         isdData.host             = \"isect\"\n\
         isdData.ServiceList      = 3\n\
         isdData.command_worker   = \"op\"\n\
         isdData.Buckets          = 0  0  0  0  0  0\n"
    );
}

#[test]
fn a_record_of_a_worker_comes_out_as_in_the_manual() {
    let page = OpReply::block(Block::Record {
        name: "worker",
        prefix: "worker->",
        width: 0,
        fields: vec![
            ("id", Value::Number(1)),
            ("name", Value::Text("echo".into())),
            ("state", Value::Word("idle")),
            ("client", Value::None),
            ("stderr", Value::Texts(vec!["one".into(), "two \u{1b}[31m".into()])),
            ("lines", Value::Texts(vec![])),
            ("up", Value::Micros(1_204_000)),
        ],
    });
    assert_eq!(
        page.text(),
        "worker->id = 1\n\
         worker->name = \"echo\"\n\
         worker->state = idle\n\
         worker->client =\n\
         worker->stderr = \"one\"\n\
         worker->stderr = \"two \\u{1b}[31m\"\n\
         worker->lines =\n\
         worker->up = 1.204 s\n"
    );
}

#[test]
fn a_line_stays_one_line() {
    assert_eq!(OpReply::ok().text(), "Ok.\n");
    let line = |id: i64, name: &str| Block::Line {
        name: "paused",
        text: format!("paused worker->id = {id}, worker->name = {name}"),
        fields: vec![("id", Value::Number(id.into())), ("name", Value::Text(name.into()))],
    };
    let reply = OpReply { blocks: vec![line(2, "eat"), line(1, "echo")] };
    assert_eq!(
        reply.text(),
        "paused worker->id = 2, worker->name = eat\npaused worker->id = 1, worker->name = echo\n"
    );
    let plain = OpReply::line("events", "nothing\nwas \u{7}done", vec![]);
    assert_eq!(plain.text(), "nothing\\nwas \\u{7}done\n");
}

#[test]
fn a_table_grows_with_its_content_and_has_no_trailing_blanks() {
    let reply = OpReply::block(Block::Table {
        name: "hosts",
        title: "HOSTS".into(),
        columns: vec![
            column("host", 6, Align::Left),
            column("n", 3, Align::Right),
            column("text", 5, Align::Left),
        ],
        rows: vec![
            vec![Value::Text("a".into()), Value::Number(123_456), Value::Text("x".into())],
            vec![Value::Text("longer-name".into()), Value::Number(7), Value::None],
        ],
    });
    assert_eq!(
        reply.text(),
        "HOSTS\n\
         host              n  text\n\
         a            123456  x\n\
         longer-name       7\n"
    );
    let empty = Block::Table {
        name: "t",
        title: String::new(),
        columns: vec![column("id", 0, Align::Right)],
        rows: vec![],
    };
    assert_eq!(OpReply::block(empty).text(), "id\n");
}

#[test]
fn a_dump_is_a_hex_dump() {
    let whole = Block::Dump { name: "last", size: 3, bytes: Bytes::from_static(b"h\n\xff") };
    assert_eq!(
        OpReply::block(whole).text(),
        "00000000  68 0a ff                                          |h..|\n00000003\n"
    );
    let part = Block::Dump { name: "last", size: 9000, bytes: Bytes::from_static(b"h") };
    assert!(OpReply::block(part).text().ends_with("the first 1 of 9000 bytes are shown\n"));
}

#[test]
fn parts_of_several_lines_are_parted_by_a_blank_line() {
    let mut reply = services();
    reply.blocks.insert(0, OpReply::line("events", "before", vec![]).blocks.remove(0));
    reply.blocks.extend(services().blocks);
    reply.blocks.push(Block::Text { name: "note2", text: "a\tb  \n\u{1b}c".into() });
    let text = reply.text();
    assert!(text.starts_with("before\n                  "), "{text}");
    assert_eq!(text.matches("\n\n").count(), 2, "{text}");
    assert!(text.ends_with("\n\na\tb\n\\u{1b}c\n"), "{text}");
    assert_eq!(OpReply::default().text(), "");
}
