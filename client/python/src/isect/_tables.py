"""The tables of the protocol: kinds of frames, errors, limits.

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


HEADER_BYTES: Final = 64
VERSION: Final = 2
CONTROL_BODY_BYTES_MAX: Final = 262144
BODY_BYTES_DEFAULT: Final = 16777216
BODY_BYTES_MAX: Final = 268435456
NAME_BYTES_MAX: Final = 32
VALUE_BYTES_MAX: Final = 8192
LINES_MAX: Final = 4096
CONCURRENCY_MAX: Final = 1024
DEADLINE_MS_MAX: Final = 3600000
PRIORITY_DEFAULT: Final = 100
CLIENT_PORT: Final = 5501
ISDARGMAX: Final = 5
INTERVENTION: Final = "PROTOCOL INTERVENTION"
OP_SERVICE: Final = "op"
BUS_SERVICE: Final = "bus"
WORKER_SECRET_VARIABLE: Final = "ISECT_WORKER_SECRET"
HOST_VARIABLE: Final = "ISECT_HOST"
TOKEN_VARIABLE: Final = "ISECT_TOKEN"
TOKEN_FILE_VARIABLE: Final = "ISECT_TOKEN_FILE"
CA_VARIABLE: Final = "ISECT_CA"
CERT_VARIABLE: Final = "ISECT_CERT"
KEY_VARIABLE: Final = "ISECT_KEY"

DATA: Final = 0
LOGIN: Final = 1
LOGIN_OK: Final = 2
WORKER_LOGIN: Final = 3
WORKER_LOGIN_OK: Final = 4
ERROR: Final = 5
PING: Final = 6
PONG: Final = 7
LOGOUT: Final = 8
END: Final = 9
REINIT: Final = 10
STATUS: Final = 11
STATUS_REPLY: Final = 12
CHALLENGE: Final = 13
PROOF: Final = 14
CANCEL: Final = 15
FLUSH: Final = 16
FLUSHED: Final = 17
EXEC_HELLO: Final = 20
EXEC_WELCOME: Final = 21
EXEC_START: Final = 22
EXEC_STOP: Final = 23
EXEC_SIGNAL: Final = 24
EXEC_LIST: Final = 25
EXEC_LISTED: Final = 26
EXEC_STARTED: Final = 27
EXEC_FAILED: Final = 28
EXEC_EXITED: Final = 29
EXEC_OUTPUT: Final = 30
EXEC_END: Final = 31
SUBSCRIBE: Final = 32
SUBSCRIBED: Final = 33
UNSUBSCRIBE: Final = 34
UNSUBSCRIBED: Final = 35
PUBLISH: Final = 36
PUBLISHED: Final = 37
MESSAGE: Final = 38
CAUGHT_UP: Final = 39
ANNOUNCE: Final = 40
ANNOUNCED: Final = 41
STATE_CHANGE: Final = 42
BEAT: Final = 43
BEAT_OK: Final = 44
WITHDRAW: Final = 45
EXEC_READ: Final = 46
EXEC_LINES: Final = 47
EXEC_MEMORY: Final = 48

#: Names of the kinds of frames, by number.
KINDS: Final[dict[int, str]] = {
    0: "data",
    1: "login",
    2: "login-ok",
    3: "worker-login",
    4: "worker-login-ok",
    5: "error",
    6: "ping",
    7: "pong",
    8: "logout",
    9: "end",
    10: "reinit",
    11: "status",
    12: "status-reply",
    13: "challenge",
    14: "proof",
    15: "cancel",
    16: "flush",
    17: "flushed",
    20: "exec-hello",
    21: "exec-welcome",
    22: "exec-start",
    23: "exec-stop",
    24: "exec-signal",
    25: "exec-list",
    26: "exec-listed",
    27: "exec-started",
    28: "exec-failed",
    29: "exec-exited",
    30: "exec-output",
    31: "exec-end",
    32: "subscribe",
    33: "subscribed",
    34: "unsubscribe",
    35: "unsubscribed",
    36: "publish",
    37: "published",
    38: "message",
    39: "caught-up",
    40: "announce",
    41: "announced",
    42: "state-change",
    43: "beat",
    44: "beat-ok",
    45: "withdraw",
    46: "exec-read",
    47: "exec-lines",
    48: "exec-memory",
}

#: The errors that isect itself makes, by number.
ERRORS: Final[dict[int, ErrorRow]] = {
    -1: ErrorRow(
        -1, "intervention", "broker", "maybe", False, "later",
        "the operator took the request away from its worker (`idle`)",
        "ask your own data whether the work took effect, then decide",
    ),
    -2: ErrorRow(
        -2, "version", "client", "no", True, "never",
        "the frame's version is not spoken here",
        "speak version 2",
    ),
    -3: ErrorRow(
        -3, "bad_frame", "client", "no", True, "never",
        "the bytes are not a frame that makes sense",
        "mend the sender; docs/protocol.md shows every byte",
    ),
    -4: ErrorRow(
        -4, "body_too_large", "client", "no", False, "never",
        "the frame's body is larger than allowed",
        "send it in pieces with `more`, or have the operator raise body_bytes_max",
    ),
    -5: ErrorRow(
        -5, "bad_state", "client", "no", True, "never",
        "the frame's kind may not be sent by this side, or not now",
        "log in first, and send only what your side may send",
    ),
    -6: ErrorRow(
        -6, "login_timeout", "client", "no", True, "soon",
        "no login came in time",
        "send the login at once after connecting",
    ),
    -7: ErrorRow(
        -7, "bad_login", "client", "no", True, "never",
        "the login lacks something, or a value in it is wrong",
        "docs/protocol.md lists the keys of each login and their values",
    ),
    -8: ErrorRow(
        -8, "unknown_service", "client", "no", True, "never",
        "no service of that name is configured",
        "'services' lists the names; 'config service NAME' makes one",
    ),
    -9: ErrorRow(
        -9, "rejecting", "broker", "no", True, "later",
        "the operator lets no new clients in for now",
        "try again later, or have the operator say 'reject off'",
    ),
    -10: ErrorRow(
        -10, "denied", "client", "no", False, "never",
        "this client may not do that",
        "use an account or a token with the right role",
    ),
    -11: ErrorRow(
        -11, "bad_worker_login", "worker", "no", True, "never",
        "the worker showed no secret of this broker, or that of a start that is over",
        "if the broker started it, end: it starts another when one is due; if it started itself, configure the service with selfstart=1",
    ),
    -12: ErrorRow(
        -12, "too_many_connections", "broker", "no", True, "later",
        "the broker has as many connections as it may",
        "try again later, or raise connections_max and the process's descriptor limit",
    ),
    -13: ErrorRow(
        -13, "too_many_requests", "client", "no", False, "soon",
        "this connection has as many requests under way as it may",
        "wait for replies first, or raise requests_max",
    ),
    -14: ErrorRow(
        -14, "overloaded", "broker", "no", False, "later",
        "a queue or the memory for waiting requests is full",
        "ask again after a pause; if it lasts, add workers or raise the limit named",
    ),
    -15: ErrorRow(
        -15, "service_stopped", "broker", "no", False, "later",
        "the operator stopped the service",
        "ask again when it is started ('start NAME')",
    ),
    -16: ErrorRow(
        -16, "deadline", "broker", "maybe", False, "later",
        "the request's time was over before it was answered",
        "if it did not run, ask again; else ask your own data first",
    ),
    -17: ErrorRow(
        -17, "worker_died", "worker", "maybe", False, "soon",
        "the worker ended or lost its connection while it had the request",
        "ask your own data, or send such requests with the idempotent flag",
    ),
    -18: ErrorRow(
        -18, "poison", "client", "maybe", False, "never",
        "several workers died of this request; it is set aside for the operator ('poison')",
        "do not send it again before the worker is mended",
    ),
    -19: ErrorRow(
        -19, "no_conversation", "client", "no", False, "never",
        "no conversation of this number is open with that worker",
        "begin again with a new sequence and workerid 0",
    ),
    -20: ErrorRow(
        -20, "duplicate_sequence", "client", "no", False, "never",
        "this sequence is still in use by a request of this connection",
        "give every request under way a number of its own",
    ),
    -21: ErrorRow(
        -21, "slow_reader", "client", "maybe", True, "soon",
        "what is to be sent to this connection piles up past its limit",
        "read faster, or ask for less at a time",
    ),
    -22: ErrorRow(
        -22, "idle_timeout", "client", "no", True, "soon",
        "the connection was silent longer than allowed",
        "connect again, or answer pings",
    ),
    -23: ErrorRow(
        -23, "broker_lost", "broker", "maybe", True, "soon",
        "the connection to the broker broke (made by the client library)",
        "connect again; if it may have run, ask your own data first",
    ),
    -24: ErrorRow(
        -24, "timeout", "broker", "maybe", False, "later",
        "nothing came in time (made by the client library)",
        "wait longer, or look at 'queue' and 'workers'",
    ),
    -25: ErrorRow(
        -25, "shutting_down", "broker", "no", True, "later",
        "the broker (to a broker: the execd) is shutting down",
        "connect again when it is back",
    ),
    -26: ErrorRow(
        -26, "usage", "client", "no", False, "never",
        "the operator's command is not understood",
        "'help' lists the commands, 'help COMMAND' explains one",
    ),
    -27: ErrorRow(
        -27, "refused", "client", "no", False, "never",
        "the command is understood but can't be done now",
        "",
    ),
    -28: ErrorRow(
        -28, "not_found", "client", "no", False, "never",
        "what the command names does not exist",
        "",
    ),
    -29: ErrorRow(
        -29, "bad_reply", "worker", "maybe", True, "never",
        "the worker sent something that is not a reply",
        "mend the worker; docs/protocol.md shows every byte",
    ),
    -30: ErrorRow(
        -30, "client_deleted", "broker", "maybe", True, "never",
        "the operator deleted this client",
        "connect again if you may",
    ),
    -31: ErrorRow(
        -31, "start_failed", "host", "no", False, "later",
        "the program of a worker can't be started",
        "mend the path, its permissions or --allow, then 'start' it again",
    ),
    -32: ErrorRow(
        -32, "host_lost", "host", "no", False, "later",
        "the host's execd can't be reached",
        "look at 'hosts'; start isdexecd there",
    ),
    -33: ErrorRow(
        -33, "internal", "broker", "maybe", True, "never",
        "the broker broke a rule of its own",
        "report it with the log",
    ),
    -34: ErrorRow(
        -34, "state_failed", "broker", "no", False, "never",
        "the configuration can't be written to or read from the state directory",
        "look at the directory's owner and permissions, and at the space on its disk",
    ),
    -35: ErrorRow(
        -35, "unreachable", "broker", "no", True, "later",
        "no connection to the broker (made by the client library)",
        "start isectd, or name its address with -h or ISECT_HOST",
    ),
    -36: ErrorRow(
        -36, "needs_token", "client", "no", True, "never",
        "whoever comes this way needs a token, and none was named",
        "name a token: --token-file, ISECT_TOKEN_FILE or ISECT_TOKEN; 'isectd token add' makes one",
    ),
    -37: ErrorRow(
        -37, "bad_token", "client", "no", True, "never",
        "the token is not known there, or was not proved",
        "use the token that 'isectd token add' printed; it may have been removed or renewed",
    ),
    -38: ErrorRow(
        -38, "login_limited", "client", "no", True, "later",
        "too many logins with this token from this address failed",
        "wait a few seconds, then try again with the right token",
    ),
    -39: ErrorRow(
        -39, "unproven", "broker", "no", True, "never",
        "the other side did not prove that it knows the token (made by the side that logs in)",
        "look whether the address is right: something else listens there, or stands between",
    ),
    -40: ErrorRow(
        -40, "tls", "client", "no", True, "never",
        "TLS failed: a certificate, a version, or only one side speaks it",
        "docs/tls.md has the set-up in five lines",
    ),
    -41: ErrorRow(
        -41, "out_of_range", "client", "no", False, "never",
        "a field of the header has a value that it can't have",
        "docs/protocol.md lists the fields of the header and their ranges",
    ),
    -42: ErrorRow(
        -42, "cancelled", "client", "maybe", False, "never",
        "the request was given up: its caller said `cancel`, or the operator did",
        "if it may have run, ask your own data whether it took effect",
    ),
    -43: ErrorRow(
        -43, "conversation_ended", "broker", "maybe", False, "soon",
        "a conversation without a deadline was ended, because its worker is drained, stopped or restarted",
        "begin it again; what the worker kept for it is gone",
    ),
    -44: ErrorRow(
        -44, "conversation_refused", "client", "maybe", False, "never",
        "a conversation without a deadline can't begin",
        "log in with `heartbeat yes`; end other conversations first, or raise conversations_max",
    ),
    -45: ErrorRow(
        -45, "no_worker", "broker", "no", False, "later",
        "no worker of the service can come: none is configured, or all have failed or are stopped",
        "ask again when an operator has configured or started a worker",
    ),
    -46: ErrorRow(
        -46, "bad_message", "client", "no", False, "never",
        "a topic, a pattern, or the lines of a message break a rule",
        "docs/topics.md has the rules",
    ),
    -47: ErrorRow(
        -47, "limit_reached", "client", "no", False, "later",
        "there are as many subscriptions, kept values or instances as there may be",
        "end some that nobody needs, or raise the setting named",
    ),
    -48: ErrorRow(
        -48, "bad_instance", "client", "no", False, "never",
        "an instance is announced wrongly, or the connection has none with this id",
        "docs/instances.md has the rules",
    ),
    -49: ErrorRow(
        -49, "instance_taken", "client", "no", False, "later",
        "an instance with this name and id is there already, and is somebody else's",
        "choose another id; the user or the holder of the token of the other one may displace it",
    ),
    -50: ErrorRow(
        -50, "not_a_service", "client", "no", True, "never",
        "the name is that of programs (protocol=none), which take no requests",
        "'services' lists the names; 'config service NAME protocol=isect' makes workers of the programs",
    ),
}
