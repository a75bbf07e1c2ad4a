//! Whether io_uring works here, and with which flags. Asked once per cache.
//!
//! A kernel's version does not say it: containers forbid the calls, and distributions carry patches back. So a ring is made and used.

use std::{
    io::{self, Write as _},
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use io_uring::{EnterFlags, IoUring, Probe, opcode, types};

/// Submissions that a ring holds between two calls into the kernel.
const SUBMISSIONS_MAX: u32 = 128;
/// Completions that a ring holds; what is beyond, the kernel keeps back until there is room.
const COMPLETIONS_MAX: u32 = 4096;
/// Far more than an event needs to get to epoll.
const WAKE_MAX_MS: i32 = 1000;

/// How a ring is set up, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setup {
    /// Completions are processed when the ring's one thread asks for them (Linux 6.1).
    Deferred,
    /// They interrupt nobody (5.19).
    Cooperative,
    /// They interrupt the thread.
    Plain,
}

impl Setup {
    /// A ring, and an eventfd that is signalled when it has something to take. The ring's own descriptor will not do: with
    /// [`Self::Deferred`], epoll is not told of it before somebody enters the ring.
    pub(super) fn build(self) -> io::Result<(IoUring, OwnedFd)> {
        let mut builder = IoUring::builder();
        builder.dontfork().setup_cqsize(COMPLETIONS_MAX);
        match self {
            Self::Deferred => builder.setup_submit_all().setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag(),
            Self::Cooperative => builder.setup_submit_all().setup_coop_taskrun().setup_taskrun_flag(),
            Self::Plain => &mut builder,
        };
        let ring = builder.build(SUBMISSIONS_MAX)?;
        // SAFETY: no pointers.
        let event = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: it was just opened, and nobody else has it.
        let event = unsafe { OwnedFd::from_raw_fd(event) };
        ring.submitter().register_eventfd(event.as_raw_fd())?;
        Ok((ring, event))
    }

    /// The best that works here.
    pub(super) fn probe() -> io::Result<Self> {
        Self::Deferred.works().map(|()| Self::Deferred).or_else(|_| {
            let cooperative = Self::Cooperative.works().map(|()| Self::Cooperative);
            cooperative.or_else(|_| Self::Plain.works().map(|()| Self::Plain))
        })
    }

    /// Whether such a ring can be had, knows what will be asked of it, and tells epoll of completions.
    fn works(self) -> io::Result<()> {
        let (mut ring, event) = self.build()?;
        let mut known = Probe::new();
        ring.submitter().register_probe(&mut known)?;
        let needed =
            [opcode::Read::CODE, opcode::Write::CODE, opcode::ReadFixed::CODE, opcode::WriteFixed::CODE, opcode::Fsync::CODE];
        let knows_all = needed.iter().all(|code| known.is_supported(*code));
        if !knows_all || !ring.params().is_feature_ext_arg() || !ring.params().is_feature_nodrop() {
            return Err(lacks("this kernel's io_uring lacks operations"));
        }
        let epoll = Epoll::of(event.as_raw_fd())?;
        // The first time may be woken by what was done to set it up.
        wakes(&mut ring, &epoll)?;
        wakes(&mut ring, &epoll)
    }
}

fn wakes(ring: &mut IoUring, epoll: &Epoll) -> io::Result<()> {
    let (reader, mut writer) = io::pipe()?;
    let entry = opcode::PollAdd::new(types::Fd(reader.as_raw_fd()), libc::POLLIN as u32).build();
    // SAFETY: the entry refers to no memory, and the kernel keeps the pipe while it waits for it.
    unsafe { ring.submission().push(&entry) }.map_err(io::Error::other)?;
    ring.submit()?;
    epoll.wait(0)?;
    writer.write_all(&[0])?;
    if !epoll.wait(WAKE_MAX_MS)? {
        return Err(lacks("epoll is not told of this kernel's io_uring completions"));
    }
    // SAFETY: without an argument nothing is pointed to.
    unsafe { ring.submitter().enter::<libc::sigset_t>(0, 0, EnterFlags::GETEVENTS.bits(), None) }?;
    match ring.completion().next() {
        Some(completion) if completion.result() >= 0 => Ok(()),
        Some(completion) => Err(io::Error::from_raw_os_error(-completion.result())),
        None => Err(lacks("this kernel's io_uring loses completions")),
    }
}

fn lacks(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, what)
}

/// Watches one file descriptor as tokio does: for edges.
struct Epoll(OwnedFd);

impl Epoll {
    fn of(fd: RawFd) -> io::Result<Self> {
        // SAFETY: no pointers.
        let epoll = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: it was just opened, and nobody else has it.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
        let mut event = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLET) as u32, u64: 0 };
        // SAFETY: the event outlives the call.
        check(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event) })?;
        Ok(Self(epoll))
    }

    fn wait(&self, wait_max_ms: i32) -> io::Result<bool> {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        loop {
            // SAFETY: there is room for the one event.
            match check(unsafe { libc::epoll_wait(self.0.as_raw_fd(), &raw mut event, 1, wait_max_ms) }) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                events => return Ok(events? > 0),
            }
        }
    }
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What [`Setup::probe`] relies on, for each setup by itself, so that a kernel with which the first fails is seen here.
    #[test]
    fn epoll_is_told_of_completions_with_every_setup() {
        if Setup::probe().is_err() {
            return;
        }
        for setup in [Setup::Deferred, Setup::Cooperative, Setup::Plain] {
            setup.works().unwrap_or_else(|error| panic!("{setup:?}: {error}"));
        }
    }
}
