//! What the settings of a process (`protocol::process`) mean on this host: what an operator asks
//! for is compared with what the host's owner permits, before anything is forked. No name is looked
//! up and no file is touched here, so execd never waits; `setting_files` looks at the files of a
//! start, in the forked child.

use super::check::{Policy, StartFailure};
use super::child_setup::{ChildAttributes, Limit};
use super::permit::{PermittedNames, PermittedUser, shown};
use super::rlimits::{self, RLimit};
use super::startup::has_just;
use super::user::Account;
use nix::libc;
use nix::sys::resource::getrlimit;
use nix::unistd::Uid;
use protocol::bodies::ExecStart;
use protocol::limits::PATH_BYTES_MAX;
use protocol::process::{self, ProcessSettings};
use std::ffi::CString;
use std::path::{Component, Path};

/// What the options of this execd let operators set.
#[derive(Debug)]
pub(super) struct Permits {
    /// The variables.
    pub(super) names: PermittedNames,
    /// The users, each with the host's environment for it.
    pub(super) users: Vec<(PermittedUser, Vec<CString>)>,
    /// The user of workers that name none.
    pub(super) usual: PermittedUser,
    /// Whether this process may change its user and its groups.
    pub(super) may_change: bool,
}

/// What one start gets in place of what all children get.
#[derive(Debug)]
pub(super) struct Settled {
    /// The rules for its program.
    pub(super) policy: Policy,
    /// What is set between fork and exec.
    pub(super) attributes: ChildAttributes,
    /// The environment that the host gives it.
    pub(super) environment: Vec<CString>,
}

/// An account, and the host's environment for it if that is another than usual.
type Choice<'a> = (Account, Option<&'a [CString]>);

impl Permits {
    /// One fact a line, always in the same order, for the digest of the policy.
    pub(super) fn facts(&self) -> Vec<String> {
        let Self { names, users, usual, may_change } = self;
        let PermittedNames { patterns, is_open } = names;
        let mut facts: Vec<String> =
            patterns.iter().map(|pattern| format!("permitted variable {pattern:?}")).collect();
        let sorted = |user: &PermittedUser| {
            let mut user = user.clone();
            user.account.groups.sort_by_key(|group| group.as_raw());
            user
        };
        facts.extend(users.iter().map(|(user, environment)| {
            format!("permitted user {:?} {environment:?}", sorted(user).account)
        }));
        facts.sort();
        facts.dedup();
        facts.push(format!("other variables {is_open}, may change user {may_change}"));
        facts.push(format!("usual user {}", usual.account.uid));
        facts
    }

    /// The user that settings name, if it is another than the usual one or has other groups.
    fn choose(
        &self,
        user: Option<&str>,
        group: Option<&str>,
    ) -> Result<Option<Choice<'_>>, String> {
        if let Some(word) = user.filter(|word| word.contains(':')) {
            let word = shown(word);
            return Err(format!("user '{word}' has a colon; name the group by the setting group"));
        }
        let usual = self.usual.account.uid;
        let is_usual = user.is_none_or(|word| {
            self.all().any(|(known, _)| known.account.uid == usual && known.is_called(word))
        });
        let candidates: Vec<Choice<'_>> = self
            .all()
            .filter(|(permitted, _)| match user {
                Some(word) if !is_usual => permitted.is_called(word),
                Some(_) | None => permitted.account.uid == usual,
            })
            .filter_map(|(permitted, environment)| {
                let account = permitted.account.clone();
                let Some(word) = group else { return Some((account, environment)) };
                let gid = permitted.group(word)?;
                let only = Account { gid, groups: vec![gid], is_with_group: true, ..account };
                Some((only, environment))
            })
            .map(|(account, environment)| (account, environment.filter(|_| !is_usual)))
            .collect();
        let chosen = candidates.into_iter().next().ok_or_else(|| self.unpermitted(user, group))?;
        if is_usual && group.is_none() {
            return Ok(None);
        }
        if self.may_change {
            return Ok(Some(chosen));
        }
        if is_usual && has_just(chosen.0.gid) {
            return Ok(None);
        }
        let me = Uid::effective();
        Err(format!(
            "only root can start workers as another user or with other groups, and execd is user \
             {me}; leave user and group away, or run execd as root"
        ))
    }

    fn all(&self) -> impl Iterator<Item = (&PermittedUser, Option<&[CString]>)> {
        let named = self.users.iter().map(|(user, environment)| (user, Some(&environment[..])));
        [(&self.usual, None)].into_iter().chain(named)
    }

    /// Why nobody is found by these words.
    fn unpermitted(&self, user: Option<&str>, group: Option<&str>) -> String {
        let is_known =
            user.is_none_or(|word| self.all().any(|(permitted, _)| permitted.is_called(word)));
        let usual = self.usual.account.uid.to_string();
        let name = shown(user.unwrap_or(&usual));
        match group.map(shown).filter(|_| is_known) {
            Some(group) => format!(
                "group '{group}' is none that this host permits to user '{name}'; start execd with \
                 --allow-user {name}:{group}"
            ),
            None => format!(
                "user '{name}' is not permitted on this host; start execd with --allow-user {name}"
            ),
        }
    }
}

/// Compares the settings of a start with what this host permits; `usual` is what other starts get.
///
/// # Errors
/// Something is not permitted, or makes no sense: the text says what, which value, and the cure.
pub(super) fn settle(
    start: &ExecStart,
    settings: &ProcessSettings,
    permits: &Permits,
    usual: (&Policy, &ChildAttributes, &[CString]),
) -> Result<Settled, StartFailure> {
    settled(settings, permits, usual)
        .map_err(|text| (true, format!("{} is not started: {text}", shown(&start.path))))
}

fn settled(
    settings: &ProcessSettings,
    permits: &Permits,
    (policy, attributes, environment): (&Policy, &ChildAttributes, &[CString]),
) -> Result<Settled, String> {
    let ProcessSettings { env, env_file, cwd, user, group, umask, nice, limits, stop_signal } =
        settings;
    let mut settled = Settled {
        policy: policy.clone(),
        attributes: attributes.clone(),
        environment: environment.to_vec(),
    };
    for (key, path) in [("env_file", env_file), ("cwd", cwd)] {
        path.as_deref().map_or(Ok(()), |path| spelling(key, path))?;
    }
    for (name, value) in env {
        let word = shown(name);
        permits.names.check(name).map_err(|why| format!("env {word} {}", why.text(&word)))?;
        if value.contains('\0') {
            return Err(format!("the value of env {word} contains a NUL byte; remove it"));
        }
    }
    if let Some((account, environment)) = permits.choose(user.as_deref(), group.as_deref())? {
        // Whoever is another worker's user must not have put there what runs as this one.
        settled.policy.trusted = vec![0, Uid::effective().as_raw(), account.uid.as_raw()];
        settled.policy.runs_as_self = false;
        if let Some(environment) = environment {
            settled.environment = environment.to_vec();
        }
        settled.attributes.account = Some(account);
    }
    settled.attributes.umask = umask.unwrap_or(attributes.umask);
    settled.attributes.nice = *nice;
    for (name, value) in limits {
        let limit = limit(name, value, &attributes.limits)?;
        settled.attributes.limits.retain(|known| known.0 != limit.0);
        settled.attributes.limits.push(limit);
    }
    stop_signal.map_or(Ok(()), process::check_stop_signal)?;
    Ok(settled)
}

/// Checks a path without looking at the disk.
fn spelling(key: &str, path: &str) -> Result<(), String> {
    let word = shown(path);
    if path.len() > PATH_BYTES_MAX {
        let bytes = path.len();
        return Err(format!("{key} has {bytes} bytes; at most {PATH_BYTES_MAX} are allowed"));
    }
    if !path.starts_with('/') {
        return Err(format!("{key} '{word}' is not an absolute path; begin it with /"));
    }
    if Path::new(path).components().any(|part| part == Component::ParentDir) {
        return Err(format!("{key} '{word}' contains '..'; write the path without it"));
    }
    if path.contains('\0') {
        return Err(format!("{key} '{word}' contains a NUL byte; remove it"));
    }
    Ok(())
}

/// Reads a limit, and holds it to what this host gives: what `--limit` says, else what execd itself
/// has. Being root makes no difference.
fn limit(name: &str, value: &str, usual: &[Limit]) -> Result<Limit, String> {
    let word = format!("{}={}", shown(name), shown(value));
    let RLimit((resource, soft, hard)) = RLimit::parse(&word).map_err(|e| format!("limit {e}"))?;
    let own = |resource| getrlimit(resource).map_or(libc::RLIM_INFINITY, |(_, hard)| hard);
    let given = usual.iter().find(|known| known.0 == resource).map(|known| known.2);
    let most = given.unwrap_or_else(|| own(resource));
    // Where only one number is given the hard limit is ours to choose.
    let is_given = value.contains(':');
    let hard = if is_given { hard } else { hard.min(most) };
    if soft > most || hard > most {
        let most = rlimits::text(most);
        return Err(format!(
            "limit {word} is more than this host permits, which is {most}; start execd with \
             --limit {word}, or name no more"
        ));
    }
    Ok((resource, soft, hard))
}

#[cfg(test)]
mod tests {
    use super::super::permit::NamePattern;
    use super::*;
    use nix::sys::resource::Resource;
    use nix::unistd::Gid;
    use std::collections::BTreeMap;

    fn account(uid: u32, gids: &[u32]) -> Account {
        let groups: Vec<Gid> = gids.iter().map(|gid| Gid::from_raw(*gid)).collect();
        let variables = vec![("USER", format!("user{uid}")), ("HOME", format!("/home/{uid}"))];
        let gid = groups[0];
        Account { uid: Uid::from_raw(uid), gid, groups, is_with_group: false, variables }
    }

    fn permits(may_change: bool) -> Permits {
        let user = |uid, gids: &[u32]| {
            let variable = CString::new(format!("HOME=/home/{uid}")).unwrap();
            (PermittedUser::new(account(uid, gids)), vec![variable])
        };
        Permits {
            names: PermittedNames {
                patterns: vec![NamePattern::parse("APP_*").unwrap()],
                is_open: false,
            },
            users: vec![
                user(3_000_001, &[3_000_001, 3_000_002]),
                user(3_000_001, &[3_000_009]),
                user(3_000_003, &[3_000_003]),
                user(3_000_000, &[3_000_007]),
            ],
            usual: PermittedUser::new(account(3_000_000, &[3_000_000, 3_000_004])),
            may_change,
        }
    }

    fn attributes() -> ChildAttributes {
        ChildAttributes {
            limits: vec![(Resource::RLIMIT_NOFILE, 10, 20), (Resource::RLIMIT_CPU, 60, 60)],
            account: None,
            directory: c"/".into(),
            umask: 0o022,
            batch: false,
            nice: None,
        }
    }

    fn policy() -> Policy {
        Policy {
            allow: vec!["/".into()],
            trusted: vec![0, 3_000_000],
            runs_as_self: true,
            directory: "/".into(),
            own: None,
        }
    }

    fn ask(settings: &ProcessSettings, may_change: bool) -> Result<Settled, String> {
        let usual = (&policy(), &attributes(), &[c"HOME=/".to_owned()][..]);
        settled(settings, &permits(may_change), usual)
    }

    fn users(user: &str, group: &str) -> ProcessSettings {
        let word = |word: &str| (!word.is_empty()).then(|| word.to_owned());
        ProcessSettings { user: word(user), group: word(group), ..ProcessSettings::default() }
    }

    fn with<T: Clone>(value: &T, set: impl FnOnce(&mut ProcessSettings, T)) -> ProcessSettings {
        let mut settings = ProcessSettings::default();
        set(&mut settings, value.clone());
        settings
    }

    #[test]
    fn nothing_but_a_permitted_user_with_one_of_its_groups_is_taken_on() {
        for (user, group, taken) in [
            ("", "", None),
            ("3000000", "", None),
            ("user3000000", "", None),
            ("", "3000004", Some((3_000_000, vec![3_000_004]))),
            ("", "3000007", Some((3_000_000, vec![3_000_007]))),
            ("user3000001", "", Some((3_000_001, vec![3_000_001, 3_000_002]))),
            ("3000001", "3000002", Some((3_000_001, vec![3_000_002]))),
            ("3000001", "3000009", Some((3_000_001, vec![3_000_009]))),
            ("3000003", "", Some((3_000_003, vec![3_000_003]))),
        ] {
            let settled = ask(&users(user, group), true).unwrap();
            let account = settled.attributes.account;
            let found = account.map(|account| {
                let groups: Vec<u32> = account.groups.iter().map(|gid| gid.as_raw()).collect();
                assert_eq!(account.gid.as_raw(), groups[0]);
                (account.uid.as_raw(), groups)
            });
            assert_eq!(found, taken, "{user}:{group}");
        }
        let settled = ask(&users("3000003", ""), true).unwrap();
        assert_eq!(settled.policy.trusted, [0, Uid::effective().as_raw(), 3_000_003]);
        assert!(!settled.policy.runs_as_self);
        assert_eq!(settled.environment, [c"HOME=/home/3000003".to_owned()]);
    }

    #[test]
    fn every_other_user_and_group_is_refused_by_name_and_with_the_option() {
        let long = "9".repeat(500);
        for (user, group, part) in [
            ("root", "", "--allow-user root"),
            ("0", "", "--allow-user 0"),
            ("-1", "", "--allow-user -1"),
            ("4294967295", "", "not permitted"),
            ("4294967296", "", "not permitted"),
            (long.as_str(), "", "not permitted"),
            (" 3000001", "", "not permitted"),
            ("3000001:0", "", "has a colon"),
            (":", "", "has a colon"),
            ("a\nb", "", "a\\nb"),
            ("3000001", "3000003", "--allow-user 3000001:3000003"),
            ("3000001", "0", "--allow-user 3000001:0"),
            ("3000001", "root", "--allow-user 3000001:root"),
            ("", "3000002", "--allow-user 3000000:3000002"),
            ("", "0", "--allow-user 3000000:0"),
            ("", "4294967295", "--allow-user 3000000:4294967295"),
            ("nobody-known", "3000001", "--allow-user nobody-known"),
        ] {
            let text = ask(&users(user, group), true).unwrap_err();
            assert!(text.contains(part) && text.len() < 500, "{user}:{group}: {text}");
        }
        for (user, group) in [("3000001", ""), ("", "3000004"), ("3000003", "3000003")] {
            let text = ask(&users(user, group), false).unwrap_err();
            assert!(text.contains("only root") && text.contains("run execd as root"), "{text}");
        }
        assert!(ask(&users("3000000", ""), false).unwrap().attributes.account.is_none());
    }

    #[test]
    fn variables_are_held_to_their_names_and_have_no_nul() {
        let variable = |name: &str, value: &str| {
            let pair = (name.to_owned(), value.to_owned());
            with(&pair, |settings, pair| settings.env = BTreeMap::from([pair]))
        };
        assert!(ask(&variable("APP_A", "two\nlines=x"), true).is_ok());
        for (name, value, part) in [
            (
                "OTHER",
                "x",
                "env OTHER is not permitted on this host; start execd with --allow-env OTHER",
            ),
            (
                "LD_PRELOAD",
                "/x",
                "must be named for itself: start execd with --allow-env LD_PRELOAD",
            ),
            ("ISECT_RUN", "1", "execd's own"),
            ("ISECT_WORKER_SECRET", "1", "execd's own"),
            ("", "x", "is no name of a variable"),
            ("A B", "x", "is no name of a variable"),
            ("APP_A", "a\0b", "NUL byte"),
        ] {
            let text = ask(&variable(name, value), true).unwrap_err();
            assert!(text.contains(part), "{name}: {text}");
        }
    }

    #[test]
    fn no_limit_is_above_the_hosts() {
        let limit = |name: &str, value: &str| {
            let pair = (name.to_owned(), value.to_owned());
            with(&pair, |settings, pair| settings.limits = BTreeMap::from([pair]))
        };
        for (name, value, resource, soft, hard) in [
            ("nofile", "20", Resource::RLIMIT_NOFILE, 20, 20),
            ("nofile", "5:20", Resource::RLIMIT_NOFILE, 5, 20),
            ("cpu", "60", Resource::RLIMIT_CPU, 60, 60),
            ("cpu", "10", Resource::RLIMIT_CPU, 10, 11),
            ("core", "0", Resource::RLIMIT_CORE, 0, 0),
        ] {
            let limits = ask(&limit(name, value), true).unwrap().attributes.limits;
            let found = limits.iter().filter(|known| known.0 == resource);
            assert_eq!(found.collect::<Vec<_>>(), [&(resource, soft, hard)], "{name}={value}");
        }
        for (name, value, part) in [
            ("nofile", "21", "limit nofile=21 is more than this host permits, which is 20"),
            ("nofile", "1:21", "--limit nofile=1:21"),
            ("nofile", "unlimited", "nofile=unlimited"),
            ("cpu", "unlimited", "which is 60"),
            ("cpu", "61:61", "which is 60"),
            ("cpu", "-1", "NAME=SOFT"),
            ("cpu", "", "NAME=SOFT"),
            ("nice", "1", "there is no limit 'nice'"),
            ("", "1", "there is no limit ''"),
            ("cpu=1", "2", "NAME=SOFT"),
            ("cpu", "9:1", "above the hard one"),
        ] {
            let text = ask(&limit(name, value), true).unwrap_err();
            assert!(text.contains(part), "{name}={value}: {text}");
        }
    }

    #[test]
    fn paths_are_absolute_and_plain_and_a_stop_signal_can_end_a_process() {
        let long = format!("/{}", "x".repeat(4095));
        for (path, part) in [
            ("", "is not an absolute path"),
            ("srv", "is not an absolute path"),
            ("/srv/../etc", "contains '..'"),
            ("/srv/\0", "NUL byte"),
            (long.as_str(), "has 4096 bytes; at most 4095"),
        ] {
            for key in ["cwd", "env_file"] {
                let settings = with(&path.to_owned(), |settings, path| match key {
                    "cwd" => settings.cwd = Some(path),
                    _ => settings.env_file = Some(path),
                });
                let text = ask(&settings, true).unwrap_err();
                assert!(text.contains(part) && text.starts_with(key), "{path}: {text}");
            }
        }
        for signal in [1, 2, 9, 15, 18, 64] {
            assert!(ask(&with(&signal, |s, signal| s.stop_signal = Some(signal)), true).is_ok());
        }
        let text = ask(&with(&19, |s, signal| s.stop_signal = Some(signal)), true).unwrap_err();
        assert!(text.contains("stop_signal 19"), "{text}");
    }
}
