//! Fuzzes texts from outside that are no frames: execd's file of children, a worker's file of
//! variables, the broker's configuration, the token file, tokens, addresses. Laws: reading never panics; a value that was
//! read and written can be read again; an accepted configuration is saved in a form that is
//! accepted again.

use super::broker::player::check_save;
use super::source::Source;
use auth::list::{self, TokenList};
use auth::token::Token;
use broker::engine::input::{Input, Listening};
use broker::engine::origin::Origin;
use broker::engine::{Engine, EngineOptions};
use client::address::Address;
use execd::os::{setting_files, state_dir};
use protocol::names::TokenName;
use protocol::time::Tick;

/// A text as each of them; the first byte says as which.
pub fn files(data: &[u8]) {
    let mut source = Source::new(data);
    let which = source.byte();
    let Ok(text) = str::from_utf8(source.rest()) else { return };
    match which % 8 {
        0 => children(text),
        1 => tokens(text),
        2 => token(text),
        3 => address(text),
        4 => variables(text),
        _ => configuration(text),
    }
}

fn children(text: &str) {
    let boot = "boot";
    let (same, other) = (state_dir::count(text, boot), state_dir::count(text, "another"));
    assert_eq!(same.is_ok(), other.is_ok(), "whether it is read depends on the boot");
}

fn tokens(text: &str) {
    let name = TokenName::new("ops").expect("a name");
    let is_list = TokenList::parse(text).is_ok();
    match list::without_line(text, &name) {
        Ok(without) => {
            assert!(is_list, "no token file, and one without a token");
            assert!(TokenList::parse(&without).is_ok(), "{without:?}");
            assert!(list::without_line(&without, &name).is_err(), "still there: {without:?}");
        }
        Err(why) => assert!(!why.is_empty()),
    }
}

fn token(text: &str) {
    match Token::parse(text) {
        Ok(token) => {
            let shown = token.reveal();
            let again = Token::parse(&shown).expect("a token that was shown is one");
            assert_eq!(*again.reveal(), *shown);
            assert_eq!(*shown, text.trim());
        }
        // A secret is not shown, whatever is wrong with it. The name is, whatever it looks like.
        Err(why) => {
            let text = text.trim();
            let (name, secret) = text.rsplit_once('.').unwrap_or(("", text));
            let shown = why.replace(name, "");
            assert!(secret.len() < 12 || !shown.contains(secret), "{why}");
        }
    }
}

fn address(text: &str) {
    if let Ok(address) = Address::parse(text) {
        let written = address.to_string();
        assert_eq!(Address::parse(&written).ok(), Some(address), "{text:?} as {written:?}");
    }
}

fn variables(text: &str) {
    match setting_files::names(text) {
        Ok(names) => {
            let own = ["ISECT_RUN", "ISECT_WORKER_SECRET"];
            let is_bad = |name: &&String| name.starts_with("LD_") || own.contains(&name.as_str());
            assert_eq!(names.iter().find(is_bad), None);
        }
        Err(why) => assert!(why.contains("line "), "{why}"),
    }
}

fn configuration(text: &str) {
    let mut engine = Engine::new(EngineOptions::default());
    let listening = Listening { execd: Some("unix:/x/execd".into()), ..Listening::default() };
    engine.step(Tick(0), Input::Listening(Box::new(listening)), &mut Vec::new());
    let origin = Origin::File("fuzz".into());
    engine.step(Tick(0), Input::Script { origin, text: text.to_owned() }, &mut Vec::new());
    engine.check_all().unwrap_or_else(|law| panic!("{law}"));
    check_save(&engine, true);
}
