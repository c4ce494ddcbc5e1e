//! Opens files that a container runtime has named, in that runtime's view of the file system. Files of containers are
//! read by helper processes ([`file_helper`]).

use std::{
    io::Read as _,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use rustix::{
    fs::{Dir, FileType, Mode, OFlags, ResolveFlags, fstatfs},
    io::Errno,
};

use crate::sys::{file_helper, file_helper::Job};

/// Largest file that is read, in bytes. The largest real `config.json` files have some hundred KiB.
pub(crate) const SIZE_MAX: u64 = 16 * 1024 * 1024;

/// User id of root, which may own any file that is read.
pub(crate) const ROOT: u32 = 0;

/// How paths are resolved: no link leads above the root, and the links in /proc to open files are not followed at
/// all.
const RESOLVE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// File systems without storage, by their magic numbers (include/uapi/linux/magic.h; fs/fuse/control.c,
/// fs/nfsd/nfsctl.c).
///
/// The owner of a file there determines who may query the kernel, not who wrote the contents: `/proc/PID/environ` of
/// a process that is not dumpable belongs to root and contains what a user has set. These file systems are listed
/// rather than those that store files, because bundles may be on any of the latter, and new ones appear every year,
/// in the kernel and outside of it.
const PSEUDO_FILE_SYSTEMS: [(u32, &str); 24] = [
    (0x9fa0, "proc"),
    (0x6265_6572, "sysfs"),
    (0x0027_e0eb, "cgroup"),
    (0x6367_7270, "cgroup2"),
    (0x6462_6720, "debugfs"),
    (0x7472_6163, "tracefs"),
    (0x7363_6673, "securityfs"),
    (0x6265_6570, "configfs"),
    (0xcafe_4a11, "bpf"),
    (0x6165_676c, "pstore"),
    (0xde5e_81e4, "efivarfs"),
    (0xf97c_ff8c, "selinuxfs"),
    (0x4341_5d53, "smackfs"),
    (0x5a3c_69f0, "aafs"),
    (0x1cd1, "devpts"),
    (0x1980_0202, "mqueue"),
    (0x6e73_6673, "nsfs"),
    (0x5049_5045, "pipefs"),
    (0x534f_434b, "sockfs"),
    (0x0904_1934, "anon_inodefs"),
    (0x4249_4e4d, "binfmt_misc"),
    (0x0765_5821, "resctrl"),
    (0x6573_5543, "fusectl"),
    (0x6e66_7364, "nfsd"),
];

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// It could not be opened or read.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// It is a symbolic link.
    #[error("it is a symbolic link, which tracer does not follow")]
    Symlink,
    /// It is a directory, fifo, device or socket.
    #[error("not a regular file ({0})")]
    NotRegular(&'static str),
    /// A user other than root and the runtime's user may have written it.
    #[error("it belongs to user {0}, who is neither root nor the runtime's user")]
    Foreign(u32),
    /// The kernel generates its contents from what processes have set.
    #[error("it is on a pseudo file system ({0}), whose contents any process may influence")]
    Pseudo(&'static str),
    /// It is larger than [`SIZE_MAX`].
    #[error("it has {0} bytes, more than the limit of {SIZE_MAX}")]
    TooLarge(u64),
    /// The error message of a helper process.
    #[error("{0}")]
    Helper(String),
}

/// Reads a file below `root`. Absolute paths and links start at `root`, and none leads above it.
///
/// Neither blocks (on a fifo or a lock) nor reads more than [`SIZE_MAX`], whatever the file is. The file must belong
/// to root or to `owner`.
pub(crate) fn read_below(root: BorrowedFd<'_>, path: &Path, owner: u32) -> Result<Vec<u8>, FileError> {
    file_helper::run(Job::Read(owner), root, path)
}

/// The names in a directory below `root`; empty if it cannot be read. The number of names is limited.
pub(crate) fn list_below(root: BorrowedFd<'_>, path: &Path) -> Vec<String> {
    let names = file_helper::run(Job::List, root, path).unwrap_or_default();
    let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names.filter_map(|name| Some(str::from_utf8(name).ok()?.to_owned())).collect()
}

/// Whether a file exists below `root`.
pub(crate) fn has_below(root: BorrowedFd<'_>, path: &Path) -> bool {
    file_helper::run(Job::Has, root, path).is_ok()
}

/// Reads a file below `/proc/PID` whose contents come from that process's memory, which may be mapped from a file
/// that hangs.
pub(crate) fn read_of_process(directory: BorrowedFd<'_>, name: &Path) -> Result<Vec<u8>, FileError> {
    file_helper::run(Job::OfProcess, directory, name)
}

/// [`read_below`], in this process.
pub(crate) fn open_and_read(root: BorrowedFd<'_>, path: &Path, owner: u32) -> Result<Vec<u8>, FileError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = rustix::fs::openat2(root, path, flags, Mode::empty(), RESOLVE).map_err(|errno| {
        if errno == Errno::LOOP { FileError::Symlink } else { FileError::Io(errno.into()) }
    })?;
    if let Some(name) = pseudo_file_system(file.as_fd())? {
        return Err(FileError::Pseudo(name));
    }
    let stat = rustix::fs::fstat(file.as_fd()).map_err(std::io::Error::from)?;
    if let Some(kind) = special_kind(FileType::from_raw_mode(stat.st_mode)) {
        return Err(FileError::NotRegular(kind));
    }
    if stat.st_uid != ROOT && stat.st_uid != owner {
        return Err(FileError::Foreign(stat.st_uid));
    }
    let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
    if size > SIZE_MAX {
        return Err(FileError::TooLarge(size));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    // One byte more than the limit, to notice a file that grows while it is read.
    std::fs::File::from(file).take(SIZE_MAX + 1).read_to_end(&mut bytes)?;
    let read = bytes.len() as u64;
    if read > SIZE_MAX { Err(FileError::TooLarge(read)) } else { Ok(bytes) }
}

/// [`list_below`], in this process: each name followed by a NUL.
pub(crate) fn open_and_list(root: BorrowedFd<'_>, path: &Path) -> Vec<u8> {
    const NAMES_MAX: usize = 65_536;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(directory) = rustix::fs::openat2(root, path, flags, Mode::empty(), RESOLVE) else {
        return Vec::new();
    };
    let Ok(entries) = Dir::new(directory) else { return Vec::new() };
    entries
        .filter_map(|entry| Some(entry.ok()?.file_name().to_owned()))
        .filter(|name| name.as_c_str() != c"." && name.as_c_str() != c"..")
        .take(NAMES_MAX)
        .flat_map(std::ffi::CString::into_bytes_with_nul)
        .collect()
}

/// [`has_below`], in this process.
pub(crate) fn find(root: BorrowedFd<'_>, path: &Path) -> Result<Vec<u8>, FileError> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    match rustix::fs::openat2(root, path, flags, Mode::empty(), RESOLVE) {
        Ok(_) => Ok(Vec::new()),
        Err(errno) => Err(FileError::Io(errno.into())),
    }
}

/// [`read_of_process`], in this process.
pub(crate) fn open_and_read_of_process(directory: BorrowedFd<'_>, name: &Path) -> Result<Vec<u8>, FileError> {
    /// A longer command line is truncated. Linux permits 2 MiB, and no engine needs 64 KiB.
    const OF_PROCESS_MAX: u64 = 1024 * 1024;
    // A name, not a path elsewhere: absolute, with `..`, or through a link.
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file =
        rustix::fs::openat2(directory, name, flags, Mode::empty(), resolve).map_err(std::io::Error::from)?;
    let mut bytes = Vec::new();
    std::fs::File::from(file).take(OF_PROCESS_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The name of the file system that a file is on, if that stores no files.
fn pseudo_file_system(file: BorrowedFd<'_>) -> std::io::Result<Option<&'static str>> {
    // Magic numbers have 32 bits, whatever the width and sign of the field.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "only those bits count")]
    let magic = fstatfs(file)?.f_type as u32;
    Ok(PSEUDO_FILE_SYSTEMS.iter().find(|(number, _)| *number == magic).map(|(_, name)| *name))
}

fn special_kind(file_type: FileType) -> Option<&'static str> {
    match file_type {
        FileType::RegularFile => None,
        FileType::Directory => Some("directory"),
        FileType::Fifo => Some("fifo"),
        FileType::CharacterDevice => Some("character device"),
        FileType::BlockDevice => Some("block device"),
        FileType::Socket => Some("socket"),
        FileType::Symlink | FileType::Unknown => Some("special file"),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    /// A temporary directory that is removed with its contents.
    struct TempDir(std::path::PathBuf);

    impl TempDir {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("tracer-files-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn read(&self, path: &str) -> Result<Vec<u8>, FileError> {
            let root = fs::File::open(&self.0).unwrap();
            read_below(root.as_fd(), Path::new(path), rustix::process::geteuid().as_raw())
        }
    }

    impl Drop for TempDir {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    #[test]
    fn absolute_links_are_resolved_below_the_root() {
        let scratch = TempDir::new("links");
        fs::create_dir_all(scratch.0.join("run/bundle")).unwrap();
        fs::create_dir(scratch.0.join("var")).unwrap();
        symlink("/run", scratch.0.join("var/run")).unwrap();
        fs::write(scratch.0.join("run/bundle/config.json"), "{}").unwrap();
        assert_eq!(scratch.read("/var/run/bundle/config.json").unwrap(), b"{}");
        assert_eq!(scratch.read("/../../run/bundle/config.json").unwrap(), b"{}");
    }

    #[test]
    fn files_of_other_owners_are_refused() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let scratch = TempDir::new("owner");
        let path = scratch.0.join("file");
        fs::write(&path, "x").unwrap();
        std::os::unix::fs::chown(&path, Some(1234), None).unwrap();
        let root = fs::File::open(&scratch.0).unwrap();
        let read = |owner| read_below(root.as_fd(), Path::new("file"), owner);
        assert!(matches!(read(ROOT), Err(FileError::Foreign(1234))));
        assert_eq!(read(1234).unwrap(), b"x");
    }

    #[test]
    fn files_on_pseudo_file_systems_are_refused_even_if_owned_by_root() {
        let root = fs::File::open("/").unwrap();
        let read = |path: &str| read_below(root.as_fd(), Path::new(path), ROOT);
        for (path, name) in
            [("/proc/version", "proc"), ("/proc/1/status", "proc"), ("/sys/kernel/uevent_seqnum", "sysfs")]
        {
            let result = read(path);
            assert!(matches!(&result, Err(FileError::Pseudo(is)) if *is == name), "{path}: {result:?}");
        }
    }

    #[test]
    fn names_below_proc_cannot_lead_elsewhere() {
        let own = fs::File::open("/proc/self").unwrap();
        let read = |name: &str| open_and_read_of_process(own.as_fd(), Path::new(name));
        assert!(read("cmdline").is_ok());
        // All of these are readable otherwise.
        for path in
            ["/etc/passwd", "/proc/self/cmdline", "../version", "root/etc/passwd", "cwd/../etc/passwd", "exe"]
        {
            assert!(read(path).is_err(), "{path}");
        }
    }

    #[test]
    fn magic_links_in_proc_are_not_followed() {
        let scratch = TempDir::new("magic");
        fs::write(scratch.0.join("file"), "x").unwrap();
        let file = fs::File::open(scratch.0.join("file")).unwrap();
        let root = fs::File::open("/").unwrap();
        let process = std::process::id();
        let owner = rustix::process::geteuid().as_raw();
        for path in [
            format!("/proc/{process}/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file)),
            format!("/proc/{process}/cwd/file"),
        ] {
            assert!(read_below(root.as_fd(), Path::new(&path), owner).is_err(), "{path}");
        }
    }

    #[test]
    fn special_and_oversized_files_are_refused() {
        let scratch = TempDir::new("special");
        fs::write(scratch.0.join("file"), "x").unwrap();
        symlink("file", scratch.0.join("link")).unwrap();
        fs::create_dir(scratch.0.join("directory")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, scratch.0.join("fifo"), FileType::Fifo, 0o600.into(), 0)
            .unwrap();
        fs::File::create(scratch.0.join("sparse")).unwrap().set_len(SIZE_MAX + 1).unwrap();
        assert!(matches!(scratch.read("link"), Err(FileError::Symlink)));
        assert!(matches!(scratch.read("directory"), Err(FileError::NotRegular("directory"))));
        assert!(matches!(scratch.read("fifo"), Err(FileError::NotRegular("fifo"))));
        assert!(matches!(scratch.read("sparse"), Err(FileError::TooLarge(_))));
        assert!(matches!(scratch.read("absent"), Err(FileError::Io(_))));
    }
}
