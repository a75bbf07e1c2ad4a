//! Servers as processes: started on a core, measured with all that they started themselves, killed on drop.

use std::{
    collections::BTreeMap,
    ffi::{CString, OsStr, OsString},
    fs::{self, OpenOptions},
    io,
    mem::MaybeUninit,
    os::unix::{ffi::OsStrExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// The end of a log that an error shows, in bytes.
const LOG_BYTES_SHOWN: usize = 2000;

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// This machine does not let us, or lacks something.
    #[error("{0}")]
    Place(String),
    /// A file or a program.
    #[error("cannot {what}: {reason}")]
    Io {
        /// What was to be done.
        what: String,
        /// The system's words.
        reason: io::Error,
    },
    /// A server did not start, or ended.
    #[error("{name} does not run: {reason}; it logged:\n{log}")]
    Server {
        /// Its program.
        name: String,
        /// What happened.
        reason: String,
        /// The end of its log.
        log: String,
    },
    /// A client got something else than it should have.
    #[error("{client} did not get what it asked for: {what}")]
    Client {
        /// Its program.
        client: &'static str,
        /// What it got.
        what: String,
    },
}

/// A failure to do `what`.
pub(super) fn io_failure(what: impl Into<String>) -> impl FnOnce(io::Error) -> Failure {
    move |reason| Failure::Io { what: what.into(), reason }
}

/// A program, where it runs, and on which core.
#[derive(Debug, Default)]
pub(super) struct Program {
    name: OsString,
    args: Vec<OsString>,
    env: Vec<(&'static str, OsString)>,
    root: Option<PathBuf>,
    core: Option<usize>,
}

impl Program {
    pub(super) fn new(name: impl AsRef<OsStr>) -> Self {
        Self { name: name.as_ref().to_owned(), ..Self::default() }
    }

    pub(super) fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    pub(super) fn env(mut self, name: &'static str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name, value.as_ref().to_owned()));
        self
    }

    /// Its root directory.
    pub(super) fn root(mut self, root: Option<PathBuf>) -> Self {
        self.root = root;
        self
    }

    pub(super) fn core(mut self, core: Option<usize>) -> Self {
        self.core = core;
        self
    }

    /// The command, which ends with this process.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.name);
        command.args(&self.args).stdin(Stdio::null());
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        if self.root.is_some() {
            command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        }
        let root = self.root.as_ref().map(|root| CString::new(root.as_os_str().as_bytes()).expect("paths have no zero byte"));
        let core = self.core;
        let prepare = move || {
            die_with_parent()?;
            core.map_or(Ok(()), stay_on)?;
            root.as_ref().map_or(Ok(()), change_root)
        };
        // SAFETY: between fork and exec it makes system calls and nothing else: no memory is taken, no lock.
        unsafe { command.pre_exec(prepare) };
        command
    }

    /// Starts a server that logs to this file.
    pub(super) fn start(&self, log: &Path) -> Result<Running, Failure> {
        let name = self.name.to_string_lossy().into_owned();
        let _ = fs::remove_file(log);
        let file =
            OpenOptions::new().create(true).append(true).open(log).map_err(io_failure(format!("write {}", log.display())))?;
        let both = file.try_clone().map_err(io_failure("share a log file"))?;
        let child = self.command().stdout(file).stderr(both).spawn().map_err(io_failure(format!("start {name}")))?;
        Ok(Running { name, child, log: log.to_owned() })
    }
}

/// A server's process and all that it started.
#[derive(Debug)]
pub(super) struct Running {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Running {
    /// An error of this server, with what it logged last.
    pub(super) fn failure(&self, reason: impl Into<String>) -> Failure {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_BYTES_SHOWN)..]).into_owned();
        Failure::Server { name: self.name.clone(), reason: reason.into(), log }
    }

    /// Whether it still runs.
    pub(super) fn check(&mut self) -> Result<(), Failure> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.failure(status.to_string())),
            Err(reason) => Err(self.failure(reason.to_string())),
        }
    }

    /// What it logged.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Forgets what it logged: the log is in memory.
    pub(super) fn trim_log(&self) {
        // It only grows until the next time.
        let _ = OpenOptions::new().write(true).open(&self.log).and_then(|log| log.set_len(0));
    }

    /// The CPU time of each of its processes, user's and system's, threads that ended included (clock_getcpuclockid(3)).
    pub(super) fn cpu_time(&self) -> CpuTime {
        CpuTime(self.processes().into_iter().filter_map(|process| Some((process, cpu_time(process)?))).collect())
    }

    /// The most memory that its processes had resident (`VmHWM`, proc_pid_status(5)), what they share counted for each.
    pub(super) fn resident_bytes_max(&self) -> u64 {
        self.processes().into_iter().filter_map(resident_bytes_max).sum()
    }

    /// Its process, and those that came from it.
    fn processes(&self) -> Vec<u32> {
        let mut parents = BTreeMap::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let process = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
            let stat = process.and_then(|_| fs::read_to_string(entry.path().join("stat")).ok());
            // proc_pid_stat(5): the name, which may hold anything, ends with the last parenthesis.
            let parent = stat.as_deref().and_then(|stat| stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok());
            parents.extend(process.zip(parent));
        }
        let mut found = vec![self.child.id()];
        let mut at = 0;
        while let Some(parent) = found.get(at).copied() {
            found.extend(parents.iter().filter(|(_, of)| **of == parent).map(|(process, _)| *process));
            at += 1;
        }
        found
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for process in self.processes() {
            let process = libc::pid_t::try_from(process).expect("the kernel's own number");
            // SAFETY: a system call that takes two numbers.
            unsafe { libc::kill(process, libc::SIGKILL) };
        }
        // It was killed.
        let _ = self.child.wait();
    }
}

/// CPU time by process.
#[derive(Debug, Clone, Default)]
pub(super) struct CpuTime(BTreeMap<u32, Duration>);

impl CpuTime {
    /// What was added since then. A process that ended in between is not counted: those are the ones that did nothing.
    pub(super) fn since(&self, before: &Self) -> Duration {
        let added = |(process, now): (&u32, &Duration)| now.saturating_sub(before.0.get(process).copied().unwrap_or_default());
        self.0.iter().map(added).sum()
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }
}

fn cpu_time(process: u32) -> Option<Duration> {
    let mut clock = 0;
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: both calls write to the place that they are given and to nothing else; `time` is read only if it was written.
    let time = unsafe {
        if libc::clock_getcpuclockid(libc::pid_t::try_from(process).ok()?, &raw mut clock) != 0
            || libc::clock_gettime(clock, time.as_mut_ptr()) != 0
        {
            return None;
        }
        time.assume_init()
    };
    Some(Duration::new(time.tv_sec.try_into().ok()?, time.tv_nsec.try_into().ok()?))
}

fn resident_bytes_max(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib << 10)
}

/// Asks the kernel to kill this process when its parent ends (PR_SET_PDEATHSIG).
pub(super) fn die_with_parent() -> io::Result<()> {
    // SAFETY: a system call that takes numbers.
    checked(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })
}

/// Keeps this thread, and what it starts, on one core, which is below `CPU_SETSIZE`.
pub(super) fn stay_on(core: usize) -> io::Result<()> {
    // SAFETY: a set of cores is plain numbers, for which zeroes are a value; the call reads it.
    checked(unsafe {
        let mut set = std::mem::zeroed::<libc::cpu_set_t>();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &raw const set)
    })
}

fn change_root(root: &CString) -> io::Result<()> {
    // SAFETY: system calls that read strings which end with a zero.
    checked(unsafe { libc::chroot(root.as_ptr()) })?;
    checked(unsafe { libc::chdir(c"/".as_ptr()) })
}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
