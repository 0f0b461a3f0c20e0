//! Tests who may give which command, on an engine: every row of the operator's table × every role.
//! The table's `effect` decides, so a new row is covered without a change here.

use broker::engine::input::{Input, Peer, TokenRights, Tokens};
use isect_tests::script::world::World;
use protocol::bodies::Login;
use protocol::errors::ErrorCode;
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::ids::LinkId;
use protocol::names::{ServiceName, TokenName};
use protocol::op::parse;
use protocol::op::spec::Effect;
use protocol::op::table::COMMANDS;
use protocol::proof::{Claim, Proof};
use protocol::rights::Rights;

use broker::engine::action::Action;
use broker::engine::{Engine, EngineOptions};
use protocol::time::Tick;

const LINK: LinkId = LinkId { index: 3, generation: 0 };

/// Roles of a token, and the strongest effect that its commands may have; those that have the mark
/// for it are allowed to the role for releases, too.
const ROLES: &[(&str, Option<Effect>)] = &[
    ("", None),
    ("client:*", None),
    ("client:echo", None),
    ("worker:*", None),
    ("host", None),
    ("client:* worker:* host", None),
    ("operator:read", Some(Effect::Read)),
    ("operator:change", Some(Effect::Change)),
    ("operator:danger", Some(Effect::Danger)),
    ("operator:deploy", Some(Effect::Read)),
    ("client:* operator:read", Some(Effect::Read)),
];

fn step(engine: &mut Engine, input: Input) -> Vec<Action> {
    let mut out = Vec::new();
    engine.step(Tick(1), input, &mut out);
    out
}

fn error_of(actions: &[Action]) -> Option<ErrorCode> {
    actions.iter().find_map(|action| match action {
        Action::Send { link, frame: Frame::Error { error, .. } } if *link == LINK => {
            Some(error.code)
        }
        _ => None,
    })
}

/// A broker with one token of these roles, and what it answers to a login to `op` with it.
fn engine(roles: &str) -> (Engine, Vec<Action>) {
    let mut engine = Engine::new(EngineOptions::default());
    let mut rights = Rights::default();
    roles.split_whitespace().for_each(|role| rights.add(role).expect("a role"));
    let name = TokenName::new("t").expect("a name");
    let tokens = [(name.clone(), TokenRights { rights, stamp: 1 })].into();
    let tokens = Tokens { tokens, ..Tokens::default() };
    step(&mut engine, Input::TokensRead { requester: None, tokens: Ok(Box::new(tokens)) });
    // The peer is the owner, too, but the token counts.
    let peer = Peer { address: "192.0.2.9:1".into(), is_owner: true, ..Peer::default() };
    step(&mut engine, Input::ClientOpened { link: LINK, peer });
    let claim = Some(Claim { token: name, nonce: vec![0; 16] });
    let login = Login { token: claim, ..Login::to(ServiceName::op()) };
    step(&mut engine, Input::Login { link: LINK, login: Box::new(login) });
    let proof = Box::new(Proof { proof: [0; 32], channel: None });
    step(&mut engine, Input::Proof { link: LINK, proof });
    let said = step(&mut engine, Input::Proven { link: LINK, proven: Ok("00".into()) });
    (engine, said)
}

#[test]
fn every_command_is_for_those_whose_role_allows_its_effect() {
    let mut checked = 0;
    for (roles, most) in ROLES {
        let (_, said) = engine(roles);
        assert_eq!(error_of(&said), most.is_none().then_some(ErrorCode::Denied), "'{roles}'");
        if most.is_none() {
            continue;
        }
        for row in COMMANDS {
            let (mut engine, _) = engine(roles);
            let request = parse::parse(row.example).expect("an example is understood");
            let head = Header { sequence: 7, reply: 1, ..Header::default() };
            let body = row.example.as_bytes().to_vec().into();
            let said = step(&mut engine, Input::Request { link: LINK, head, body });
            let is_denied = error_of(&said) == Some(ErrorCode::Denied);
            let is_for_it = row.deploy && *roles == "operator:deploy";
            let is_wrong = *most < Some(request.effect()) && !is_for_it;
            assert_eq!(is_denied, is_wrong, "'{roles}': {}", row.example);
            let facts = said.iter().filter(|action| match action {
                Action::Record(fact) => {
                    fact.kind == broker::engine::fact::FactKind::Refused
                        && fact.about.who.as_ref().is_some_and(|who| who.contains("token t"))
                        && fact.text.contains("operator:")
                }
                _ => false,
            });
            assert_eq!(facts.count(), usize::from(is_denied), "a refusal is remembered");
            let changed = said.iter().any(|action| matches!(action, Action::Store { .. }));
            assert!(!(is_denied && changed), "'{roles}': {} was done", row.example);
            checked += 1;
        }
    }
    assert_eq!(checked, 5 * COMMANDS.len());
}

#[test]
fn without_tokens_the_owner_may_everything_and_others_only_ask_services() {
    for is_owner in [true, false] {
        let peer = World::peer(LINK, is_owner);
        let mut engine = Engine::new(EngineOptions::default());
        step(&mut engine, Input::ClientOpened { link: LINK, peer });
        let login = Box::new(Login::to(ServiceName::op()));
        let said = step(&mut engine, Input::Login { link: LINK, login });
        assert_eq!(error_of(&said), (!is_owner).then_some(ErrorCode::Denied));
    }
}
