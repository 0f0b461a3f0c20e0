//! Every size and count that is part of the protocol. Names end with the unit, and relations
//! between limits are checked at compile time. What an operator may change is in `settings`.

/// Most requests that one worker may answer at a time.
pub const CONCURRENCY_MAX: u32 = 1024;

/// Bytes of the fixed header: one cache line.
pub const HEADER_BYTES: usize = 64;

/// The version of the protocol. The original protocol of the manual was version 1.
pub const VERSION: u16 = 2;

/// Most bytes in the body of a control frame (login, worker login, error, an execd frame).
pub const CONTROL_BODY_BYTES_MAX: usize = 256 * 1024;

/// Default of the setting `body_bytes_max`, in bytes.
pub const BODY_BYTES_DEFAULT: usize = 16 * 1024 * 1024;

/// Highest value of the setting `body_bytes_max`, in bytes.
pub const BODY_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Most bytes in the name of a service or host.
pub const NAME_BYTES_MAX: usize = 32;

/// Most bytes in one value line of a control body.
pub const VALUE_BYTES_MAX: usize = 8 * 1024;

/// Most lines in a control body.
pub const LINES_MAX: usize = 4096;

/// Most bytes in one operator command.
pub const COMMAND_BYTES_MAX: usize = 16 * 1024;

/// Most variables that a service or a worker sets for its processes.
pub const ENV_VARIABLES_MAX: usize = 128;

/// Most bytes of these, names and values together.
pub const ENV_BYTES_MAX: usize = 8 * 1000;

/// Most bytes in the name of a user or group of a host: that of Linux.
pub const USER_BYTES_MAX: usize = 32;

/// Most words in one operator command, and so most arguments of a worker program.
pub const WORDS_MAX: usize = 256;

/// Most bytes of a path of a worker program: the kernel's `PATH_MAX` without the end.
pub const PATH_BYTES_MAX: usize = 4095;

/// Most bytes in the path of a Unix socket: the kernel's `sun_path` without the end.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

/// First argument of the application in a worker's argv: `argv[1..5]` are the broker's host, port,
/// the worker id and the service (manual chapter, "Config Worker": `argv[ISDARGMAX]`).
pub const ISDARGMAX: usize = 5;

/// Default client port of the broker (manual chapter: `isdData.req_port`).
pub const CLIENT_PORT: u16 = 5501;

/// Default port of execd.
pub const EXECD_PORT: u16 = 5502;

/// The longest deadline a request may ask for, in milliseconds: one hour.
pub const DEADLINE_MS_MAX: u64 = 3_600_000;

/// Lowest priority of a client, which is served first.
pub const PRIORITY_MIN: u8 = 1;
/// Highest priority of a client, which is served last.
pub const PRIORITY_MAX: u8 = 255;
/// The priority of a client that names none.
pub const PRIORITY_DEFAULT: u8 = 100;

/// The body of error -1, word for word as in the manual chapter ("Idle").
pub const INTERVENTION: &[u8] = b"PROTOCOL INTERVENTION";

/// Name of the service for operator commands; it always exists and is never configured.
pub const OP_SERVICE: &str = "op";

/// Name of the service for clients that only publish, subscribe or announce, unless a service of
/// this name is configured.
pub const BUS_SERVICE: &str = "bus";

/// The subcommand of isectd as which the built-in services run; execd permits its own program file
/// for it, and for nothing else.
pub const BUILTIN_ROLE: &str = "service";

/// Environment variable that carries a worker's secret from execd to the worker.
pub const WORKER_SECRET_VARIABLE: &str = "ISECT_WORKER_SECRET";

/// Environment variable that names the start of a worker (`RunId`), inherited by everything that
/// the worker starts. It is no secret: execd uses it to find the worker of a process that left its
/// worker's group.
pub const RUN_VARIABLE: &str = "ISECT_RUN";

/// Environment variable with the default address of the broker for clients.
pub const HOST_VARIABLE: &str = "ISECT_HOST";

/// Environment variable with a token, `NAME.SECRET`.
pub const TOKEN_VARIABLE: &str = "ISECT_TOKEN";

/// Environment variable with the path of a file with a token.
pub const TOKEN_FILE_VARIABLE: &str = "ISECT_TOKEN_FILE";
/// Environment variable with the file of the CAs that sign the certificates of brokers.
pub const CA_VARIABLE: &str = "ISECT_CA";

/// Environment variable with the file of the certificate that a client or worker shows.
pub const CERT_VARIABLE: &str = "ISECT_CERT";

/// Environment variable with the file of that certificate's key.
pub const KEY_VARIABLE: &str = "ISECT_KEY";

/// The prefix of an address that is reached over TLS.
pub const TLS_PREFIX: &str = "tls://";

// A command, quoted into a control body, still fits in it.
const _: () = assert!(COMMAND_BYTES_MAX * 2 < CONTROL_BODY_BYTES_MAX);
// All variables fit in a command, and each in a line.
const _: () = assert!(ENV_VARIABLES_MAX < WORDS_MAX - 32);
const _: () = assert!(ENV_BYTES_MAX < VALUE_BYTES_MAX && VALUE_BYTES_MAX < COMMAND_BYTES_MAX);
// A path is the value of a line.
const _: () = assert!(PATH_BYTES_MAX <= VALUE_BYTES_MAX);
// By default a data frame may be as large as any control frame.
const _: () =
    assert!(CONTROL_BODY_BYTES_MAX <= BODY_BYTES_DEFAULT && BODY_BYTES_DEFAULT <= BODY_BYTES_MAX);
const _: () = assert!(0 < PRIORITY_MIN && PRIORITY_MIN <= PRIORITY_DEFAULT);
