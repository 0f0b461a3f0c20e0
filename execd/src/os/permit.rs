//! What the owner of a host lets an operator set of a process: which users it may run as, and which
//! variables it may get (`--allow-user`, `--allow-env`). Who may name a variable that makes a
//! program run other code chooses what runs, whatever `--allow` says; so no pattern stands for
//! those.

use super::user::Account;
use nix::unistd::{Gid, Group};
use protocol::limits::{RUN_VARIABLE, WORKER_SECRET_VARIABLE};
use std::fmt;

/// Most bytes of a variable's name.
const NAME_BYTES_MAX: usize = 255;

/// Variables that make programs load, run or fetch other code, or read another configuration that
/// does. The loader and the C library ignore those of their own for setuid programs for the same
/// reason. The list can't be complete: each program has variables of its own.
const CODE_NAMES: &[&str] = &[
    // Where programs and what they load are looked for.
    "PATH",
    "HOME",
    "SHELL",
    "CDPATH",
    "FPATH",
    "ZDOTDIR",
    // Shells.
    "ENV",
    "SHELLOPTS",
    "IFS",
    "PS4",
    "PROMPT_COMMAND",
    // The C library.
    "GCONV_PATH",
    "GETCONF_DIR",
    "GLIBC_TUNABLES",
    "HOSTALIASES",
    "LOCALDOMAIN",
    "LOCPATH",
    "NIS_PATH",
    "NLSPATH",
    "RESOLV_HOST_CONF",
    "RES_OPTIONS",
    "TZDIR",
    // Interpreters and virtual machines.
    "CLASSPATH",
    "GHCRTS",
    "JAVA_HOME",
    "JAVA_OPTS",
    "JAVA_TOOL_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "NODE_OPTIONS",
    "NODE_PATH",
    "NODE_REPL_EXTERNAL_MODULE",
    "OCAMLRUNPARAM",
    "PHPRC",
    "PHP_INI_SCAN_DIR",
    "TCLLIBPATH",
    "TCL_LIBRARY",
    "TK_LIBRARY",
    "VIRTUAL_ENV",
    "_JAVA_OPTIONS",
    // Modules and drivers of libraries.
    "GIO_EXTRA_MODULES",
    "GIO_MODULE_DIR",
    "GSS_MECH_CONFIG",
    "KRB5_CONFIG",
    "LIBGL_DRIVERS_PATH",
    "ODBCINI",
    "ODBCINSTINI",
    "ODBCSYSINI",
    "OPENSSL_CONF",
    "OPENSSL_ENGINES",
    "OPENSSL_MODULES",
    "QML2_IMPORT_PATH",
    "QML_IMPORT_PATH",
    "SASL_CONF_PATH",
    "SASL_PATH",
    // Programs that other programs run.
    "BROWSER",
    "CVS_RSH",
    "EDITOR",
    "GNUMAKEFLAGS",
    "KUBECONFIG",
    "LESSCLOSE",
    "LESSOPEN",
    "MAKEFILES",
    "MAKEFLAGS",
    "MANPAGER",
    "MFLAGS",
    "PAGER",
    "RSYNC_RSH",
    "SSH_ASKPASS",
    "SUDO_ASKPASS",
    "SVN_SSH",
    "VISUAL",
];

/// Beginnings of such names.
const CODE_PREFIXES: &[&str] = &[
    "BASH_",
    "BASHOPTS",
    "BUNDLE_",
    "CAML_",
    "COMPlus_",
    "CORECLR_",
    "COR_",
    "DOTNET_",
    "DYLD_",
    "ERL_",
    "GDK_PIXBUF_",
    "GEM_",
    "GIT_",
    "GST_",
    "GTK_",
    "GUILE_",
    "JULIA_",
    "LD_",
    "LUA_",
    "MALLOC_",
    "MONO_",
    "PERL",
    "PYTHON",
    "QT_",
    "RUBY",
    "R_",
    "VK_",
    "XDG_",
    "_RLD",
];

/// Whether this variable makes programs run other code.
fn runs_code(name: &str) -> bool {
    CODE_NAMES.contains(&name) || CODE_PREFIXES.iter().any(|kind| name.starts_with(kind))
}

/// Whether execd sets this variable itself.
fn is_own(name: &str) -> bool {
    [WORKER_SECRET_VARIABLE, RUN_VARIABLE].contains(&name)
}

/// Whether this can be the name of a variable: letters, digits, `_`, `.` and `-`, no digit first.
fn is_name(name: &str) -> bool {
    let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    name.len() <= NAME_BYTES_MAX
        && name.bytes().all(is_fit)
        && !name.bytes().next().is_none_or(|first| first.is_ascii_digit())
}

/// One `--allow-env`: a name, or the beginning of names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamePattern {
    text: String,
    is_prefix: bool,
}

impl NamePattern {
    /// Parses `NAME` or `PREFIX*`; `*` alone stands for all names.
    ///
    /// # Errors
    /// It is neither, or execd sets this variable itself.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, is_prefix) = match text.strip_suffix('*') {
            Some(prefix) => (prefix, true),
            None => (text, false),
        };
        let is_all = is_prefix && name.is_empty();
        if !is_all && !is_name(name) {
            return Err(format!("'{}' is neither NAME nor PREFIX*", shown(text)));
        }
        if is_own(name) && !is_prefix {
            return Err(format!("{name} is execd's own: no operator may set it"));
        }
        Ok(Self { text: name.to_owned(), is_prefix })
    }

    fn permits(&self, name: &str) -> bool {
        let is_kind = || CODE_PREFIXES.iter().any(|kind| self.text.starts_with(kind));
        match self.is_prefix {
            false => self.text == name,
            true => name.starts_with(&self.text) && (!runs_code(name) || is_kind()),
        }
    }
}

/// The variables that an operator may name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PermittedNames {
    /// What `--allow-env` names.
    pub patterns: Vec<NamePattern>,
    /// Whether all names are permitted that don't make programs run other code: where operators may
    /// start every program.
    pub is_open: bool,
}

/// Why a variable is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameRefusal {
    /// It is no name.
    Form,
    /// execd sets it.
    Own,
    /// It makes programs run other code, and no option names it.
    RunsCode,
    /// No option names it.
    Unnamed,
}

impl NameRefusal {
    /// What is wrong with the variable, and the cure; `name` is how the text calls it.
    pub(super) fn text(self, name: impl fmt::Display) -> String {
        match self {
            Self::Form => format!(
                "is no name of a variable: those are letters, digits, '_', '.' and '-', no digit \
                 first, {NAME_BYTES_MAX} at most"
            ),
            Self::Own => "is execd's own, and nobody may set it; leave it away".into(),
            Self::RunsCode => format!(
                "can make a program run other code, so it must be named for itself: start execd \
                 with --allow-env {name}"
            ),
            Self::Unnamed => {
                format!("is not permitted on this host; start execd with --allow-env {name}")
            }
        }
    }
}

impl PermittedNames {
    /// Whether an operator may set this variable.
    pub(super) fn check(&self, name: &str) -> Result<(), NameRefusal> {
        if !is_name(name) {
            Err(NameRefusal::Form)
        } else if is_own(name) {
            Err(NameRefusal::Own)
        } else if self.patterns.iter().any(|pattern| pattern.permits(name)) {
            Ok(())
        } else if runs_code(name) {
            Err(NameRefusal::RunsCode)
        } else if self.is_open {
            Ok(())
        } else {
            Err(NameRefusal::Unnamed)
        }
    }
}

/// A user that workers may run as, with the words that name it and its groups. All is looked up
/// once: asking for it at a start could make execd wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PermittedUser {
    /// As what it may run.
    pub(super) account: Account,
    /// Its name on the command line or on this host; a number is compared as one.
    pub(super) name: Option<String>,
    /// The names of its groups.
    pub(super) groups: Vec<(Gid, String)>,
}

impl PermittedUser {
    /// Looks up `NAME`, `UID`, `NAME:GROUP` or `UID:GROUP`.
    ///
    /// # Errors
    /// As [`Account::find`].
    pub fn find(text: &str) -> Result<Self, String> {
        Ok(Self::new(Account::find(text)?))
    }

    /// Whether it is root.
    pub const fn is_root(&self) -> bool {
        self.account.uid.is_root()
    }

    pub(super) fn new(account: Account) -> Self {
        let name = account.variables.iter().find(|(name, _)| *name == "USER");
        let name = name.map(|(_, value)| value.clone());
        let known = |gid: &Gid| Some((*gid, Group::from_gid(*gid).ok()??.name));
        let groups = account.groups.iter().filter_map(known).collect();
        Self { account, name, groups }
    }

    /// Whether a word of an operator names this user.
    pub(super) fn is_called(&self, word: &str) -> bool {
        match number(word) {
            Some(uid) => self.account.uid.as_raw() == uid,
            None => self.name.as_deref() == Some(word),
        }
    }

    /// The group of this user that a word of an operator names.
    pub(super) fn group(&self, word: &str) -> Option<Gid> {
        match number(word) {
            Some(gid) => {
                let mut own = self.account.groups.iter().chain([&self.account.gid]);
                own.find(|own| own.as_raw() == gid).copied()
            }
            None => self.groups.iter().find(|(_, name)| name == word).map(|(gid, _)| *gid),
        }
    }
}

/// A number of a user or a group; names don't consist of digits alone.
fn number(word: &str) -> Option<u32> {
    let is_number = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    // One that is too large is nobody's.
    is_number.then(|| word.parse().unwrap_or(u32::MAX))
}

/// A word of an operator for an error text: not longer than a line, nothing that controls a
/// terminal.
pub(super) fn shown(word: &str) -> String {
    const CHARS_MAX: usize = 100;
    let mut text: String = word.chars().take(CHARS_MAX).collect();
    if text.len() < word.len() {
        text.push('…');
    }
    text.escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(patterns: &[&str], is_open: bool) -> PermittedNames {
        let patterns = patterns.iter().map(|text| NamePattern::parse(text).unwrap()).collect();
        PermittedNames { patterns, is_open }
    }

    #[test]
    fn without_an_option_no_name_is_permitted_and_an_open_host_permits_the_harmless() {
        for name in ["A", "http_proxy", "my.key", "LANG", "TMPDIR", "NODE_ENV"] {
            assert_eq!(names(&[], false).check(name), Err(NameRefusal::Unnamed), "{name}");
            assert_eq!(names(&[], true).check(name), Ok(()), "{name}");
        }
        for name in ["PATH", "LD_PRELOAD", "LD_", "PYTHONPATH", "BASH_ENV", "ENV", "HOME"] {
            assert_eq!(names(&[], true).check(name), Err(NameRefusal::RunsCode), "{name}");
        }
    }

    #[test]
    fn a_wildcard_never_stands_for_what_runs_code_unless_it_is_of_that_kind() {
        let dangerous = ["LD_PRELOAD", "LD_AUDIT", "PERL5OPT", "PYTHONSTARTUP", "GCONV_PATH"];
        for pattern in ["*", "L*", "LD*", "P*", "PER*", "PYTHO*", "G*", "GCONV_*", "GCONV_PATH*"] {
            for name in dangerous {
                let checked = names(&[pattern], false).check(name);
                assert!(checked.is_err(), "{pattern} permits {name}");
            }
        }
        for (pattern, name) in [
            ("LD_*", "LD_PRELOAD"),
            ("LD_P*", "LD_PRELOAD"),
            ("LD_PRELOAD", "LD_PRELOAD"),
            ("GCONV_PATH", "GCONV_PATH"),
            ("PYTHON*", "PYTHONPATH"),
            ("APP_*", "APP_"),
            ("APP_*", "APP_KEY"),
            ("*", "APP_KEY"),
            ("ENV*", "ENVIRONMENT"),
        ] {
            assert_eq!(names(&[pattern], false).check(name), Ok(()), "{pattern}: {name}");
        }
        for (pattern, name) in [("ENV*", "ENV"), ("LD_PRELOAD", "LD_PRELOAD2"), ("APP_*", "APP")] {
            assert!(names(&[pattern], false).check(name).is_err(), "{pattern}: {name}");
        }
    }

    #[test]
    fn execds_own_variables_are_nobodys() {
        let all = names(&["*", "ISECT_*", "ISECT_R*"], true);
        for name in ["ISECT_WORKER_SECRET", "ISECT_RUN"] {
            assert_eq!(all.check(name), Err(NameRefusal::Own));
            assert!(NamePattern::parse(name).unwrap_err().contains("execd's own"));
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = "A".repeat(256);
        let bad = ["", "1A", "A=B", "A B", "A\nB", "A\0", "BASH_FUNC_x%%", "Ä", long.as_str()];
        for name in bad {
            assert_eq!(names(&["*"], true).check(name), Err(NameRefusal::Form), "{name:?}");
            assert!(name.is_empty() || NamePattern::parse(name).is_err(), "{name:?}");
        }
        for bad in ["", "A**", "*A", "A*B", "A=*", "A *"] {
            assert!(NamePattern::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn users_are_called_by_their_name_or_number_and_have_groups_of_their_own() {
        let root = PermittedUser::find("root").unwrap();
        assert!(root.is_called("root") && root.is_called("0"));
        let not = ["", "-1", "4294967295", "4294967296", "root:0", "root ", "Root", "+0", "0x0"];
        for word in not {
            assert!(!root.is_called(word), "{word:?}");
        }
        assert_eq!(root.group("0"), Some(Gid::from_raw(0)));
        assert_eq!(root.group("4711"), None);
        let other = PermittedUser::find("root:4711").unwrap();
        assert_eq!(other.group("4711"), Some(Gid::from_raw(4711)));
        assert_eq!((other.group("0"), other.group("root")), (None, None), "it replaces the others");
        for word in ["4294967295", "99999999999999999999", "-1"] {
            assert_eq!(other.group(word), None, "{word}");
        }
    }

    #[test]
    fn a_word_in_an_error_text_is_short_and_plain() {
        assert_eq!(shown("a\nb\u{1b}"), "a\\nb\\u{1b}");
        assert_eq!(shown(&"x".repeat(5000)), format!("{}…", "x".repeat(100)));
    }
}
