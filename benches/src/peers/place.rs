//! Where it all runs: namespaces of its own (namespaces(7)), with a network that is nothing but a loopback, a file system in memory, and
//! processes that end with the first of them.

use std::{
    ffi::CString,
    fs::{self, File},
    io,
    os::unix::{ffi::OsStrExt as _, fs::FileExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    ptr,
    time::Duration,
};

use tempfile::TempDir;

use super::process::{Failure, die_with_parent, io_failure, stay_on};

/// The MTU of Ethernet.
const MTU: &str = "1500";
/// Where the run has its files, under the same name for programs of every Debian.
const WORK: &str = "/mnt";

/// The Debians that `tools/install.sh peers` unpacks.
const RELEASES: [&str; 3] = ["forky", "trixie", "bookworm"];

/// Where a run has its files, its programs and its cores.
#[derive(Debug)]
pub(super) struct Place {
    /// Everything that is written is here.
    pub(super) work: PathBuf,
    /// Removed at the end, where no namespace ends with the run.
    _folder: Option<TempDir>,
    /// The folder with a Debian for each release; this system itself in the small size.
    releases: Option<PathBuf>,
    /// Of server and client.
    cores: Option<[usize; 2]>,
    /// The accounts of the kernel's thread that takes over network work of the server's core when there is much.
    softirq: Option<File>,
}

impl Place {
    /// A folder, and whatever this system has.
    pub(super) fn small() -> Result<Self, Failure> {
        let folder = tempfile::tempdir().map_err(io_failure("make a directory"))?;
        Ok(Self { work: folder.path().to_owned(), _folder: Some(folder), releases: None, cores: None, softirq: None })
    }

    /// The namespaces that [`run_inside`] made, set up.
    pub(super) fn inside(cores: [usize; 2]) -> Result<Self, Failure> {
        let softirq = softirq_accounts(cores[0]);
        stay_on(cores[1]).map_err(io_failure(format!("run on core {}", cores[1])))?;
        mount("none", Path::new("/"), "", libc::MS_REC | libc::MS_PRIVATE)?;
        mount("proc", Path::new("/proc"), "proc", 0)?;
        mount("larder", Path::new(WORK), "tmpfs", 0)?;
        let releases = releases()?;
        for release in RELEASES {
            let root = releases.join(release);
            mount("proc", &root.join("proc"), "proc", 0)?;
            mount("/dev", &root.join("dev"), "", libc::MS_BIND | libc::MS_REC)?;
            mount(WORK, &root.join(WORK.trim_start_matches('/')), "", libc::MS_BIND)?;
        }
        let up = Command::new("ip").args(["link", "set", "lo", "up", "mtu", MTU]).status().map_err(io_failure("run ip(8)"))?;
        if !up.success() {
            return Err(Failure::Place("ip(8) cannot bring the loopback up".into()));
        }
        Ok(Self { work: WORK.into(), _folder: None, releases: Some(releases), cores: Some(cores), softirq })
    }

    /// The root directory for programs of that release.
    pub(super) fn root(&self, release: &str) -> Option<PathBuf> {
        self.releases.as_ref().map(|releases| releases.join(release))
    }

    /// The core of servers.
    pub(super) fn server_core(&self) -> Option<usize> {
        self.cores.map(|[server, _]| server)
    }

    /// The core of clients, and of what is not measured.
    pub(super) fn client_core(&self) -> Option<usize> {
        self.cores.map(|[_, client]| client)
    }

    /// What the kernel's own thread has worked on the server's core.
    pub(super) fn softirq_time(&self) -> Duration {
        let mut line = [0; 128];
        let read = self.softirq.as_ref().and_then(|file| file.read_at(&mut line, 0).ok()).unwrap_or(0);
        let running_ns = str::from_utf8(&line[..read]).ok().and_then(|line| line.split(' ').next()?.parse().ok());
        Duration::from_nanos(running_ns.unwrap_or(0))
    }

    /// Writes a configuration, its `@NAME@`s replaced, and tells where it is.
    pub(super) fn configure(&self, name: &str, template: &str, values: &[(&str, &str)]) -> Result<PathBuf, Failure> {
        let file = self.work.join(name);
        let dir = self.work.display().to_string();
        let filled = template.replace("@DIR@", &dir);
        let filled = values.iter().fold(filled, |text, (name, value)| text.replace(&format!("@{name}@"), value));
        write(&file, filled.as_bytes())?;
        Ok(file)
    }
}

/// Writes a file, and the directories to it.
pub(super) fn write(file: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let folder = file.parent().unwrap_or(file);
    fs::create_dir_all(folder).and_then(|()| fs::write(file, bytes)).map_err(io_failure(format!("write {}", file.display())))
}

/// Runs this program again, with the same arguments, as the first process of namespaces of its own.
pub(super) fn run_inside(args: &[String]) -> Result<ExitCode, Failure> {
    // SAFETY: a system call that takes a number. No thread was started yet that it would leave behind.
    if unsafe { libc::unshare(libc::CLONE_NEWNET | libc::CLONE_NEWNS | libc::CLONE_NEWPID) } != 0 {
        let reason = io::Error::last_os_error();
        return Err(Failure::Place(format!("no namespaces of its own: {reason}; run it as root, or --small")));
    }
    let mut command = Command::new("/proc/self/exe");
    command.args(args).arg("--inside");
    // SAFETY: one system call, between fork and exec.
    unsafe { command.pre_exec(die_with_parent) };
    let status = command.status().map_err(io_failure("run this program again"))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Where `tools/install.sh peers` unpacks them.
fn releases() -> Result<PathBuf, Failure> {
    let missing = || Failure::Place("LARDER_CACHE is not set: `make bench-peers` sets it, and installs the peers there".into());
    let releases = PathBuf::from(std::env::var_os("LARDER_CACHE").ok_or_else(missing)?).join("peers");
    if !releases.is_dir() {
        return Err(Failure::Place(format!("no {}: `make bench-peers` installs the peers there", releases.display())));
    }
    Ok(releases)
}

fn mount(source: &str, target: &Path, kind: &str, flags: libc::c_ulong) -> Result<(), Failure> {
    let text = |bytes: &[u8]| CString::new(bytes).expect("paths have no zero byte");
    let (from, to, kind) = (text(source.as_bytes()), text(target.as_os_str().as_bytes()), text(kind.as_bytes()));
    // SAFETY: strings that end with a zero and live until it returns; it takes no data.
    if unsafe { libc::mount(from.as_ptr(), to.as_ptr(), kind.as_ptr(), flags, ptr::null()) } == 0 {
        return Ok(());
    }
    Err(Failure::Place(format!("cannot mount {source} on {}: {}", target.display(), io::Error::last_os_error())))
}

/// Found while /proc still shows the kernel's threads.
fn softirq_accounts(core: usize) -> Option<File> {
    let name = format!("ksoftirqd/{core}\n");
    let is_it = |process: &PathBuf| fs::read_to_string(process.join("comm")).is_ok_and(|comm| comm == name);
    let process = fs::read_dir("/proc").ok()?.filter_map(|entry| Some(entry.ok()?.path())).find(is_it)?;
    File::open(process.join("schedstat")).ok()
}
