//! Explains errors of a TLS connection in words that name the cure, and recognises the first bytes
//! of a connection.

use crate::session::Fault;
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

/// The side of a connection that this program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// This program accepted the connection.
    Listener,
    /// This program opened the connection.
    Caller,
}

/// Whether bytes at a port without TLS begin a TLS connection: a handshake record of version 3. As
/// the header of a frame they would announce 350 MiB, so no frame begins like that.
pub fn is_hello(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x16, 0x03])
}

/// The error text for a program that begins TLS at a port without it.
pub const HELLO_AT_PLAIN: &str = "a TLS connection was begun at a port that speaks no TLS; leave \
    out 'tls://', or name the port that has it";

/// Whether the first byte of a connection belongs to a frame. A frame begins with its length, most
/// significant byte first; no TLS record begins like that.
pub(crate) fn is_plain(first: u8, side: Side) -> bool {
    match side {
        Side::Listener => first == 0,
        Side::Caller => !(0x14..=0x18).contains(&first),
    }
}

pub(crate) fn fault_text(fault: &Fault, side: Side) -> String {
    match (fault, side) {
        (Fault::Plain, Side::Listener) => {
            "this port speaks TLS; connect to tls://HOST:PORT, with the CA's certificate in \
             ISECT_CA"
                .to_owned()
        }
        (Fault::Plain, Side::Caller) => {
            "no TLS is spoken at that port; leave out 'tls://', or name the port that has it"
                .to_owned()
        }
        (Fault::Tls(error), side) => of_error(error, side),
    }
}

fn of_error(error: &Error, side: Side) -> String {
    match error {
        Error::InvalidCertificate(why) => certificate(why, side),
        Error::AlertReceived(alert) => alert_text(*alert, side),
        Error::NoCertificatesPresented => {
            "the other side sent no certificate, and this port wants one; give it one with \
             ISECT_CERT and ISECT_KEY"
                .to_owned()
        }
        Error::PeerIncompatible(why) => {
            format!("no common TLS version or cipher ({why:?}); TLS 1.2 and 1.3 are spoken here")
        }
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "what came is no TLS; see what is connected there".to_owned()
        }
        Error::DecryptError => "what came was changed on its way, or is no TLS".to_owned(),
        other => format!("TLS failed: {other}"),
    }
}

fn certificate(why: &CertificateError, side: Side) -> String {
    let whose = match side {
        Side::Listener => "the other side's certificate",
        Side::Caller => "the certificate shown there",
    };
    match why {
        // rustls reports this if a CA of the same name, but with another key, is known.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            let file = match side {
                Side::Listener => "the file of the client CA",
                Side::Caller => "the file of the CA (ISECT_CA)",
            };
            format!("{whose} is not signed by a CA of {file}; use one that is, or the right file")
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            format!("{whose} has expired; make a new one (or set the clock)")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!("{whose} is not valid yet; set the clock, here or where it was made")
        }
        CertificateError::NotValidForName => {
            format!("{whose} is for another name; dial by a name in it, or make one for this name")
        }
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "{whose} is not for {}, only for {}; dial by a name in it, or make one for this name",
            expected.to_str(),
            if presented.is_empty() { "no name".to_owned() } else { presented.join(", ") }
        ),
        CertificateError::Revoked => format!("{whose} was revoked; use another one"),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            format!("{whose} is not for this side; its extended key usage must allow it")
        }
        CertificateError::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            format!(
                "{whose} is that of a CA itself; sign one with it, or make it with \
                 basicConstraints=CA:FALSE"
            )
        }
        other => format!("{whose} is not accepted: {other}; make a new one, as docs/tls.md shows"),
    }
}

fn alert_text(alert: AlertDescription, side: Side) -> String {
    let (whose, other) = match side {
        Side::Listener => ("this side's", "program that connected"),
        Side::Caller => ("this side's", "listener"),
    };
    match alert {
        AlertDescription::CertificateRequired => {
            "the port wants a certificate of this side; give one with ISECT_CERT and ISECT_KEY"
                .to_owned()
        }
        AlertDescription::UnknownCA => {
            format!("the {other} does not know the CA of {whose} certificate")
        }
        AlertDescription::CertificateExpired => {
            format!("the {other} says that {whose} certificate has expired; make a new one")
        }
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::AccessDenied
        | AlertDescription::DecryptError => {
            format!("the {other} does not accept {whose} certificate ({alert:?})")
        }
        AlertDescription::ProtocolVersion => {
            "the other side speaks no TLS version that is spoken here (1.2 and 1.3)".to_owned()
        }
        AlertDescription::InternalError => {
            format!("the {other} had an error of its own; see its log")
        }
        alert => format!("the {other} ended the TLS connection ({alert:?}); see its log"),
    }
}
