//! Opening files that a container runtime named, in the runtime's own view of the file system. Those of guests are read
//! by processes of their own ([`helper`]).

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

/// Larger files are not read. The largest real `config.json` are some hundred KiB.
pub(crate) const SIZE_MAX: u64 = 16 * 1024 * 1024;

/// The user whom files may belong to in any case.
pub(crate) const ROOT: u32 = 0;

/// How paths are resolved: no link leads above the root, and none of those in /proc that lead to what is open elsewhere is
/// followed at all.
const RESOLVE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// File systems without storage, by their magic numbers (include/uapi/linux/magic.h; fs/fuse/control.c, fs/nfsd/nfsctl.c).
///
/// The owner of a file there says who may ask the kernel, not who has written what it holds: `/proc/PID/environ` of a
/// process that may not be dumped is root's, and has what a user has put into it. These are listed, rather than the others,
/// since bundles are on whatever stores files: new file systems of that kind come every year, and out of the tree.
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
    #[error("it is a symbolic link, which is not followed")]
    Symlink,
    /// It is a directory, a fifo, a device, a socket.
    #[error("it is not a regular file but a {0}")]
    NotRegular(&'static str),
    /// Somebody else than root, or than the runtime's user, may have written it.
    #[error("it belongs to user {0}, neither to root nor to the runtime's user")]
    Foreign(u32),
    /// The kernel makes up what it holds, from what processes have told it.
    #[error("it is on a file system of the kernel's own ({0}), whose files hold what processes have set")]
    Pseudo(&'static str),
    /// It is larger than [`SIZE_MAX`].
    #[error("it has {0} bytes, more than the {SIZE_MAX} that are read")]
    TooLarge(u64),
    /// As the process says that has tried.
    #[error("{0}")]
    Told(String),
}

/// Reads a file below `root`, at which absolute paths and links start and above which none leads.
///
/// Neither waits (a fifo, a lock) nor reads without bound, whatever the file turns out to be. The file must belong to
/// root or to `owner`.
pub(crate) fn read_below(root: BorrowedFd<'_>, path: &Path, owner: u32) -> Result<Vec<u8>, FileError> {
    file_helper::run(Job::Read(owner), root, path)
}

/// The names in a directory below `root`; none where it cannot be read. Whoever fills a directory without end
/// gets to see the first of them taken.
pub(crate) fn list_below(root: BorrowedFd<'_>, path: &Path) -> Vec<String> {
    let names = file_helper::run(Job::List, root, path).unwrap_or_default();
    let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names.filter_map(|name| Some(str::from_utf8(name).ok()?.to_owned())).collect()
}

/// Whether there is a file below `root`.
pub(crate) fn has_below(root: BorrowedFd<'_>, path: &Path) -> bool {
    file_helper::run(Job::Has, root, path).is_ok()
}

/// A file below `/proc/PID` that tells what is in that process's memory, which may be that of a file that hangs.
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
    // One byte more, in case it grows while it is read.
    std::fs::File::from(file).take(SIZE_MAX + 1).read_to_end(&mut bytes)?;
    let read = bytes.len() as u64;
    if read > SIZE_MAX { Err(FileError::TooLarge(read)) } else { Ok(bytes) }
}

/// [`list_below`], in this process: each name with a NUL behind it.
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
    /// A longer command line is not read again. Linux allows 2 MiB, and no engine needs 64 KiB.
    const OF_PROCESS_MAX: u64 = 1024 * 1024;
    // A name, not a path to somewhere else: absolute, by `..`, or by a link.
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file =
        rustix::fs::openat2(directory, name, flags, Mode::empty(), resolve).map_err(std::io::Error::from)?;
    let mut bytes = Vec::new();
    std::fs::File::from(file).take(OF_PROCESS_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The name of the file system that a file is on, if that stores nothing.
fn pseudo_file_system(file: BorrowedFd<'_>) -> std::io::Result<Option<&'static str>> {
    // A magic number has 32 bits, whatever the width and sign of the field.
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

    /// A directory that is removed with all in it.
    struct Scratch(std::path::PathBuf);

    impl Scratch {
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

    impl Drop for Scratch {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    #[test]
    fn absolute_links_on_the_way_stay_below_the_root() {
        let scratch = Scratch::new("links");
        fs::create_dir_all(scratch.0.join("run/bundle")).unwrap();
        fs::create_dir(scratch.0.join("var")).unwrap();
        symlink("/run", scratch.0.join("var/run")).unwrap();
        fs::write(scratch.0.join("run/bundle/config.json"), "{}").unwrap();
        assert_eq!(scratch.read("/var/run/bundle/config.json").unwrap(), b"{}");
        assert_eq!(scratch.read("/../../run/bundle/config.json").unwrap(), b"{}");
    }

    #[test]
    fn the_owner_is_root_or_the_one_that_is_expected() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let scratch = Scratch::new("owner");
        let path = scratch.0.join("file");
        fs::write(&path, "x").unwrap();
        std::os::unix::fs::chown(&path, Some(1234), None).unwrap();
        let root = fs::File::open(&scratch.0).unwrap();
        let read = |owner| read_below(root.as_fd(), Path::new("file"), owner);
        assert!(matches!(read(ROOT), Err(FileError::Foreign(1234))));
        assert_eq!(read(1234).unwrap(), b"x");
    }

    #[test]
    fn what_the_kernel_makes_up_is_refused_whoever_owns_it() {
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
    fn a_name_below_proc_is_no_path_elsewhere() {
        let own = fs::File::open("/proc/self").unwrap();
        let read = |name: &str| open_and_read_of_process(own.as_fd(), Path::new(name));
        assert!(read("cmdline").is_ok());
        // All of these can be read otherwise.
        for path in
            ["/etc/passwd", "/proc/self/cmdline", "../version", "root/etc/passwd", "cwd/../etc/passwd", "exe"]
        {
            assert!(read(path).is_err(), "{path}");
        }
    }

    #[test]
    fn links_of_proc_to_what_is_open_elsewhere_are_not_followed() {
        let scratch = Scratch::new("magic");
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
    fn what_is_no_plain_file_of_bounded_size_is_refused_by_name() {
        let scratch = Scratch::new("special");
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
