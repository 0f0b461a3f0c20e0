//! Tests the examples of a token login in `docs/protocol.md`: their values equal those of other
//! implementations, and their bytes are encoded and decoded as printed.

use isect_tests::{docs, proof};
use protocol::decode::Limits;
use protocol::encode;
use protocol::frame_reader::Inbox;
use protocol::show::digits;

/// Values computed by argon2-cffi and by Python's hmac and hashlib.
const KNOWN: &[(&str, &str)] = &[
    ("Argon2id", "7ccc605e420bcbe9706d3fda8bf7405e78f74700a250e1e54817824d9a35d8c5"),
    ("client key", "4189d30d792f79408dca7f3d8018bbf81fa7dccc81ff2cd14609c6b8584f5548"),
    ("stored key", "90cbb8827eb85cdfbf3b55c05344173fb44fc38fdff5368a1362efcc41a5103e"),
    ("server key", "b03dd69ec6cde5d5a7df66bb672ab5d35811e4c64d42cf94801ff0af430bf516"),
    ("proof", "4f07288dcfece426f9eb61c4fb2412d4e078364e228848c11954bd0328aea2de"),
    ("signature", "515025c45df367f21e941e67180c20aeaff37bba62dc3f94338cfa6ee8ae0df4"),
];

/// The same over TLS: values computed by Python's hmac and hashlib; the hash also by OpenSSL
/// (`openssl x509 -fingerprint -sha384`).
const KNOWN_END_POINT: &[(&str, &str)] = &[
    (
        "SHA-384",
        "2d9f15f712f3b099a85c3185511704286b6dbbf79106143236da0abd52590507b5afd2d6b254df01349cf2d62a8a5d73",
    ),
    ("proof", "198332ccd70696542102164f1cc8208771244f49477547937948f71ba1583d7e"),
    ("signature", "8c909c394a9857ab40a1637c5277e6160f0447787cac216cc903986454904392"),
];

#[test]
fn the_values_are_those_of_other_implementations() {
    for (example, known) in
        [(proof::example(), KNOWN), (proof::end_point_example(), KNOWN_END_POINT)]
    {
        assert_eq!(example.values.len(), known.len());
        for ((name, value), known) in example.values.iter().zip(known) {
            assert_eq!((*name, digits(value).as_str()), *known);
        }
    }
}

/// The bytes of each hex dump in the example of this name.
fn dumps(page: &str, name: &str) -> Vec<Vec<u8>> {
    let (_, part) = page.split_once(&format!("<!-- made: {name} -->")).expect("the example");
    let (part, _) = part.split_once("<!-- end -->").expect("its end");
    let mut dumps: Vec<Vec<u8>> = Vec::new();
    for line in part.lines() {
        if line.starts_with("# ") {
            dumps.push(Vec::new());
        }
        // A line has an offset, two spaces, sixteen bytes, and their ASCII.
        let Some((code, _)) = line.split_once("  |") else { continue };
        let bytes = code.split_whitespace().skip(1);
        let bytes = bytes.map(|byte| u8::from_str_radix(byte, 16).expect("a byte"));
        dumps.last_mut().expect("a note before it").extend(bytes);
    }
    dumps
}

#[test]
fn the_bytes_of_the_document_are_the_frames_of_the_examples() {
    let path = docs::root().join("docs/protocol.md");
    let page = std::fs::read_to_string(path).expect("the document");
    for (name, example) in [("proof", proof::example()), ("end-point", proof::end_point_example())]
    {
        let (frames, dumps) = (example.frames, dumps(&page, name));
        assert_eq!(dumps.len(), frames.len());
        for ((note, frame), bytes) in frames.into_iter().zip(dumps) {
            assert_eq!(encode::to_bytes(frame.clone()), bytes, "{note}");
            let read = Inbox::of(Limits::default(), &bytes).next_frame().expect("a frame");
            assert_eq!(read, Some(frame), "{note}");
        }
    }
}
