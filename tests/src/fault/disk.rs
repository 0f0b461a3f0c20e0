//! The disk under the state directory, which can be filled and made read-only. As root it is a
//! small file system in a mount namespace that ends with the run. Without root, the file is
//! replaced by a device that is always full, or the directory loses its write permission.

use broker::reactor::kept_script;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::Uid;
use std::cell::Cell;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Size of the file system.
const OPTIONS: &str = "size=1m,mode=0700";
/// Files that the broker writes before it puts them in their places.
const BESIDE: [&str; 2] = ["config.isect.tmp", "ports.tmp"];

/// The state directory's disk.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    is_mounted: bool,
    is_protected: Cell<bool>,
}

impl Disk {
    /// Makes the directory, on a file system of its own if this thread may mount one. Processes see
    /// it that are started from this thread. A temporary folder contains it; what is left of that
    /// folder goes with the disk, which is dropped after the broker.
    ///
    /// # Panics
    /// If the directory can't be made.
    pub fn new(path: PathBuf) -> Self {
        fs::create_dir_all(&path).expect("a directory");
        let none: Option<&str> = None;
        let is_mounted = Uid::effective().is_root()
            && unshare(CloneFlags::CLONE_NEWNS).is_ok()
            && mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).is_ok()
            && mount(Some("isect"), &path, Some("tmpfs"), MsFlags::empty(), Some(OPTIONS)).is_ok();
        if is_mounted {
            // libfaketime leaves files there; these go with the name space.
            let _ = mount(Some("isect"), "/dev/shm", Some("tmpfs"), MsFlags::empty(), none);
        }
        Self { path, is_mounted, is_protected: Cell::new(false) }
    }

    /// Whether it is a file system of its own, in a mount namespace of its own.
    pub const fn is_mounted(&self) -> bool {
        self.is_mounted
    }

    /// The method in use, for the report.
    pub const fn how(&self) -> &'static str {
        if self.is_mounted {
            "a file system of its own"
        } else {
            "a full device, no right to write"
        }
    }

    /// Fills the disk: not one more byte fits.
    pub fn fill(&self) {
        if !self.is_mounted {
            for name in BESIDE {
                // The file may exist already.
                let _ = std::os::unix::fs::symlink("/dev/full", self.path.join(name));
            }
            return;
        }
        let file = fs::OpenOptions::new().create(true).append(true).open(self.filling());
        let Ok(mut file) = file else { return };
        for size in [65_536, 4096, 1] {
            let bytes = vec![b'x'; size];
            while file.write_all(&bytes).is_ok() {}
        }
    }

    /// Makes the disk read-only.
    ///
    /// # Panics
    /// If the system refuses that.
    pub fn protect(&self) {
        if !self.is_mounted {
            return self.permit(0o500);
        }
        // The directory once more, over itself: unlike the file system, on which the broker has a
        // file open, this can be made read-only at any time.
        let none: Option<&str> = None;
        let again = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(Some(&self.path), &self.path, none, MsFlags::MS_BIND, none).expect("mounted again");
        mount(none, &self.path, none, again, none).expect("made read-only");
        self.is_protected.set(true);
    }

    /// Makes the disk writable again and removes what filled it.
    pub fn mend(&self) {
        if self.is_mounted && self.is_protected.take() {
            umount2(&self.path, MntFlags::MNT_DETACH).expect("taken away again");
        }
        if !self.is_mounted {
            self.permit(0o700);
            for path in BESIDE.map(|name| self.path.join(name)) {
                if path.is_symlink() {
                    let _ = fs::remove_file(path);
                }
            }
        }
        let _ = fs::remove_file(self.filling());
    }

    /// Whether what is kept is what `save` printed, apart from the settings of the broker: those of
    /// its command line are printed and not kept.
    pub fn keeps(&self, saved: &str) -> bool {
        let rest = |script: &str| -> Vec<String> {
            let lines = script.lines().filter(|line| !line.starts_with("set "));
            lines.map(str::to_owned).collect()
        };
        kept_script(&self.path).is_ok_and(|kept| rest(&kept) == rest(saved))
    }

    fn permit(&self, mode: u32) {
        fs::set_permissions(&self.path, PermissionsExt::from_mode(mode)).expect("permissions");
    }

    fn filling(&self) -> PathBuf {
        self.path.join("filling")
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_mounted {
            // It is in this thread's name space alone, and ends with it at the latest. The broker's
            // folder, in which it stands, could not be removed as long as it was mounted.
            let _ = umount2(&self.path, MntFlags::MNT_DETACH);
            if let Some(folder) = self.path.parent() {
                let _ = fs::remove_dir_all(folder);
            }
        }
    }
}
