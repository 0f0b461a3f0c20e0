//! Tests who may be an operator: the broker's own user and root, as the kernel reports them, also
//! over a loopback port that every user of the machine can reach.

use isect_tests::other_user::{self, OTHER_USER};
use isect_tests::proc::Broker;

#[test]
fn another_user_of_the_machine_is_a_client_but_no_operator() {
    if !other_user::can_be() {
        return;
    }
    let broker = Broker::start(&[]);
    broker.with_workers("echo", "isdecho", 1);
    let refused = other_user::isdclient(&broker, None, &["-c", "halt"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{text}");
    assert!(text.contains("denied") && text.contains(&OTHER_USER.to_string()), "{text}");
    let served = other_user::isdclient(&broker, None, &["-c", "hello", "echo"]);
    assert_eq!(served.stdout, b"hello", "{}", String::from_utf8_lossy(&served.stderr));
    // The owner is an operator, over the same port, and the lists name its user.
    assert!(broker.op("services").contains("echo"));
    assert_eq!(broker.end(), 0);
}
